"""Vectors made elsewhere in the whole pipeline: the vectors that `cbir export npy` wrote, as an encoder of the same run."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from cbir import Searcher
from cbir.artifacts.paths import DataPaths, ReportPaths
from cbir.artifacts.vectors import open_vectors
from cbir.compose import composed
from cbir.core.errors import ConfigError, DataError
from cbir.core.files import read_json
from cbir.encoders.drift import measure_drift
from cbir.export.npy import export_npy
from stages import (
    build_index,
    download,
    draw_map,
    embed,
    evaluate,
    latency,
    packing,
    preprocess,
    report,
    scan,
    verify,
    weights,
)
from tests.support.imports import ROOT
from tests.support.repository import copy_conf
from tests.support.searchable import finished_run, photo  # noqa: F401  (fixtures)

OPTIONS = (
    "dataset.draw_gallery_images=160",
    "dataset.draw_query_images=40",
    "queries.prompt_sets=[bare,photo]",
    "evaluate.resamples=200",
    "evaluate.latency_queries=20",
    "device=cpu",
    "index=hnsw",
)
EMBEDDED, ELSEWHERE = "clip_demo", "clip_again"


def compose(*encoders: str) -> None:
    """Write params.yaml in the working directory."""
    overrides = [*OPTIONS, f"encoders=[{','.join(encoders)}]"]
    Path("params.yaml").write_text(composed(overrides, Path("conf")), encoding="utf-8")


@pytest.fixture(scope="module")
def both(finished_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The working directory: a run of a CLIP, and of the vectors that were exported from it."""
    root = tmp_path_factory.mktemp("both")
    copy_conf(root)
    (root / "cbir").symlink_to(ROOT / "cbir")  # conf/ names files in it
    text = f"{ELSEWHERE}:\n  family: vectors\n  architecture: {EMBEDDED}\n  weights: exports\n"
    (root / f"conf/encoders/{ELSEWHERE}.yaml").write_text(text)
    shutil.copytree(finished_run / "data/weights" / EMBEDDED, root / "data/weights" / EMBEDDED)  # it takes seconds
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        patch.setenv("CBIR_CACHE", str(root / "cache"))
        compose(EMBEDDED)
        for stage in (scan, download, packing, preprocess):
            stage.main()
        embed.main(EMBEDDED)
        build_index.main(EMBEDDED)
        export_npy(DataPaths(), Path("exports"), [EMBEDDED])
        compose(ELSEWHERE, EMBEDDED)
        scan.main()
        for of_encoder in (weights, embed, build_index):
            of_encoder.main(ELSEWHERE)
        for encoder in (EMBEDDED, ELSEWHERE):
            evaluate.main(encoder)
            latency.main(encoder)
            draw_map.main(encoder)
            verify.main(encoder)
        report.main()
        yield root


def assert_close(actual: Any, expected: Any, where: str) -> None:
    """Equal JSON, and numbers to 1e-9."""
    if isinstance(expected, dict):
        assert list(actual) == list(expected), where
        for name in expected:
            assert_close(actual[name], expected[name], f"{where}.{name}")
    elif isinstance(expected, list):
        assert len(actual) == len(expected), where
        for number, pair in enumerate(zip(actual, expected, strict=True)):
            assert_close(*pair, f"{where}[{number}]")
    elif isinstance(expected, float):
        assert actual == pytest.approx(expected, rel=0, abs=1e-9), where
    else:
        assert actual == expected, where


@pytest.mark.parametrize("name", ["metrics", "intervals", "prompts", "test_collection"])
def test_exported_vectors_reproduce_every_metric(both: Path, name: str) -> None:
    values = [
        json.loads(
            json.dumps(read_json(ReportPaths().evaluation(encoder).root / f"{name}.json")).replace(encoder, "it")
        )
        for encoder in (ELSEWHERE, EMBEDDED)
    ]
    assert sum(len(part) for part in values[1].values()) > 2
    assert_close(*values, where=name)


@pytest.mark.parametrize("task", ["cbir", "tbir"])
def test_exported_vectors_reproduce_the_runs(both: Path, task: str) -> None:
    for search in ("index", "exact"):
        of_both = [pq.read_table(ReportPaths().evaluation(name).run(task, search)) for name in (ELSEWHERE, EMBEDDED)]
        assert of_both[0].num_rows > 0
        assert of_both[0].equals(of_both[1])


@pytest.mark.parametrize("kind", ["gallery", "queries", "texts", "prompts"])
def test_looked_up_vectors_are_the_exported_ones(both: Path, kind: str) -> None:
    of_both = [open_vectors(DataPaths().embeddings(name), name, kind) for name in (ELSEWHERE, EMBEDDED)]
    assert of_both[0].ids.equals(of_both[1].ids)
    np.testing.assert_array_equal(*(np.concatenate(vectors.parts) for vectors in of_both))
    assert of_both[0].passport["rows"] == of_both[1].passport["rows"]


def test_passport_says_where_the_vectors_came_from(both: Path) -> None:
    passport = open_vectors(DataPaths().embeddings(ELSEWHERE), ELSEWHERE, "gallery").passport
    expected = {"family": "vectors", "origin": "exports", "preprocessing": None, "backend": "stored", "dim": 128}
    assert {name: passport[name] for name in expected} == expected


