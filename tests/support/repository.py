"""Clones of the repository in temporary folders, in which the tests run git, DVC and cbir."""

import hashlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.support.imports import ROOT

ENCODERS = ("mobilenet_demo", "clip_demo")
RANDOM = tuple(f"encoders.{encoder}.weights=random:0" for encoder in ENCODERS)
TINY = (
    "dataset.draw_gallery_images=160",
    "dataset.draw_query_images=40",
    "queries.prompt_sets=[bare,photo]",
    *RANDOM,
)


def environment(home: Path) -> dict[str, str]:
    """An environment in which the clone neither reads nor changes the user's settings of git, DVC and cbir."""
    identity = {f"GIT_{who}_{what}": "a@b.c" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    own = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("CBIR_", "DVC_", "GIT_", "XDG_", "PYTHON"))
    }
    return {
        **own,
        **identity,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "HOME": str(home),
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_CONFIG_SYSTEM": os.devnull,
        "DVC_GLOBAL_CONFIG_DIR": str(home / "dvc"),
        "DVC_SYSTEM_CONFIG_DIR": str(home / "dvc-system"),
        "DVC_SITE_CACHE_DIR": str(home / "dvc-site"),
        "CBIR_CACHE": str(home / "cbir"),
        "COLUMNS": "400",
    }


@dataclass
class Clone:
    """A clone of the repository, with a home folder for its settings."""

    root: Path
    home: Path

    def run(self, *command: str, path: Path | None = None) -> subprocess.CompletedProcess[str]:
        """Run a command in the clone, in a process group of its own; `path` goes before PATH."""
        env = environment(self.home)
        if path is not None:
            env["PATH"] = f"{path}{os.pathsep}{env['PATH']}"
        return subprocess.run(
            command, cwd=self.root, env=env, capture_output=True, text=True, check=False, start_new_session=True
        )

    def ok(self, *command: str) -> str:
        """The stdout of a command that must succeed."""
        ended = self.run(*command)
        assert ended.returncode == 0, f"{command}: {ended.stdout}\n{ended.stderr}"
        return ended.stdout

    def dvc(self, *arguments: str) -> str:
        return self.ok(sys.executable, "-m", "dvc", *arguments)

    def compose(self, *overrides: str) -> None:
        self.ok(sys.executable, "-m", "cbir.compose", *overrides)


def ran(output: str) -> set[str]:
    """The stages that DVC says it ran; those that it skipped or restored are not among them."""
    return set(re.findall(r"^Running stage '([^']+)':", output, re.MULTILINE))


def skipped(output: str) -> set[str]:
    return set(re.findall(r"^Stage '([^']+)' didn't change, skipping", output, re.MULTILINE))


def files_below(root: Path) -> dict[str, str]:
    """data/... and reports/... -> the hash of the file."""
    hashes = {}
    for path in sorted([*root.glob("data/**/*"), *root.glob("reports/**/*")]):
        name = path.relative_to(root).as_posix()
        if path.is_file() and path.name not in (".gitignore", "README.md"):
            hashes[name] = hashlib.md5(path.read_bytes()).hexdigest()
    return hashes


def copy_working_tree(out: Path) -> None:
    """Copy each file that git tracks or would add, as it is now."""
    listed = subprocess.run(
        ["git", "ls-files", "-coz", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():
            (out / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, out / name)


def copy_conf(root: Path) -> None:
    """Copy conf/ into a folder, without what a developer has composed."""
    shutil.copytree(ROOT / "conf", root / "conf", ignore=shutil.ignore_patterns("__pycache__", "mine"))


def copied(clone: Clone, base: Path) -> Iterator[Clone]:
    def link_or_copy(source: str, target: str) -> None:
        """DVC and the stages replace the files of data/ and of the cache, and never write into them."""
        inside = Path(source).relative_to(clone.root).as_posix()
        (os.link if inside.startswith(("data/", ".dvc/cache/")) else shutil.copy2)(source, target)

    shutil.copytree(clone.root, base / "clone", copy_function=link_or_copy)
    (base / "home").mkdir()
    yield Clone(base / "clone", base / "home")
    shutil.rmtree(base / "clone")
    shutil.rmtree(base / "home")
