"""comparison.json: what is written is read, and anything else is refused."""

from pathlib import Path
from typing import Any

import pytest

from cbir.artifacts.comparison import EncoderComparison, EncoderCost, read_comparison, write_comparison
from cbir.core.errors import DataError
from cbir.core.files import write_json
from tests.support.compared import COST, metric_of

NOTHING_KNOWN = EncoderCost(8, 800, 8.0, None, None, None, None)
WHOLE = EncoderComparison(
    {
        "cbir": [
            metric_of({"a": 0.8, "b": 0.7, "c": 0.6}, {"a b": 0.2}),
            metric_of({"b": 0.5, "a": 0.4}, metric="map"),
        ],
        "tbir": [metric_of({"a": 0.8}, classes=3)],
    },
    {"a": COST, "b": NOTHING_KNOWN},
    {"level": 0.95, "seed": 0},
)


@pytest.mark.parametrize("comparison", [WHOLE, EncoderComparison({}, {}, {})], ids=["whole", "empty"])
def test_what_is_written_is_read(tmp_path: Path, comparison: EncoderComparison) -> None:
    write_comparison(tmp_path / "comparison.json", comparison)
    assert read_comparison(tmp_path / "comparison.json") == comparison


@pytest.mark.parametrize(
    "damaged",
    [
        {},
        {"tasks": [], "costs": {}, "about": {}},
        {"tasks": {"cbir": [{"metric": "map"}]}, "costs": {}, "about": {}},
        {"tasks": {}, "costs": {"a": {"dim": 8, "price": 1}}, "about": {}},
        {"tasks": {}, "costs": {}, "about": 7},
    ],
    ids=str,
)
def test_another_version_is_refused(tmp_path: Path, damaged: Any) -> None:
    path = tmp_path / "comparison.json"
    write_json(path, damaged)
    with pytest.raises(DataError, match=r"comparison that report writes, found .*run `cbir repair`, then `dvc repro`"):
        read_comparison(path)


def test_an_absent_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"is not here: run `dvc repro`"):
        read_comparison(tmp_path / "comparison.json")


def test_the_best_group_may_be_larger_than_a_letter() -> None:
    """a is like b and like c, which differ: both are in the group of the best."""
    comparison = metric_of({"a": 0.8, "b": 0.79, "c": 0.78, "d": 0.7}, {"a b": 0.9, "a c": 0.3})
    assert comparison.best_group == ["a", "b", "c"]
    assert [ranked.letters for ranked in comparison.ranking] == ["ab", "a", "b", "c"]
    assert comparison.test("b", "d").second == "d"
