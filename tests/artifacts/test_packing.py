"""The file of the packed images' limit: read as written, refused when damaged."""

from pathlib import Path

import pytest

from cbir.artifacts.packing import read_packing, read_resize_px, write_packing
from cbir.core.errors import DataError
from cbir.core.files import write_json


def test_the_limit_is_read_as_written(tmp_path: Path) -> None:
    write_packing(tmp_path / "packing.json", 768)
    assert read_packing(tmp_path / "packing.json") == 768


@pytest.mark.parametrize("value", [{}, {"max_side_px": None}, {"max_side_px": "512"}, {"max_side_px": 0}])
def test_a_file_without_a_limit_is_refused(tmp_path: Path, value: dict[str, object]) -> None:
    write_json(tmp_path / "packing.json", value)
    with pytest.raises(DataError, match=r"packing.json: expected max_side_px, a number >= 1, found .*`cbir repair`"):
        read_packing(tmp_path / "packing.json")


def test_the_resize_of_an_encoder_is_read_from_its_card(tmp_path: Path) -> None:
    write_json(tmp_path / "encoder.json", {"family": "timm", "preprocessing": {"resize_px": 518, "crop_px": 512}})
    assert read_resize_px(tmp_path) == 518


@pytest.mark.parametrize("card", [{}, {"preprocessing": 5}, {"preprocessing": {"resize_px": None}}])
def test_a_card_without_a_resize_is_refused(tmp_path: Path, card: dict[str, object]) -> None:
    write_json(tmp_path / "encoder.json", card)
    with pytest.raises(DataError, match=r"encoder.json: expected preprocessing.resize_px, found None: .*`cbir repair`"):
        read_resize_px(tmp_path)
