"""prompts.json through its typed form."""

from pathlib import Path
from typing import Any

import pytest

from cbir.artifacts.prompt_metrics import PromptSetMetrics, read_prompt_metrics
from cbir.core.errors import DataError
from cbir.core.files import write_json

PHOTO = {
    "classes": 3,
    "wordings": [1, 2],
    "mean": {"map_at_r": 0.5},
    "ensemble": {"map_at_r": 0.625},
    "spread": {"map_at_r": 0.125},
    "worst_class": {"label": "cat", "map_at_r": 0.25},
    "intervals": {"mean": {"map_at_r": [0.4, 0.6]}, "ensemble": {"map_at_r": [0.5, 0.75]}},
}


def written(folder: Path, value: Any) -> Path:
    path = folder / "prompts.json"
    write_json(path, value)
    return path


def test_each_value_is_read_under_its_name(tmp_path: Path) -> None:
    assert read_prompt_metrics(written(tmp_path, {"photo": PHOTO})) == {
        "photo": PromptSetMetrics(
            classes=3,
            prompts_per_class=(1, 2),
            mean={"map_at_r": 0.5},
            mean_intervals={"map_at_r": [0.4, 0.6]},
            ensemble={"map_at_r": 0.625},
            ensemble_intervals={"map_at_r": [0.5, 0.75]},
            spread={"map_at_r": 0.125},
            worst_label="cat",
            worst_class={"map_at_r": 0.25},
        )
    }


def test_without_prompts_there_are_no_metrics(tmp_path: Path) -> None:
    assert read_prompt_metrics(written(tmp_path, {})) == {}


@pytest.mark.parametrize("change", [{"wordings": [1]}, {"worst_class": {}}, {"intervals": None}])
def test_other_values_are_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    with pytest.raises(DataError, match=r"prompts\.json: .*: run `cbir repair`, then `dvc repro`"):
        read_prompt_metrics(written(tmp_path, {"photo": {**PHOTO, **change}}))


@pytest.mark.parametrize("key", PHOTO)
def test_an_absent_key_is_named(tmp_path: Path, key: str) -> None:
    value = {name: entry for name, entry in PHOTO.items() if name != key}
    with pytest.raises(DataError, match=rf"prompts\.json: .*{key}"):
        read_prompt_metrics(written(tmp_path, {"photo": value}))
