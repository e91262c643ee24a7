"""The provenance of a report, read from real git repositories and handwritten dvc.lock files."""

import hashlib
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from cbir.core.errors import DataError
from cbir.report import provenance
from cbir.report.provenance import Output, Provenance, read_lock, read_provenance
from tests.support.imports import ROOT

ENCODERS = ("mobilenet", "clip")
TRACKED = ("cbir/a.py", "cbir/b.py", "stages/one.py", "conf/config.yaml", "dvc.yaml", "params.yaml")
OTHERS = ("README.md", "dvc.lock", "reports/report.md", "data/README.md", "tests/test_a.py", "cbirs/a.py")
HOSTILE_NAMES = (
    "with spaces.py", " leading", "trailing ", "new\nline", "carriage\rreturn", "tab\there", 'double"quote', "it's",
    "back\\slash", "[red]", "?", "*", "-n", "a -> b", "صورة.py", "\N{GRINNING FACE}", "e\u0301.py", "\x1b[31m", "M  modified",
)  # fmt: skip


@pytest.fixture(autouse=True, scope="module")
def _own_settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Git without the user's settings and name."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("GIT_")]:
            patch.delenv(name)
        path = tmp_path_factory.mktemp("home") / "gitconfig"
        path.write_text("[user]\n\tname = tester\n\temail = tester@example\n[core]\n\tautocrlf = false\n")
        patch.setenv("GIT_CONFIG_GLOBAL", str(path))
        patch.setenv("GIT_CONFIG_NOSYSTEM", "1")
        yield


def git(root: Path, *arguments: str) -> str:
    return subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, check=True).stdout


def put(root: Path, name: str, text: str = "") -> Path:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def new_repository(root: Path) -> Path:
    """A repository with one commit and the folders of this project."""
    for name in (*TRACKED, *OTHERS):
        put(root, name, "" if name == "dvc.lock" else name)
    git(root, "init", "-q")
    git(root, "add", "-A")
    git(root, "commit", "-qm", "first")
    return root


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    return new_repository(tmp_path / "repository")


# ---- git


def test_a_clean_repository_has_only_a_revision(repository: Path) -> None:
    assert read_provenance(repository, ENCODERS) == Provenance(
        git(repository, "rev-parse", "HEAD").strip(), (), {}, (), ()
    )
    git(repository, "commit", "-q", "--allow-empty", "-m", "second")
    assert read_provenance(repository, ENCODERS).revision == git(repository, "log", "-1", "--format=%H").strip()


@pytest.mark.parametrize("name", TRACKED)
def test_an_edited_file_of_the_run_is_named(repository: Path, name: str) -> None:
    put(repository, name, "other")
    assert read_provenance(repository, ENCODERS).changed == (name,)
    git(repository, "add", "-A")
    assert read_provenance(repository, ENCODERS).changed == (name,)
    git(repository, "commit", "-qm", "second")
    assert read_provenance(repository, ENCODERS).changed == ()


def test_files_that_are_new_deleted_or_moved_are_named(repository: Path) -> None:
    put(repository, "cbir/new.py")
    (repository / "stages" / "one.py").unlink()
    git(repository, "mv", "cbir/a.py", "cbir/moved.py")
    expected = {"cbir/new.py", "stages/one.py", "cbir/a.py", "cbir/moved.py"}
    assert sorted(read_provenance(repository, ENCODERS).changed) == sorted(expected)
    git(repository, "add", "-A")
    assert sorted(read_provenance(repository, ENCODERS).changed) == sorted(expected)


def test_a_new_file_that_git_hides_is_named(repository: Path) -> None:
    git(repository, "config", "status.showUntrackedFiles", "no")
    put(repository, "cbir/new.py")
    assert read_provenance(repository, ENCODERS).changed == ("cbir/new.py",)


def test_outputs_and_unrelated_files_are_not_named(repository: Path) -> None:
    for name in OTHERS:
        put(repository, name, "" if name == "dvc.lock" else "other")
    put(repository, "data/new.parquet")
    put(repository, ".gitignore", "*.pyc")
    put(repository, "cbir/__pycache__/a.pyc")
    assert read_provenance(repository, ENCODERS).changed == ()


