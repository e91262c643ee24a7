"""What DVC needs of the machine, met or named in one line."""

import re
import shutil
import stat
import subprocess
import venv
from pathlib import Path

import pytest

from cbir.cli import main as cli
from tests.support.imports import ROOT


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A git repository with the settings of DVC as a clone has them, and the process in it."""
    for name in ("DVC_SITE_CACHE_DIR", "DVC_ROOT", "DVC_NO_SCM"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DVC_GLOBAL_CONFIG_DIR", str(tmp_path / "global"))
    monkeypatch.setenv("DVC_SYSTEM_CONFIG_DIR", str(tmp_path / "system"))
    root = tmp_path / "cbir"
    for name in (".dvc/config", ".dvc/.gitignore", ".dvc_state/repo/.gitignore", ".dvcignore", ".gitignore"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, root / name)
    subprocess.run(["git", "init", "--quiet"], cwd=root, check=True)
    subprocess.run(["git", "add", "--all"], cwd=root, check=True)
    identity = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
    subprocess.run(["git", *identity, "commit", "--quiet", "--message", "start"], cwd=root, check=True)
    monkeypatch.chdir(root)
    return root


def test_the_state_of_dvc_is_where_no_other_user_writes(repository: Path) -> None:
    """It holds pickles, which `dvc checkout` loads; DVC's own default is a folder that everyone may write."""
    from dvc.repo import Repo

    with Repo(str(repository)) as repo:
        state = Path(repo.site_cache_dir).resolve()
    assert state.is_relative_to(repository / ".dvc_state" / "repo")
    for folder in state.relative_to(repository).parents:
        assert not stat.S_IMODE((repository / folder).stat().st_mode) & stat.S_IWOTH, folder
    (state / "links").mkdir(exist_ok=True)
    (state / "links" / "cache.db").touch()
    command = ["git", "status", "--porcelain", "--untracked-files=all", ".dvc_state"]
    status = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert status == ""


def test_a_command_below_the_root_finds_the_state_of_dvc(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """DVC would create the folder where it runs, writable for all."""
    (repository / "dvc.yaml").touch()
    (repository / "docs").mkdir()
    monkeypatch.chdir(repository / "docs")
    monkeypatch.setenv("DVC_SITE_CACHE_DIR", "")  # restored after the test
    monkeypatch.delenv("DVC_SITE_CACHE_DIR")
    monkeypatch.setenv("CBIR_CACHE", str(repository.parent / "cache"))
    with pytest.raises(SystemExit, match="neither a folder nor a git revision"):
        cli.main(["compare", "no-such-run", "another"])
    assert list((repository / "docs").iterdir()) == []
    assert len(list((repository / ".dvc_state" / "repo").iterdir())) == 2


def test_the_python_of_stages_is_that_of_dvc_without_activation(tmp_path: Path) -> None:
    """`.venv/bin/dvc repro` runs `python -m stages.scan` in a shell; the line that `make setup` writes changes the PATH."""
    (line,) = re.findall(r"^ACTIVATE := (.+)$", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    venv.create(tmp_path / "my venv")
    own = tmp_path / "my venv" / "bin" / "python"
    code = "import sysconfig; print(sysconfig.get_path('purelib'))"
    site_packages = Path(subprocess.run([own, "-c", code], capture_output=True, text=True, check=True).stdout.strip())
    (site_packages / "activate.pth").write_text(f"{line}\n")
    (tmp_path / "stage.py").write_text("import os, sys; print(sys.prefix, os.environ['PATH'])")
    dvc = "import subprocess; subprocess.run('python stage.py', shell=True)"
    for path, expected in (
        ("/usr/bin:/bin", f"{own.parent}:/usr/bin:/bin"),
        (f"/usr/local/none:{own.parent}:/usr/bin", f"/usr/local/none:{own.parent}:/usr/bin"),  # the user's order stays
    ):
        ended = subprocess.run(
            [own, "-c", dvc], cwd=tmp_path, env={"PATH": path}, capture_output=True, text=True, check=True
        )
        assert (ended.stdout, ended.stderr) == (f"{tmp_path}/my venv {expected}\n", "")
