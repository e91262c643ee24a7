"""`cbir repair`: damaged outputs go, with their copies in DVC's cache, and `dvc repro` makes them anew."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from cbir.cli.main import main as cbir
from cbir.core.errors import DataError
from cbir.runs.repair import repair
from tests.support.repository import Clone, ran

DVC_YAML = """
stages:
  one:
    cmd: python write.py one.bin first
    outs: [one.bin]
  two:
    cmd: python write.py two/a.bin second && python write.py two/deep/b.bin third
    deps: [one.bin]
    outs: [two]
  three:
    cmd: python write.py three.md text
    deps: [two]
    outs: [{three.md: {cache: false}}]
"""
WRITE = (
    "import pathlib, sys; p = pathlib.Path(sys.argv[1]); p.parent.mkdir(exist_ok=True); p.write_text(sys.argv[2] * 9)"
)
FILES = ("one.bin", "two/a.bin", "two/deep/b.bin", "three.md")


@pytest.fixture(scope="module")
def clone(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clone]:
    """A repository whose pipeline has run, with this type of links to DVC's cache; the working directory is its root.

    Each test leaves it as it was.
    """
    base = tmp_path_factory.mktemp("repair")
    clone = Clone(base / "clone", base / "home")
    for folder in (clone.root, clone.home):
        folder.mkdir()
    clone.ok("git", "init", "--quiet")
    clone.dvc("init", "--quiet")
    clone.dvc("config", "cache.type", request.param)
    (clone.root / "dvc.yaml").write_text(DVC_YAML)
    (clone.root / "write.py").write_text(WRITE)
    clone.dvc("repro")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(clone.root)
        yield clone


def bodies(clone: Clone) -> dict[str, bytes]:
    return {name: (clone.root / name).read_bytes() for name in FILES}


def damage(path: Path) -> None:
    """Change a byte without a trace: size and time stay, as when a disk fails; links of the file change with it."""
    stat = path.stat()
    path.chmod(0o644)
    with path.open("r+b") as file:
        file.seek(3)
        file.write(b"X")
    path.chmod(stat.st_mode)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def copies(clone: Clone) -> set[Path]:
    """The copies of files in DVC's cache, without its lists of folders."""
    paths = (clone.root / ".dvc" / "cache" / "files").rglob("*")
    return {path.relative_to(clone.root) for path in paths if path.is_file() and path.suffix != ".dir"}


@pytest.mark.parametrize(
    ("clone", "name"),
    [("hardlink", "one.bin"), ("hardlink", "two/deep/b.bin"), ("symlink", "two/a.bin"), ("copy", "one.bin")],
    indirect=["clone"],
)
def test_a_damaged_output_is_made_anew(clone: Clone, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    before = bodies(clone)
    damage(clone.root / name)
    cbir(["repair"])
    first, *_, last = capsys.readouterr().out.splitlines()
    assert first.startswith(f"deleted {name}: expected md5 ")
    assert last.endswith(" deleted: run `dvc repro`")
    assert not (clone.root / name).exists()
    clone.dvc("repro")
    assert bodies(clone) == before
    assert repair(clone.root)[1] == []


@pytest.mark.parametrize("clone", ["hardlink"], indirect=True)
def test_a_damaged_copy_is_deleted_and_its_output_stays(clone: Clone) -> None:
    before = bodies(clone)
    for path in copies(clone):
        path.chmod(0o644)
        path.unlink()
        path.write_bytes(b"damaged")
    before_repair = copies(clone)
    _, damaged = repair(Path())
    assert {file.path.resolve().relative_to(clone.root) for file in damaged} == before_repair
    assert copies(clone) == set()
    clone.dvc("repro")
    assert bodies(clone) == before


@pytest.mark.parametrize("clone", ["hardlink"], indirect=True)
def test_intact_outputs_and_other_files_stay(clone: Clone, capsys: pytest.CaptureFixture[str]) -> None:
    (clone.root / "two" / "mine.txt").write_text("mine")
    (clone.root / "three.md").write_text("edited")  # not in DVC's cache: `dvc repro` notices it
    cbir(["repair"])
    assert capsys.readouterr().out == "4 files checked, none is damaged\n"
    assert (clone.root / "two" / "mine.txt").read_text() == "mine"
    assert (clone.root / "three.md").read_text() == "edited"
    (clone.root / "two" / "mine.txt").unlink()
    assert ran(clone.dvc("repro")) == {"three"}


def test_outside_a_repository_the_way_is_shown(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"go to the root of the repository"):
        repair(tmp_path)