def test_a_hostile_name_is_kept_unchanged(repository: Path) -> None:
    for name in HOSTILE_NAMES:
        put(repository, f"cbir/{name}")
    expected = sorted(f"cbir/{name}" for name in HOSTILE_NAMES)
    assert sorted(read_provenance(repository, ENCODERS).changed) == expected
    git(repository, "add", "-A")
    git(repository, "commit", "-qm", "second")
    for name in HOSTILE_NAMES:
        put(repository, f"cbir/{name}", "other")
    assert sorted(read_provenance(repository, ENCODERS).changed) == expected


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return new_repository(tmp_path_factory.mktemp("shared"))


NAMES = st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=50)


@settings(max_examples=25, deadline=None)
@given(names=st.sets(NAMES.filter(lambda name: name not in (".", "..") and not name.startswith(".git")), max_size=4))
def test_any_name_is_kept_unchanged(shared: Path, names: set[str]) -> None:
    paths = [put(shared, f"cbir/{name}", "new") for name in names if not (shared / "cbir" / name).exists()]
    try:
        assert sorted(read_provenance(shared, ENCODERS).changed) == sorted(f"cbir/{path.name}" for path in paths)
    finally:
        for path in paths:
            path.unlink()


def test_a_name_that_is_not_utf_8_is_accepted(repository: Path) -> None:
    with open(os.fsencode(repository / "cbir") + b"/caf\xe9.py", "wb"):
        pass
    (name,) = read_provenance(repository, ENCODERS).changed
    assert name.startswith("cbir/caf")
    name.encode("utf-8")  # as a page does


def test_without_a_commit_the_revision_is_unknown_with_a_reason(tmp_path: Path) -> None:
    put(tmp_path, "cbir/a.py")
    git(tmp_path, "init", "-q")
    result = read_provenance(tmp_path, ENCODERS)
    assert (result.revision, result.changed) == (None, ())
    assert re.fullmatch(
        r"unknown \(fatal: your current branch .* does not have any commits yet\)", result.git_description
    )


def test_outside_a_repository_the_revision_is_unknown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    put(tmp_path, "cbir/a.py")
    result = read_provenance(tmp_path, ENCODERS)
    assert (result.revision, result.changed) == (None, ())
    assert result.git_description.startswith("unknown (fatal: not a git repository")


def test_an_enclosing_repository_without_the_run_is_not_used(repository: Path) -> None:
    put(repository, ".gitignore", "project")
    put(repository, "project/dvc.yaml")
    put(repository, "project/cbir/a.py")
    result = read_provenance(repository / "project", ENCODERS)
    assert result.revision is None
    assert "did not match any file" in result.git_description


