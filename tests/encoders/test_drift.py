"""measure_drift and its command: how vectors change with the batch, backend and precision."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from cbir.artifacts.images import write_shards
from cbir.artifacts.names import write_encoder_names
from cbir.artifacts.vectors import Vectors, write_vectors_passport
from cbir.cli import main as cli
from cbir.core.errors import DataError
from cbir.core.files import file_sha256, read_json, write_json
from cbir.encoders.base import Encoder, NotFiniteError
from cbir.encoders.drift import Drift, measure_drift
from cbir.encoders.embedding import embed_shards, vector_settings, vectors_passport
from cbir.encoders.exporting import export_towers
from cbir.encoders.families.torchvision import WEIGHTS
from cbir.encoders.opening import load_encoder
from cbir.encoders.params import Family
from cbir.encoders.preprocessing import Pixels
from cbir.encoders.runtime import Runtime, offers
from cbir.encoders.vector_cache import VectorCache
from cbir.encoders.weights import fetch_encoder
from tests.support.encoders import demo_params, packed_images


@pytest.fixture(scope="module")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with images, weights and vectors of mobilenet, embedded by torch."""
    root = tmp_path_factory.mktemp("drift")
    images = [replace(image, label=f"c{number % 3}") for number, image in enumerate(packed_images(60))]
    write_shards(root / "data/images/gallery", images[:40])
    write_shards(root / "data/images/queries", [replace(image, image_id=f"q{image.image_id}") for image in images[40:]])
    fetch_encoder("mobilenet", demo_params("mobilenet"), root / "data/weights/mobilenet")
    export_towers(root / "data/weights/mobilenet", Family.torchvision)
    encoder = load_encoder(root / "data/weights/mobilenet", Family.torchvision, Runtime())
    for kind in ("gallery", "queries"):
        out = root / "data/embeddings/mobilenet" / kind
        cache = VectorCache(root / "cache", vector_settings(encoder))
        rows = embed_shards(root / "data/images" / kind, out, encoder, 8, cache, kind)
        write_vectors_passport(out, vectors_passport("mobilenet", encoder, rows))
    write_encoder_names(root / "data/encoders.json", ["mobilenet"])
    return root


def by_way(data: Path) -> dict[str, Drift]:
    return {
        drift.way: drift for drift in measure_drift(data, "mobilenet", images=15, seed=0) if isinstance(drift, Drift)
    }


def test_each_way_is_measured_beginning_with_the_stored_one(embedded: Path) -> None:
    drifts = by_way(embedded / "data")
    others = [f"cpu {backend} {precision} x32" for backend, known in offers("cpu").items() for precision in known]
    assert list(drifts)[:3] == [f"cpu torch fp32 x{batch}" for batch in (32, 1, 7)]
    assert set(others) < set(drifts)
    for way, drift in drifts.items():
        assert drift.cosine_least > (0.9999 if "fp32" in way else 0.99), way
        assert drift.cosine_least <= drift.cosine_mean <= 1 + 1e-6
        assert drift.largest_difference < (1e-3 if "fp32" in way else 0.1)
        assert 0 <= drift.top10_overlap <= 1
        assert drift.precision_at_10 is not None
    own = drifts["cpu torch fp32 x32"]
    assert own.top10_overlap == 1.0
    assert own.precision_change == 0.0
    assert own.largest_difference < 1e-6


def test_other_weights_change_the_vectors(embedded: Path, tmp_path: Path) -> None:
    data = shutil.copytree(embedded / "data", tmp_path / "data")
    folder = data / "weights/mobilenet"
    state = load_file(folder / WEIGHTS)
    generator = torch.Generator().manual_seed(1)
    noisy = {
        name: value + 0.5 * value.abs().mean() * torch.randn(value.shape, generator=generator)
        if value.is_floating_point() and value.ndim == 4
        else value
        for name, value in state.items()
    }
    save_file(noisy, folder / WEIGHTS)
    card = read_json(folder / "encoder.json")
    write_json(folder / "encoder.json", {**card, "weights_sha256": file_sha256(folder / WEIGHTS)})
    export_towers(folder, Family.torchvision)
    own = by_way(data)["cpu torch fp32 x32"]
    assert own.cosine_least < 0.9999
    assert own.top10_overlap < 1.0


def test_without_query_images_the_sample_is_of_the_gallery(embedded: Path, tmp_path: Path) -> None:
    data = shutil.copytree(embedded / "data", tmp_path / "data")
    shutil.rmtree(data / "images/queries")
    (data / "images/queries").mkdir()
    own = by_way(data)["cpu torch fp32 x32"]
    assert own.top10_overlap == 1.0
    assert own.precision_at_10 is not None
    assert own.precision_at_10 < 0.9  # of three classes at random; an image that retrieved itself would add 0.1


def test_a_gallery_that_is_too_small_is_refused(embedded: Path, tmp_path: Path) -> None:
    data = shutil.copytree(embedded / "data", tmp_path / "data")
    encoder = load_encoder(data / "weights/mobilenet", Family.torchvision, Runtime())
    write_shards(tmp_path / "few", packed_images(10))
    out = data / "embeddings/mobilenet/gallery"
    cache = VectorCache(tmp_path / "cache", vector_settings(encoder))
    write_vectors_passport(
        out, vectors_passport("mobilenet", encoder, embed_shards(tmp_path / "few", out, encoder, 8, cache, "few"))
    )
    with pytest.raises(DataError, match="expected more than 10 gallery images, found 10"):
        list(measure_drift(data, "mobilenet", 5, 0))


def test_the_command_prints_a_table_or_json(
    embedded: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(embedded)
    cli.main(["drift", "mobilenet", "--images", "5", "--json"])
    drifts = json.loads(capsys.readouterr().out)
    assert drifts[0]["way"] == "cpu torch fp32 x32"
    assert np.isclose(drifts[0]["cosine_least"], 1.0, atol=1e-6)
    cli.main(["drift", "mobilenet", "--images", "5"])
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    (line,) = [line for line in lines if "cpu torch fp32 x7 " in line]
    assert line.split()[4:6] == ["1.00000", "1.00000"]
    with pytest.raises(SystemExit, match=r"^error: --images: expected at least 1, found 0$"):
        cli.main(["drift", "mobilenet", "--images", "0"])


def test_a_way_without_vectors_is_reported_beside_the_others(
    embedded: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    embed_images = Encoder.embed_images

    def overflow(self: Encoder, pixels: Pixels) -> Vectors:
        if self.runtime.precision == "fp16":
            raise NotFiniteError([0, 2], (), "fp16")
        return embed_images(self, pixels)

    monkeypatch.setattr(Encoder, "embed_images", overflow)
    monkeypatch.chdir(embedded)
    cli.main(["drift", "mobilenet", "--images", "5"])
    output = capsys.readouterr().out
    assert (
        "cpu torch fp16 x32: expected finite vectors, found NaN, infinity or zero for rows 0, 2 of a batch; "
        "values are too large for fp16: use precision fp32 or bf16" in output
    )
    assert "cpu torch bf16 x32 " in output


def test_an_encoder_that_the_run_lacks_is_refused(embedded: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(embedded)
    with pytest.raises(SystemExit, match=r"^error: encoder: the run has no 'mobilnet'; nearest: mobilenet$"):
        cli.main(["drift", "mobilnet"])


def test_drift_before_a_run_says_what_to_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "dvc.yaml").touch()
    with pytest.raises(SystemExit, match=r"^error: data/encoders.json is not here: run `dvc repro`$"):
        cli.main(["drift", "mobilenet"])
