"""Parse the fenced code blocks of README.md and the manual.

The tests run each ```bash and ```python block in a folder with a finished run, unless a comment before it says otherwise:

    <!-- not run: REASON -->   not run
    <!-- slow: REASON -->      run by the slow tests, in a clone with a finished `dvc repro`

A ```text block after `<!-- output -->` must be what the block before it prints.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.support.imports import ROOT

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
RUN = ("bash", "python")

_FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
_MARKER = re.compile(r"<!-- (not run|slow|output)(?:: (\S.*?))? -->\n\Z")


@dataclass(frozen=True)
class Block:
    """A fenced block.  line : line number of its fence.  marker : "", "not run", "slow" or "output"."""

    page: Path
    line: int
    language: str
    code: str
    marker: str
    reason: str

    @property
    def where(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    @property
    def runs(self) -> bool:
        return self.language in RUN and not self.marker


def blocks_of(page: Path) -> list[Block]:
    return list(_blocks(page, page.read_text(encoding="utf-8")))


def _blocks(page: Path, text: str) -> Iterator[Block]:
    for fence in _FENCE.finditer(text):
        before = text[: fence.start()]
        marker = _MARKER.search(before)
        kind, reason = (marker[1], marker[2] or "") if marker else ("", "")
        yield Block(page, before.count("\n") + 1, fence[2], fence[3], kind, reason)


def all_blocks() -> list[Block]:
    return [block for page in PAGES for block in blocks_of(page)]
