"""Worlds that all stages before the report have run on, and text that tries to break a report."""

import io
from pathlib import Path
from typing import Any

from rich.console import Console

from cbir.artifacts.comparison import write_comparison
from cbir.artifacts.latency import SearchTimes
from cbir.artifacts.paths import DataPaths, ReportPaths
from cbir.artifacts.vectors import read_passport
from cbir.artifacts.verification import Agreement, Verification, write_verification
from cbir.core.files import read_json, write_json
from cbir.index.latency import write_latency
from cbir.index.params import SearchParams
from cbir.report import summary
from cbir.report.facts import Facts
from cbir.report.gathering import compare_encoders_of_run, gather_facts
from cbir.report.markdown import write_markdown
from tests.support.world import PARAMS, World

HOSTILE = {
    "script": "<script>alert(1)</script>",
    "image": '<img src=x onerror="alert(1)">',
    "pipes": "a|b||c\\|d\\\\|e",
    "backticks": "`code` ```fence``` ``",
    "lines": "one\n\n# two\r\n| three |\u2028four\x0bfive",
    "markup": "[a](http://evil.example) ![b](c) **d** _e_ ~~f~~ # g > h",
    "addresses": "http://evil.example https://evil.example www.evil.example evil@evil.example",
    "entities": "&lt;script&gt; &#60;b&#62;",
    "formula": "$x^2$",
    "arabic": "\u0635\u0648\u0631\u0629.png",
    "right to left": "gpj.\u202eexe.png\u2066",
    "control": "a\x00b\x1b[31mred\x7f",
    "long": "x" * 10_000,
    "long markup": "|<" * 5_000,
    "emoji": "\N{GRINNING FACE}",
    "empty": "",
    "spaces": "   ",
}


def finish(world: World, params: Any = PARAMS, kind: str = "flat", search: SearchParams | None = None) -> Facts:
    """Evaluate and time the world as the stages do, and gather the facts."""
    reports = ReportPaths(world.root / "reports")
    world.evaluate(reports.root, kind, params, search or SearchParams())
    world.compare_prompts(reports.root, params)
    for encoder in world.vectors:
        embeddings, index = world.embeddings / encoder, world.indexes(kind) / encoder
        write_latency(reports.latency(encoder), embeddings, index, encoder, SearchParams(), 1, 3, 0)
        passport = read_passport(DataPaths(world.data).index(encoder))  # the report looks for the index there
        write_json(reports.latency(encoder), read_json(reports.latency(encoder)) | {"of": passport["sha256"]})
        verification = Verification(f"library of {encoder}", Agreement(9, 1.0, 0.9999))
        of = read_passport(embeddings / "gallery")["rows"]["vectors_sha256"]
        write_verification(reports.verification(encoder), verification, of)
    write_comparison(reports.comparison, compare_encoders_of_run(DataPaths(world.data), reports))
    return gather_facts(DataPaths(world.data), reports)


def markdown_of(facts: Facts, folder: Path) -> str:
    """Write report.md to `folder` and return its text."""
    write_markdown(folder / "report.md", facts)
    return (folder / "report.md").read_text(encoding="utf-8")


def summary_of(facts: Facts, width: int = 80) -> str:
    """Return the tables that `make repro` prints to a terminal of this width."""
    console = Console(file=io.StringIO(), width=width)
    for table in summary._tables(facts):
        console.print(table)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def search_times(index_ms: float, exact_ms: float) -> dict[str, SearchTimes]:
    """Return the times of searches that all take as long."""
    return {search: SearchTimes(ms, ms, ms, 1.0, 3) for search, ms in (("index", index_ms), ("exact", exact_ms))}
