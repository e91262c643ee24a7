"""The whole pipeline on real images, a sample of Tiny ImageNet: with the demo encoders, and with architectures of full size."""

from collections.abc import Iterator
from itertools import product
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from cbir.artifacts.evaluations import read_metrics
from cbir.artifacts.paths import ReportPaths
from cbir.artifacts.vectors import read_parts
from cbir.core.files import read_json
from stages import draw_map, evaluate, latency, report, verify
from tests.support.imports import ROOT
from tests.support.searchable import run_stages

ARCHIVE = ROOT.parent / "shared" / "data" / "tiny-imagenet-200-mini.zip"
SHA256 = "dd2b9b08dfa6a2336f26c04ac74cf264b39d2ccbe9bb1844c51a004aecc4f8b0"

SMALL = {"mobilenet_demo": 576, "clip_demo": 128}
LARGE = {"mobilenet_v3_large": 960, "clip_vit_b_32": 512}
DIMS = SMALL | LARGE

pytestmark = pytest.mark.skipif(not ARCHIVE.exists(), reason=f"the real images are not here: {ARCHIVE}")


@pytest.fixture(scope="module", params=[SMALL, pytest.param(LARGE, marks=pytest.mark.slow)], ids=["small", "large"])
def encoders(request: pytest.FixtureRequest) -> list[str]:
    """A convolutional encoder, and one that reads text."""
    return [*request.param]


@pytest.fixture(scope="module")
def ran(encoders: list[str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder in which all stages have run, in order."""
    folder = tmp_path_factory.mktemp("tiny_imagenet")
    overrides = [
        "dataset=tiny_imagenet",
        f"dataset.url={ARCHIVE}",
        f"dataset.sha256={SHA256}",
        "dataset.md5=null",
        "dataset.gallery_per_class=1",
        "dataset.queries_per_class=1",
        f"encoders=[{','.join(encoders)}]",
        *(f"encoders.{encoder}.weights=random:0" for encoder in encoders if encoder in LARGE),
        "index=ivf_flat",
        "queries.prompt_sets=[synonyms]",  # the 80 templates are 16,000 texts: minutes with the large text tower
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        run_stages(folder, *overrides)
        for encoder in encoders:
            verify.main(encoder)
            draw_map.main(encoder)
            evaluate.main(encoder)
            latency.main(encoder)
        report.main()
        yield folder


def test_each_class_has_one_gallery_image_query_image_and_prompt(ran: Path) -> None:
    summary = read_json(ran / "data/images/summary.json")
    assert summary["gallery"]["images"] == summary["gallery"]["classes"] == 200
    assert summary["queries"]["by_task"] == {"cbir": 200, "tbir": 200}
    assert summary["quarantine"] == {}


def test_validation_queries_have_the_annotated_labels(ran: Path) -> None:
    queries = pq.read_table(ran / "data/queries/query_list.parquet").to_pylist()
    assert len({query["label"] for query in queries if query["task"] == "cbir"}) == 200
    texts = {query["label"]: query["text"] for query in queries if query["task"] == "tbir"}
    assert texts["n01443537"] == "a photo of a goldfish."


def test_vectors_are_unit_rows_of_the_expected_dimension(ran: Path, encoders: list[str]) -> None:
    for encoder, kind in product(encoders, ("gallery", "queries")):
        ids, parts = read_parts(ran / "data/embeddings" / encoder / kind)
        vectors = np.concatenate(parts)
        assert vectors.shape == (200, DIMS[encoder]) == (len(ids), DIMS[encoder])
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)


def test_the_report_warns_of_the_weights_in_its_first_line(ran: Path, encoders: list[str]) -> None:
    first = (ran / "reports/report.md").read_text().splitlines()[0]
    assert ("are random, not trained" if encoders == [*LARGE] else "demo weights") in first
    metrics = read_metrics(ReportPaths(ran / "reports"))
    assert list(metrics.cbir) == encoders
    assert list(metrics.tbir) == encoders[1:]
