"""Each artifact is changed in each way; each command that reads it refuses it, or its result is as before.

Run as a script, this prints the count of each outcome: `python -m tests.test_tamperings`.
"""

import contextlib
import json
import os
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pyarrow.parquet as pq
import pytest

from cbir.artifacts.contents import check_vectors
from cbir.artifacts.evaluations import read_classes
from cbir.artifacts.images import Quarantined
from cbir.artifacts.paths import DataPaths, ReportPaths
from cbir.artifacts.vectors import open_vectors
from cbir.core.errors import CbirError
from cbir.evaluation.collection import open_collection
from cbir.evaluation.evaluate import evaluate_encoder
from cbir.export.npy import export_npy
from cbir.export.trec import export
from cbir.index.params import SearchParams
from cbir.index.storage import open_index, write_index
from cbir.report.examples import choose_examples
from cbir.report.gathering import compare_encoders_of_run, gather_facts
from cbir.report.html import write_html
from cbir.report.judged import JudgedCollection
from cbir.report.plots import write_plots
from cbir.runs.opening import open_run
from cbir.search.gallery import PackedGallery
from tests.support.finished import finish, markdown_of, summary_of
from tests.support.reported import write_maps
from tests.support.world import PARAMS, make_world

ENCODER, SIBLING, SEED = "clip", "mobilenet", 350


# ---- the run


def finished(root: Path, seed: int) -> Path:
    world = make_world(root, seed, n_gallery=120)
    if seed != SEED:  # an earlier run of a similar data set
        world.gallery = {name: f"c{int(label[1:]) ^ 1}" if label else None for name, label in world.gallery.items()}
        world.queries = [replace(query, text=query.text and f"{query.text}s") for query in world.queries]
        world.quarantine = [Quarantined("a.jpg", None, "damaged", "", 1)]
    finish(world.write())
    write_maps(world)
    return root


@dataclass
class Runs:
    """A finished run, an earlier one of other images and vectors, and what the commands give for the first."""

    root: Path
    earlier: Path
    results: dict[str, Any]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    root, earlier = (
        finished(tmp_path_factory.mktemp(name), seed) for name, seed in (("run", SEED), ("earlier", SEED + 1))
    )
    return Runs(root, earlier, {name: command(root) for name, command in COMMANDS.items()})


# ---- the commands


def evaluate(root: Path) -> Any:
    data = DataPaths(root / "data")
    check_vectors(data, ENCODER)
    done = evaluate_encoder(
        open_collection(data), data.embeddings(ENCODER), data.index(ENCODER), ENCODER, PARAMS, SearchParams(), 1
    )
    return [(task, queries.ids, repr(searches)) for task, queries, searches in done]


def search(root: Path) -> Any:
    data = DataPaths(root / "data")
    gallery = PackedGallery.open(data)
    check_vectors(data, ENCODER, ["gallery"])
    vectors = open_vectors(data.embeddings(ENCODER), ENCODER, "gallery")
    found = open_index(data.index(ENCODER), vectors).search(np.concatenate(vectors.parts)[:9], 5)
    hits = [gallery.hit(1, 0, position) for position in found[1][:, 1].tolist()]
    return found[0].tolist(), hits, [gallery.image_bytes(position) for position in (0, 60, 119)]


def report(root: Path) -> Any:
    data, reports = DataPaths(root / "data"), ReportPaths(root / "reports")
    facts, collection = gather_facts(data, reports), JudgedCollection(data)
    examples = choose_examples(collection, reports, 2, 0)
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        write_plots(out / "plots", facts, read_classes(reports))
        write_html(out / "x.html", facts, collection, examples, data, reports, 16)
        plots = {path.name: path.read_text() for path in sorted((out / "plots").glob("*.json"))}
        return (out / "x.html").read_text(), markdown_of(facts, out), summary_of(facts), plots


def compare(root: Path) -> Any:
    run = open_run(str(root))
    return run.collection, run.per_query.to_pydict()


def compare_encoders(root: Path) -> Any:
    return repr(compare_encoders_of_run(DataPaths(root / "data"), ReportPaths(root / "reports")))


def exported(root: Path, write: Callable[[Path], object]) -> dict[str, bytes]:
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder))
        return {path.name: path.read_bytes() for path in sorted(Path(folder).iterdir())}


COMMANDS: dict[str, Callable[[Path], Any]] = {
    "evaluate": evaluate,
    "search": search,
    "report": report,
    "compare": compare,
    "compare encoders": compare_encoders,
    "trec": lambda root: exported(
        root, lambda out: export(DataPaths(root / "data"), ReportPaths(root / "reports"), out)
    ),
    "npy": lambda root: exported(root, lambda out: export_npy(DataPaths(root / "data"), out, [ENCODER])),
}

# ---- the tamperings


