"""The list of an export's files: what the next export deletes."""

import json
from pathlib import Path

import pytest

from cbir.core.errors import DataError
from cbir.export.manifest import replace_earlier

LIST = "cbir_export_npy.json"


def names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_only_the_files_of_the_earlier_export_are_deleted(tmp_path: Path) -> None:
    (tmp_path / "mine.npy").write_text("mine")
    replace_earlier(tmp_path, "npy", ["a.npy", "b.npy"])
    for name in ("a.npy", "b.npy"):
        (tmp_path / name).write_text("an array")
    (tmp_path / "b_of_mine.npy").write_text("mine")
    replace_earlier(tmp_path, "npy", ["b.npy", "c.npy"])
    assert names_in(tmp_path) == {"mine.npy", "b_of_mine.npy", LIST}
    assert json.loads((tmp_path / LIST).read_text()) == {"files": ["b.npy", "c.npy"]}


def test_a_listed_name_that_no_export_wrote_is_kept(tmp_path: Path) -> None:
    (tmp_path / "a.npy").write_text("mine")
    replace_earlier(tmp_path, "npy", ["a.npy"])
    assert (tmp_path / "a.npy").read_text() == "mine"


def test_the_files_of_a_killed_export_are_deleted(tmp_path: Path) -> None:
    replace_earlier(tmp_path, "npy", ["a.npy", "b.npy"])
    (tmp_path / "a.npy").write_text("b.npy was not reached")
    replace_earlier(tmp_path, "npy", ["c.npy"])
    assert names_in(tmp_path) == {LIST}


@pytest.mark.parametrize("name", ["../outside.npy", "/{root}/outside.npy", "below/../../outside.npy"])
def test_a_list_that_names_files_elsewhere_deletes_none_there(tmp_path: Path, name: str) -> None:
    outside, out = tmp_path / "outside.npy", tmp_path / "out"
    outside.write_text("mine")
    out.mkdir()
    (out / LIST).write_text(json.dumps({"files": [name.format(root=tmp_path)]}))
    replace_earlier(out, "npy", [])
    assert outside.exists()


@pytest.mark.parametrize("content", ["[", "{}", '{"files": 5}', '{"files": ["a.npy", 1]}', '{"files": [""]}'])
def test_a_damaged_list_is_named_and_nothing_is_deleted(tmp_path: Path, content: str) -> None:
    (tmp_path / "a.npy").write_text("mine")
    (tmp_path / LIST).write_text(content)
    with pytest.raises(DataError, match=r"cbir_export_npy\.json: expected the list of an earlier export's files"):
        replace_earlier(tmp_path, "npy", ["a.npy"])
    assert (tmp_path / "a.npy").exists()