def test_without_git_dvc_lock_is_still_read(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lock(repository, {"one": {"params": {"params.yaml": {"a": 1}}}})
    monkeypatch.setenv("PATH", str(tmp_path))
    result = read_provenance(repository, ENCODERS)
    assert (result.revision, result.params) == (None, {"a": 1})
    assert result.git_description == "unknown (git: No such file or directory)"


def test_unknown_changes_are_reported_with_a_reason(repository: Path) -> None:
    with mock.patch.object(provenance, "_INPUTS", (":(nonsense)x",)):
        result = read_provenance(repository, ENCODERS)
    assert result.revision is not None
    assert result.git_description.startswith(f"{result.revision}, with unknown uncommitted changes (fatal: ")


def test_commit_and_changes_are_described() -> None:
    clean = Provenance("abc", (), {}, (), ())
    assert clean.git_description == "abc"
    names = tuple(f"cbir/{number:02d}\u202e.py" for number in range(12))
    assert replace(clean, changed=names[:1]).git_description == "abc, with uncommitted changes in cbir/00U+202E.py"
    assert replace(clean, changed=names[:11]).git_description.endswith("cbir/09U+202E.py and 1 more file")
    assert replace(clean, changed=names).git_description.endswith("cbir/09U+202E.py and 2 more files")


def test_files_are_described() -> None:
    none = Provenance("abc", (), {}, (), ())
    one = Output("one", "data/a", "0", 1)
    assert none.dvc_description == "dvc.lock is absent or empty"
    assert replace(none, outputs=(one,)).dvc_description.startswith("all files match dvc.lock")
    differing = replace(none, outputs=(one,), differing=("data/a",))
    assert differing.dvc_description.startswith(
        "missing, or different from dvc.lock: data/a; to update them, run dvc repro"
    )


def test_a_damaged_repository_has_no_revision(repository: Path) -> None:
    (repository / ".git" / "HEAD").write_text("nonsense")
    assert read_provenance(repository, ENCODERS).revision is None


def test_the_working_folder_works_as_root(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(repository, "cbir/a.py", "other")
    content = put(repository, "data/a.json", "one").read_bytes()
    lock(repository, {"one": {"outs": [out("data/a.json", content), out("data/README.md", b"other")]}})
    monkeypatch.chdir(repository)
    relative = read_provenance(Path("data").parent, ENCODERS)
    assert relative == read_provenance(repository, ENCODERS)
    assert (relative.changed, relative.differing) == (("cbir/a.py",), ("data/README.md",))


def test_all_code_and_settings_in_dvc_yaml_are_checked() -> None:
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    deps = {name for stage in stages.values() for name in stage.get("do", stage)["deps"]}
    folders = {name.split("/")[0] for name in deps if not name.startswith(("data/", "reports/"))}
    assert folders | {"conf", "dvc.yaml", "params.yaml"} == set(provenance._INPUTS)


# ---- dvc.lock


def lock(root: Path, stages: dict[str, Any]) -> Path:
    return put(root, "dvc.lock", yaml.safe_dump({"schema": "2.0", "stages": stages}, sort_keys=False))


def out(path: str, content: bytes, **other: Any) -> dict[str, Any]:
    digest = hashlib.md5(content, usedforsecurity=False).hexdigest()
    return {"path": path, "hash": "md5", "md5": digest, "size": len(content), **other}


def differing(root: Path, stages: dict[str, Any]) -> tuple[str, ...]:
    lock(root, stages)
    return read_provenance(root, ENCODERS).differing


def test_without_dvc_lock_params_and_outputs_are_empty(tmp_path: Path) -> None:
    assert read_lock(tmp_path / "dvc.lock", ENCODERS) == ({}, ())


@pytest.mark.parametrize("text", ["", "\n", "schema: '2.0'\n", "schema: '2.0'\nstages: {}\n", "# nothing\n"])
def test_a_dvc_lock_without_stages_is_empty(tmp_path: Path, text: str) -> None:
    assert read_lock(put(tmp_path, "dvc.lock", text), ENCODERS) == ({}, ())


def test_params_of_all_stages_are_merged_and_sorted(tmp_path: Path) -> None:
    build = {"m": 32, "nested": [1, 2]}
    stages = {
        "embed@clip": {
            "params": {"params.yaml": {"encoders.clip.family": "openclip", "encoders.clip.precision": None}}
        },
        "index@clip": {"params": {"params.yaml": {"index.kind": "hnsw", "index.build": build}, "b.yaml": {"a": 0.5}}},
        "map@clip": {"params": {"params.yaml": {"index.kind": "hnsw"}}, "cmd": "x"},
        "latency@clip": {"deps": [{"path": "cbir/a.py", "md5": "0" * 32}]},
    }
    params, outputs = read_lock(lock(tmp_path, stages), ENCODERS)
    assert list(params.items()) == [
        ("a", 0.5),
        ("encoders.clip.family", "openclip"),
        ("encoders.clip.precision", None),
        ("index.build", build),
        ("index.kind", "hnsw"),
    ]
    assert outputs == ()


def test_outputs_have_stage_hash_and_size_in_dvc_locks_order(tmp_path: Path) -> None:
    folder = {"path": "data/raw", "hash": "md5", "md5": f"{'0' * 32}.dir", "size": 7, "nfiles": 2}
    stages = {
        "z": {"outs": [out("data/z.json", b"zz"), folder]},
        "a": {"outs": [out("data/a.json", b""), {"path": "data/other.bin", "hash": "etag", "etag": "1"}]},
        "none": {"cmd": "x"},
    }
    _, outputs = read_lock(lock(tmp_path, stages), ENCODERS)
    assert outputs == (
        Output("z", "data/z.json", hashlib.md5(b"zz").hexdigest(), 2),
        Output("z", "data/raw", f"{'0' * 32}.dir", 7),
        Output("a", "data/a.json", hashlib.md5(b"").hexdigest(), 0),
    )


@pytest.mark.parametrize(
    ("encoders", "params", "paths"),
    [
        ((), {"seed": 0}, ["data/raw.json"]),
        (("clip",), {"clip": 2, "seed": 0}, ["data/raw.json", "data/clip.json"]),
        (("clip", "new"), {"clip": 2, "seed": 0}, ["data/raw.json", "data/clip.json"]),
        (("b", "clip", "clip-2"), {"b": 1, "clip": 2, "clip-2": 3, "seed": 0}, None),
    ],
)
def test_stages_of_encoders_that_left_are_not_read(
    tmp_path: Path, encoders: tuple[str, ...], params: dict[str, int], paths: list[str] | None
) -> None:
    """DVC keeps them in dvc.lock, and their files may be gone."""
    stages: dict[str, Any] = {
        "raw": {"params": {"params.yaml": {"seed": 0}}, "outs": [out("data/raw.json", b"")]},
        **{
            f"embed@{name}": {"params": {"params.yaml": {name: number}}, "outs": [out(f"data/{name}.json", b"")]}
            for number, name in enumerate(("b", "clip", "clip-2"), 1)
        },
    }
    every = [f"data/{name}.json" for name in ("raw", "b", "clip", "clip-2")]
    assert read_lock(lock(tmp_path, stages), encoders)[0] == params
    read = read_provenance(tmp_path, encoders)
    assert [output.path for output in read.outputs] == list(read.differing) == (every if paths is None else paths)


def test_only_files_that_differ_from_dvc_lock_are_named(tmp_path: Path) -> None:
    same, other, longer = (put(tmp_path, f"data/{name} ü.json", "content") for name in ("same", "other", "longer"))
    stages = {
        "one": {"outs": [out(f"data/{path.name}", b"content") for path in (same, other)]},
        "two": {"outs": [out(f"data/{longer.name}", b"content")]},
    }
    assert differing(tmp_path, stages) == ()
    other.write_text("CONTENT", encoding="utf-8")
    longer.write_text("content ", encoding="utf-8")
    assert differing(tmp_path, stages) == (f"data/{other.name}", f"data/{longer.name}")


def test_folders_and_large_files_only_need_to_exist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provenance, "_HASHED_BYTES", 100)
    put(tmp_path, "data/raw/a.txt", "a")
    for name in ("data/limit.bin", "data/large.bin"):
        put(tmp_path, name, "other")
    put(tmp_path, "reports/report.html", "this time")
    stages = {
        "one": {"outs": [{"path": "data/raw", "md5": f"{'0' * 32}.dir", "size": 7, "nfiles": 2}]},
        "two": {"outs": [out("data/limit.bin", b"x" * 100), out("data/large.bin", b"x" * 101), out("gone", b"")]},
        "report": {"outs": [out("reports/report.html", b"last time")]},
        "reports": {"outs": [out("reports/report.html", b"last time")]},
    }
    assert differing(tmp_path, stages) == ("data/limit.bin", "gone", "reports/report.html")
    shutil.rmtree(tmp_path / "data")
    assert differing(tmp_path, stages) == (
        "data/raw",
        "data/limit.bin",
        "data/large.bin",
        "gone",
        "reports/report.html",
    )
    assert {one.stage for one in read_provenance(tmp_path, ENCODERS).outputs} == {"one", "two", "reports"}


DAMAGED = {
    "a merge that was not finished": "schema: '2.0'\nstages:\n<<<<<<< HEAD\n  a:\n=======\n  b:\n>>>>>>> other\n",
    "cut off": "schema: '2.0'\nstages:\n  one:\n    outs: [{path: 'data/a",
    "a list": "- a\n- b\n",
    "a word": "nonsense",
    "stages that are a list": "stages: [a, b]\n",
    "stages that are nothing": "stages:\n",
    "an md5 that is a number": "stages:\n  one:\n    outs: [{path: a, md5: 5}]\n",
    "a stage that is nothing": "stages:\n  one:\n",
    "params that are a list": "stages:\n  one:\n    params: [a]\n",
    "params of a file that are nothing": "stages:\n  one:\n    params:\n      params.yaml:\n",
    "outs that are numbers": "stages:\n  one:\n    outs: [7]\n",
    "an out without path": "stages:\n  one:\n    outs: [{md5: abc}]\n",
    "an object of Python": "stages: !!python/object/apply:os.system ['true']\n",
}


@pytest.mark.parametrize("text", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_dvc_lock_is_named_in_one_line(tmp_path: Path, text: str) -> None:
    put(tmp_path, "dvc.lock", text)
    with pytest.raises(DataError, match=r"dvc\.lock"):
        read_provenance(tmp_path, ENCODERS)


def test_a_binary_dvc_lock_is_named_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "dvc.lock").write_bytes(b"\xff\xfe\x00stages")
    with pytest.raises(DataError, match=r"dvc\.lock"):
        read_provenance(tmp_path, ENCODERS)