def byte(path: Path, _: Runs) -> None:
    body = bytearray(path.read_bytes())
    body[len(body) // 2] ^= 0x10
    path.write_bytes(body)


def truncation(path: Path, _: Runs) -> None:
    path.write_bytes(path.read_bytes()[:-20])


def swap(path: Path, _: Runs) -> None:
    """By the file of another encoder, or by one of the same kind beside it."""
    sibling = Path(str(path).replace(f"/{ENCODER}/", f"/{SIBLING}/").replace(f"/{ENCODER}.", f"/{SIBLING}."))
    others = sorted(other for other in path.parent.glob(f"*{path.suffix}") if other != path)
    if not (sibling != path and sibling.exists()) and not others:
        pytest.skip("nothing to swap with")
    shutil.copy(sibling if sibling != path and sibling.exists() else others[0], path)


def older(path: Path, runs: Runs) -> None:
    shutil.copy(runs.earlier / path.relative_to(runs.root), path)


def content(path: Path, _: Runs) -> None:
    """Other content of the same shape, as another program writes it."""
    if path.suffix == ".json":
        value = json.loads(path.read_text())
        path.write_text(json.dumps(_changed(value), indent=2))
    elif path.suffix == ".parquet":
        table = pq.read_table(path)
        if not table.num_rows:
            pytest.skip("no rows")
        reversed_column = table.column(0).take(list(range(table.num_rows))[::-1])
        pq.write_table(table.set_column(0, table.schema.field(0), reversed_column), path)
    elif path.suffix == ".npy":
        np.save(path, np.roll(np.load(path), 1, axis=0))
    else:
        index = faiss.read_index(str(path))
        vectors = index.reconstruct_n(0, index.ntotal)
        index.reset()
        index.add(vectors[::-1].copy())
        write_index(path, index)


def _changed(value: Any) -> Any:
    """The value with its first number changed, or its first text where it has none."""
    if isinstance(value, dict | list):
        items = list(value.items() if isinstance(value, dict) else enumerate(value))
        for key, part in items:
            if (changed := _changed(part)) != part:
                return (
                    {**value, key: changed} if isinstance(value, dict) else [*value[:key], changed, *value[key + 1 :]]
                )
        return value
    if isinstance(value, bool) or value is None:
        return value
    return value / 2 + 0.25 if isinstance(value, float) else value + 1 if isinstance(value, int) else f"{value}x"


TAMPERINGS = {function.__name__: function for function in (byte, truncation, swap, content, older)}
ARTIFACTS = [
    "data/images/gallery/part-00000.parquet",
    "data/images/queries/part-00000.parquet",
    "data/images/quarantine.parquet",
    "data/images/summary.json",
    "data/queries/query_list.parquet",
    "data/queries/qrels.parquet",
    "data/queries/prompts.parquet",
    *(
        f"data/embeddings/{ENCODER}/{kind}/{name}"
        for kind in ("gallery", "queries", "texts", "prompts")
        for name in ("part-00000.npy", "part-00000.parquet", "passport.json")
    ),
    f"data/index/{ENCODER}/index.faiss",
    f"data/index/{ENCODER}/passport.json",
    f"data/index/{ENCODER}/build.json",
    f"data/map/{ENCODER}.parquet",
    "reports/encoders.json",
    *(
        f"reports/evaluation/{ENCODER}/{name}"
        for name in (
            "passport.json", "test_collection.json", "metrics.json", "intervals.json", "definitions.json", "prompts.json",
            "per_query.parquet", "classes.parquet", "confusions.parquet", "duplicates.parquet", "runs/cbir_exact.parquet",
            "runs/tbir_index.parquet",
        )
    ),
    f"reports/latency/{ENCODER}.json",
    f"reports/verification/{ENCODER}.json",
    "reports/comparison.json",
]  # fmt: skip


@contextlib.contextmanager
def tampered(runs: Runs, artifact: str, tampering: str) -> Iterator[bool]:
    """Change an artifact while the block runs; yield whether its bytes differ."""
    path = runs.root / artifact
    kept, times = path.read_bytes(), path.stat()
    try:
        TAMPERINGS[tampering](path, runs)
        yield path.read_bytes() != kept
    finally:
        path.write_bytes(kept)
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def outcomes(runs: Runs, artifact: str, tampering: str) -> dict[str, str]:
    """Command -> "refused", "as before" or "another result", after this tampering."""
    result = {}
    for name, command in COMMANDS.items():
        try:
            result[name] = "as before" if command(runs.root) == runs.results[name] else "another result"
        except CbirError as error:
            result[name] = "refused" if "\n" not in str(error) else "refused in several lines"
    return result


@pytest.mark.slow
@pytest.mark.parametrize("tampering", TAMPERINGS)
@pytest.mark.parametrize("artifact", ARTIFACTS)
def test_a_tampered_artifact_gives_no_other_result(runs: Runs, artifact: str, tampering: str) -> None:
    with tampered(runs, artifact, tampering):
        result = outcomes(runs, artifact, tampering)
    assert "another result" not in result.values(), result
    assert "refused in several lines" not in result.values(), result


def main() -> None:
    """Print the count of each outcome, and each other result."""
    counts: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        root, earlier = (finished(Path(folder) / name, seed) for name, seed in (("run", SEED), ("earlier", SEED + 1)))
        runs = Runs(root, earlier, {name: command(root) for name, command in COMMANDS.items()})
        for artifact in ARTIFACTS:
            for tampering in TAMPERINGS:
                try:
                    with tampered(runs, artifact, tampering) as differs:
                        result = outcomes(runs, artifact, tampering)
                except pytest.skip.Exception:
                    continue
                except Exception as error:
                    print(f"{artifact} {tampering}: TRACEBACK {error!r}", flush=True)
                    continue
                counts["tamperings"] += 1
                counts.update(result.values())
                counts["refused by a command"] += "refused" in result.values()
                if not differs:
                    counts["of the same bytes"] += 1
                elif set(result.values()) - {"refused", "as before"} or "refused" not in result.values():
                    print(f"{artifact} {tampering}: {result}", flush=True)
    print(dict(counts))


if __name__ == "__main__":
    sys.exit(main())
