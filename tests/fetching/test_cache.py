"""The user's cache folder: its path, and the files that pruning deletes."""

import os
import time
from pathlib import Path

import pytest
from dvc.repo import Repo

from cbir.cli.main import main
from cbir.core.errors import ConfigError
from cbir.fetching.cache import cache_folder, kept_files, prune


def test_cache_folder_follows_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CBIR_CACHE", "/mnt/cache")
    assert cache_folder() == Path("/mnt/cache")
    monkeypatch.delenv("CBIR_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    assert cache_folder() == Path("/xdg/cbir")
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    monkeypatch.setenv("HOME", "/home/me")
    assert cache_folder() == Path("/home/me/.cache/cbir")
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert cache_folder() == Path("/home/me/.cache/cbir")


def test_relative_cache_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CBIR_CACHE", "cache")
    with pytest.raises(ConfigError, match=r"^CBIR_CACHE: expected an absolute path, found 'cache'; set CBIR_CACHE=/"):
        cache_folder()
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setenv("CBIR_CACHE", "~/c")
    assert cache_folder() == Path("/home/me/c")


def test_a_user_without_a_home_names_a_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_home(*_: object, **__: object) -> Path:
        raise RuntimeError("could not determine the home directory")

    monkeypatch.delenv("CBIR_CACHE", raising=False)
    monkeypatch.setattr("platformdirs.user_cache_path", no_home)
    with pytest.raises(ConfigError, match=r"^CBIR_CACHE: .*, found nothing, and no home folder; set CBIR_CACHE=/path$"):
        cache_folder()
    monkeypatch.setenv("CBIR_CACHE", "~no-such-user/c")
    with pytest.raises(ConfigError, match=r"^CBIR_CACHE: .*, found ~no-such-user/c; set CBIR_CACHE=/path$"):
        cache_folder()


def fill(folder: Path) -> None:
    """Write four files of 1000 bytes that were used 1, 5, 3 and 100 days ago."""
    for number, days in enumerate((1, 5, 3, 100)):
        path = folder / "vectors" / "ab" / f"{number}.npy"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes(1000))
        os.utime(path, (time.time() - days * 86_400,) * 2)


def test_prune_keeps_the_most_recently_used_files(tmp_path: Path) -> None:
    fill(tmp_path)
    assert [file.path.name for file in prune(tmp_path, max_bytes=2500, max_age_s=90 * 86_400)] == ["1.npy", "3.npy"]
    assert {file.path.name for file in kept_files(tmp_path)} == {"0.npy", "2.npy"}


def test_prune_keeps_files_that_are_being_written(tmp_path: Path) -> None:
    fill(tmp_path)
    (tmp_path / "vectors/ab/now.writing").write_bytes(bytes(10))
    (tmp_path / "vectors/ab/old.writing").write_bytes(bytes(10))
    os.utime(tmp_path / "vectors/ab/old.writing", (time.time() - 86_400,) * 2)
    prune(tmp_path, max_bytes=0, max_age_s=0)
    assert {file.path.name for file in kept_files(tmp_path)} == {"now.writing"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--prune", "--max-gb", "-1"], r"--max-gb: expected a number >= 0, found -1"),
        (["--prune", "--max-days", "nan"], r"--max-days: expected a number >= 0, found nan"),
        (["--max-gb", "0"], r"--max-gb is a limit of --prune: add --prune to delete what is beyond it"),
    ],
)
def test_invalid_limits_delete_nothing(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CBIR_CACHE", str(tmp_path))
    fill(tmp_path)
    with pytest.raises(SystemExit, match=rf"^error: {message}$"):
        main(["cache", *arguments])
    assert len(list(kept_files(tmp_path))) == 4


def test_command_tells_the_size_of_dvcs_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CBIR_CACHE", str(tmp_path / "cbir"))
    monkeypatch.chdir(tmp_path)
    main(["cache"])
    assert "DVC" not in capsys.readouterr().out
    Repo.init(str(tmp_path), no_scm=True).close()
    (tmp_path / ".dvc/cache/files/md5/ab").mkdir(parents=True)
    (tmp_path / ".dvc/cache/files/md5/ab/cd").write_bytes(bytes(2_000_000))
    main(["cache"])
    output = capsys.readouterr().out
    assert "/.dvc/cache/files/md5: 0.002 GB of outputs" in output
    assert "`dvc gc --workspace --all-commits --all-experiments`" in output


def test_command_lists_and_prunes_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CBIR_CACHE", str(tmp_path))
    main(["cache"])
    fill(tmp_path)
    main(["cache"])
    output = capsys.readouterr().out
    assert "vectors: embedded shards" in output
    assert [line.split("│")[2].strip() for line in output.splitlines() if "vectors:" in line] == ["0", "4"]
    main(["cache", "--prune", "--max-days", "10", "--max-gb", "inf"])
    assert capsys.readouterr().out.startswith("deleted 1 files, 0.000 GB")
    assert len(list(kept_files(tmp_path))) == 3
