"""The cost of an encoder, from files that the test writes."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from cbir.core.errors import DataError
from cbir.report.costs import MIN_TIMED_IMAGES, encoder_cost, images_per_s

PASSPORT = {"kind": "flat", "vectors": {"dim": 512, "device": "cpu"}}
BUILD = {"build_s": 0.1, "threads": 2, "index_bytes": 2_048_045, "bytes_per_vector": 2048.01}
MACHINE = {"processor": "AMD EPYC", "cores": 2, "system": "Linux"}


def cost_with(timing: dict[str, Any], weights: Path) -> Any:
    return encoder_cost(PASSPORT, BUILD, timing, weights)


def test_all_files_of_weights_are_counted(tmp_path: Path) -> None:
    tensors = {"w": np.ones((3, 4), np.float32), "half": np.ones(5, np.float16), "steps": np.ones(7, np.int64)}
    save_file(tensors, tmp_path / "model-1.safetensors")
    save_file({"bias": np.ones(2, np.float32), "scale": np.array(1, np.float32)}, tmp_path / "model-2.safetensors")
    (tmp_path / "towers").mkdir()
    (tmp_path / "encoder.json").write_text("{}")
    cost = cost_with({}, tmp_path)
    assert cost.parameters == 12 + 5 + 2 + 1
    assert cost.weights_bytes == sum(path.stat().st_size for path in tmp_path.glob("*.safetensors"))
    assert (cost.dim, cost.index_bytes, cost.bytes_per_vector) == (512, 2_048_045, 2048.01)


def test_vectors_made_elsewhere_have_neither_weights_nor_speed(tmp_path: Path) -> None:
    passport = {"kind": "flat", "vectors": {"dim": 512, "device": None}}
    cost = encoder_cost(passport, BUILD, {"wall_s": 1.0, "machine": MACHINE}, tmp_path / "absent")
    assert (cost.weights_bytes, cost.parameters, cost.images_per_s, cost.machine) == (None, None, None, None)


def test_the_speed_is_that_of_images_not_from_the_cache(tmp_path: Path) -> None:
    timing = {"wall_s": 99.0, "machine": MACHINE, "images": 500, "images_from_cache": 300, "images_s": 4.0}
    cost = cost_with(timing, tmp_path)
    assert (cost.images_per_s, cost.machine) == (50.0, "AMD EPYC, 2 cores, Linux, cpu")


def test_a_stage_that_counted_no_images_has_no_speed(tmp_path: Path) -> None:
    assert cost_with({"wall_s": 1.0, "machine": MACHINE, "rows_from_cache": 4800}, tmp_path).images_per_s is None


@pytest.mark.parametrize(
    ("images", "from_cache", "seconds", "expected"),
    [
        (MIN_TIMED_IMAGES, 0, 2.0, MIN_TIMED_IMAGES / 2),
        (MIN_TIMED_IMAGES, 1, 2.0, None),
        (4800, 4800, 0.01, None),
        (0, 0, 0.0, None),
        (4800, 0, 0.0, None),
    ],
)
def test_few_images_have_no_speed(images: int, from_cache: int, seconds: float, expected: float | None) -> None:
    assert images_per_s(images, from_cache, seconds) == expected


def test_damaged_weights_are_refused(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0not json")
    with pytest.raises(DataError, match=r"model\.safetensors is not readable as safetensors .*run `cbir repair"):
        cost_with({}, tmp_path)
