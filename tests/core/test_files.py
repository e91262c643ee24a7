"""Atomic writes, JSON files and hashes of ids."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from cbir.core.errors import DataError
from cbir.core.files import SEAL, hash_ids, read_json, replacing, write_json
from tests.support.imports import ROOT


def test_replacing_renames_the_new_file_and_creates_folders(tmp_path):
    path = tmp_path / "a" / "b" / "x.txt"
    for text in ("one", "two"):
        with replacing(path) as temporary:
            assert temporary.parent == path.parent  # a rename stays on one file system
            temporary.write_text(text)
            assert not path.exists() or path.read_text() == "one"
        assert path.read_text() == text
    assert [file.name for file in path.parent.iterdir()] == ["x.txt"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_replacing_keeps_the_old_file_after_an_error(tmp_path, error):
    def interrupted():
        with replacing(tmp_path / "x.txt") as temporary:
            temporary.write_text("half")
            raise error("stop")

    (tmp_path / "x.txt").write_text("old")
    with pytest.raises(error, match="stop"):
        interrupted()
    assert (tmp_path / "x.txt").read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["x.txt"]


def test_json_keeps_order_text_and_numbers(tmp_path):
    value = {"b": [1, 2.5, None, True], "a": {"é 貓": "x\ny"}}
    write_json(tmp_path / "x.json", value)
    assert read_json(tmp_path / "x.json") == value
    assert list(read_json(tmp_path / "x.json")) == ["b", "a"]
    assert "é 貓" in (tmp_path / "x.json").read_text(encoding="utf-8")


def test_json_refuses_nan_and_keeps_the_old_file(tmp_path):
    write_json(tmp_path / "x.json", {"a": 1})
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "x.json", {"a": float("nan")})
    assert read_json(tmp_path / "x.json") == {"a": 1}


def test_missing_or_damaged_json_names_the_command(tmp_path):
    with pytest.raises(DataError, match=r"x\.json is not here: run `dvc repro`"):
        read_json(tmp_path / "x.json")
    for body in (b"", b'{"a": 1', b"\xff\xfe", b"a: 1"):
        (tmp_path / "x.json").write_bytes(body)
        with pytest.raises(
            DataError, match=r"x\.json is not readable as JSON \(.*\): run `cbir repair`, then `dvc repro`"
        ):
            read_json(tmp_path / "x.json")
    (tmp_path / "x.json").write_text("[1]")
    with pytest.raises(DataError, match=r"x\.json: expected a JSON object, found list"):
        read_json(tmp_path / "x.json")


def test_hash_of_ids_depends_on_order_and_borders():
    hashes = {hash_ids(ids) for ids in ([], [""], ["ab"], ["a", "b"], ["b", "a"], ["é"])}
    assert len(hashes) == 6
    assert hash_ids(iter(["a", "b"])) == hash_ids(["a", "b"])


def test_json_files_end_with_newline_and_have_equal_bytes(tmp_path):
    for name in "xy":
        write_json(tmp_path / name, {"b": 1, "a": [1.1]})
    assert (tmp_path / "x").read_bytes() == (tmp_path / "y").read_bytes()
    assert (tmp_path / "x").read_text().endswith("}\n")
    assert list(json.loads((tmp_path / "x").read_text())) == ["b", "a", SEAL]


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 100_000,
        b'{"a": ' * 100_000,
        b'{"a": NaN}',
        b'{"a": -Infinity}',
        b'{"a": ' + b"1" * 10_000 + b"}",
        b"\xef\xbb\xbf{}",
        b"a: 1",
    ],
    ids=["deep list", "deep object", "NaN", "infinity", "long number", "mark", "YAML"],
)
def test_json_that_is_none_is_refused_in_one_line(tmp_path, body):
    (tmp_path / "x.json").write_bytes(body)
    with pytest.raises(
        DataError, match=r"^.*x\.json is not readable as JSON \([^\n]*\): run `cbir repair`, then `dvc repro`$"
    ):
        read_json(tmp_path / "x.json", sealed=False)


def test_json_with_other_values_than_written_is_refused(tmp_path):
    path = tmp_path / "x.json"
    write_json(path, {"a": [1.5], "b": {"2": "x", "10": None}})
    whole = path.read_text()
    path.write_text(json.dumps(json.loads(whole)))  # white space is free
    assert read_json(path) == {"a": [1.5], "b": {"2": "x", "10": None}}
    for before, after in (("1.5", "1.25"), ('"x"', '"y"'), ('"10"', '"11"'), ("null", "0"), ('"cbir.seal"', '"seal"')):
        assert before in whole
        path.write_text(whole.replace(before, after))
        with pytest.raises(DataError, match=r"x\.json: expected the values that its seal, .* run `cbir repair`"):
            read_json(path)
    assert read_json(path, sealed=False)["seal"]


@pytest.mark.parametrize(
    "make", [os.mkfifo, lambda path: path.symlink_to("/dev/zero"), Path.mkdir], ids=["pipe", "device", "folder"]
)
def test_what_is_no_file_is_refused_and_not_read(tmp_path, make):
    make(tmp_path / "x.json")
    with pytest.raises(DataError, match=r"x\.json: expected a file, found a (folder|device or a pipe)"):
        read_json(tmp_path / "x.json")


FULL = {
    "numpy": "np.save(temporary.open('wb'), np.zeros((100, 200), np.float32))",
    "faiss": "index = faiss.IndexFlatIP(200); index.add(np.zeros((100, 200), np.float32)); write_index(path, index)",
}


@pytest.mark.parametrize("library", FULL)
def test_a_full_disk_is_told_with_the_path(tmp_path, library):
    (tmp_path / "x").write_text("old")
    program = f"""
import resource, sys
from pathlib import Path
import faiss, numpy as np
from cbir.core.errors import one_line_errors
from cbir.core.files import replacing
from cbir.index.storage import write_index
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, -1))  # fails in the midst of a write, as a full disk does
path = Path(sys.argv[1])
with one_line_errors(), replacing(path.with_name("y")) as temporary:
    {FULL[library]}
"""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    ended = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "x")],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 1
    assert ended.stderr.count("\n") == 1, ended.stderr
    assert re.match(rf"error: {tmp_path}/.*(make room, then run again|File too large)", ended.stderr), ended.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["x"]
    assert (tmp_path / "x").read_text() == "old"
