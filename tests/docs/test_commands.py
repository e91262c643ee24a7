"""Run the commands in README.md and docs/ in a folder with a small finished run; see `tests.docs.pages`."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from importlib import import_module
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.docs.pages import PAGES, RUN, Block, all_blocks, blocks_of
from tests.support import repository
from tests.support.imports import ROOT
from tests.support.repository import ENCODERS, TINY, Clone, copy_conf, copy_working_tree
from tests.support.searchable import run_stages


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with a small run up to the evaluation, without the report."""
    with pytest.MonkeyPatch.context() as patch:
        root = tmp_path_factory.mktemp("finished")
        patch.chdir(root)
        copy_conf(root)
        run_stages(root, "index=hnsw", "evaluate.resamples=100")
        for encoder in ENCODERS:
            import_module("stages.evaluate").main(encoder)
        add_photo(root)
        yield root


def add_photo(root: Path) -> None:
    """Write photo.jpg, which the pages search for."""
    shard = pq.read_table(root / "data/images/gallery/part-00000.parquet", columns=["image"])
    (root / "photo.jpg").write_bytes(shard["image"][0].as_py())


def run_block(block: Block, folder: Path, env: dict[str, str]) -> str:
    """Run a block in `folder` and return its stdout; fail with what it printed when it exits with another status than 0."""
    command = ["bash", "-euo", "pipefail", "-c"] if block.language == "bash" else [sys.executable, "-c"]
    ended = subprocess.run([*command, block.code], cwd=folder, env=env, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, f"{block.where} exits with {ended.returncode}:\n{ended.stdout}\n{ended.stderr}"
    return ended.stdout


def run_page(blocks: Sequence[Block], folder: Path, env: dict[str, str]) -> None:
    """Run the blocks in order, and compare what they print with the output shown behind them."""
    printed = ""
    for block in blocks:
        if block.marker == "output":
            assert printed.split() == block.code.split(), f"{block.where} shows another output"
        else:
            printed = run_block(block, folder, env)


def environment(home: Path, code: Path) -> dict[str, str]:
    """Return an environment in which `cbir` and `python` use the modules in `code`, and opening a browser does nothing."""
    command = home / "bin" / "cbir"  # as pip installs it
    command.parent.mkdir(exist_ok=True)
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m cbir "$@"\n')
    command.chmod(0o755)
    env = repository.environment(home)
    path = os.pathsep.join([str(command.parent), env["PATH"]])
    return env | {"PATH": path, "PYTHONPATH": str(code), "BROWSER": "true"}


@pytest.mark.parametrize(
    "page", [page for page in PAGES if any(block.runs for block in blocks_of(page))], ids=lambda page: page.name
)
def test_the_commands_of_a_page_run(finished: Path, page: Path, tmp_path: Path) -> None:
    folder = tmp_path / "clone"
    shutil.copytree(finished, folder, symlinks=True)
    blocks = [block for block in blocks_of(page) if block.runs or block.marker == "output"]
    run_page(blocks, folder, environment(tmp_path, ROOT))


def test_a_block_is_run_or_says_why_not(capsys: pytest.CaptureFixture[str]) -> None:
    blocks = [block for block in all_blocks() if block.language in RUN]
    assert any(block.runs for block in blocks)
    not_run = [block for block in blocks if not block.runs]
    assert [block.where for block in not_run if block.marker not in ("not run", "slow") or not block.reason] == []
    with capsys.disabled():
        for block in not_run:
            print(f"\n{block.where} {block.marker}: {block.reason}", end="")


def test_commands_are_in_bash_blocks_only() -> None:
    commands = re.compile(r"^\s*(?:\$ )?(?:cbir|dvc|make|python) ", re.MULTILINE)
    others = [block for block in all_blocks() if block.language not in RUN and commands.search(block.code)]
    assert [block.where for block in others if block.marker != "output"] == []


@pytest.mark.slow
def test_the_slow_commands_run(tmp_path: Path) -> None:
    clone = Clone(tmp_path / "clone", tmp_path / "home")
    for folder in (clone.root, clone.home):
        folder.mkdir()
    copy_working_tree(clone.root)
    conf = clone.root / "conf/dataset/shapes.yaml"  # experiments compose anew: the small data set must be the default
    for override in TINY[:2]:
        key, _, value = override.removeprefix("dataset.").partition("=")
        conf.write_text(re.sub(rf"^{key}: \d+", f"{key}: {value}", conf.read_text("utf-8"), flags=re.M), "utf-8")
    clone.compose()
    clone.ok("git", "init", "--quiet")
    clone.ok("git", "add", ".")
    clone.ok("git", "commit", "--quiet", "--message", "the working tree")
    clone.dvc("repro")
    clone.ok("git", "add", ".")
    clone.ok("git", "commit", "--quiet", "--message", "the run")
    add_photo(clone.root)
    run_page(
        [block for block in all_blocks() if block.marker == "slow"], clone.root, environment(clone.home, clone.root)
    )