def test_export_of_looked_up_vectors_is_the_same(both: Path, tmp_path: Path) -> None:
    export_npy(DataPaths(), tmp_path, [ELSEWHERE])
    for path in (both / "exports").glob("*.npy"):
        assert (tmp_path / path.name.replace(EMBEDDED, ELSEWHERE)).read_bytes() == path.read_bytes()


def test_report_names_vectors_made_elsewhere(both: Path) -> None:
    rows = [line for line in ReportPaths().markdown.read_text().splitlines() if "vectors made elsewhere" in line]
    assert len(rows) == 1
    assert "not verified: the vectors were made elsewhere" in ReportPaths().markdown.read_text()
    assert "exports" in ReportPaths().markdown.read_text()


def test_search_for_a_gallery_image_finds_the_same(both: Path) -> None:
    searcher = Searcher.open("data")
    image_id = searcher.sample(1)[0]
    of_both = [searcher.like(image_id, 10, encoder=name) for name in (ELSEWHERE, EMBEDDED)]
    assert [hit.image_id for hit in of_both[0]] == [hit.image_id for hit in of_both[1]]
    assert of_both[0].categories == of_both[1].categories


def test_the_default_encoder_embeds_new_texts(both: Path) -> None:
    searcher = Searcher.open("data")
    assert searcher.encoders == [EMBEDDED, ELSEWHERE]  # in params.yaml the other comes first
    assert not searcher.reads_text(ELSEWHERE)
    assert len(searcher.text("a red star", 3)) == 3


def test_new_queries_are_refused_naming_another_encoder(both: Path, photo: bytes) -> None:
    searcher = Searcher.open("data")
    refusal = (
        "^the encoder clip_again holds vectors that were made elsewhere: it embeds no new {}; search with --like, "
        "or use the encoder clip_demo$"
    )
    with pytest.raises(ConfigError, match=refusal.format("text")):
        searcher.text("a red star", encoder=ELSEWHERE)
    with pytest.raises(ConfigError, match=refusal.format("image")):
        searcher.image(photo, encoder=ELSEWHERE)


def test_words_for_vectors_made_elsewhere_are_refused_as_text(both: Path) -> None:
    command = [sys.executable, "-m", "cbir", "search", ELSEWHERE, "a", "red", "star"]
    ended = subprocess.run(command, cwd=both, capture_output=True, text=True)
    assert ended.returncode == 1
    assert ended.stderr.startswith("error: the encoder clip_again holds vectors that were made elsewhere")


def test_drift_of_vectors_made_elsewhere_is_refused(both: Path) -> None:
    with pytest.raises(ConfigError, match="holds vectors that were made elsewhere"):
        next(measure_drift(DataPaths().root, ELSEWHERE, 5, 0))


def test_torch_is_not_imported_for_vectors_made_elsewhere(both: Path) -> None:
    code = (
        "import sys; from stages import embed, weights; "
        f"weights.main({ELSEWHERE!r}); embed.main({ELSEWHERE!r}); "
        "print(sorted({'torch', 'torchvision', 'open_clip', 'openvino'} & set(sys.modules)))"
    )
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    ended = subprocess.run([sys.executable, "-c", code], cwd=both, env=env, capture_output=True, text=True, check=True)
    assert ended.stdout.splitlines()[-1] == "[]"


def test_precision_of_vectors_made_elsewhere_is_refused(both: Path) -> None:
    text = (both / "params.yaml").read_text()
    before, _, after = text.partition(f"{ELSEWHERE}:")
    (both / "params.yaml").write_text(f"{before}{ELSEWHERE}:{after.replace('fp32', 'bf16', 1)}")
    try:
        with pytest.raises(ConfigError, match=r"^encoders\.clip_again\.precision: the family vectors does not take it"):
            embed.main(ELSEWHERE)
    finally:
        (both / "params.yaml").write_text(text)


def test_a_gallery_image_without_a_vector_is_refused(
    both: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(both, tmp_path / "run", symlinks=True)
    monkeypatch.chdir(tmp_path / "run")
    ids, vectors = Path("exports/gallery_ids.npy"), Path(f"exports/{EMBEDDED}_gallery.npy")
    first, second = np.load(ids)[:2]
    np.save(ids, np.load(ids)[2:])
    np.save(vectors, np.load(vectors)[2:])
    weights.main(ELSEWHERE)
    message = f"^exports: expected a vector for each of the 160 gallery images, found none for 2, such as '{first}', '{second}'"
    with pytest.raises(DataError, match=message):
        embed.main(ELSEWHERE)


def test_an_override_cannot_add_an_encoder_without_a_file() -> None:
    message = r"an entry of encoders is a file: write .*conf/encoders/mine\.yaml, then add mine to encoders=\[\.\.\.\]$"
    for override in ("+encoders.mine={family:vectors,architecture:a,weights:b}", "++encoders.mine.family=vectors"):
        with pytest.raises(ConfigError, match=message):
            composed([override], ROOT / "conf")
