"""Prompt sets: their templates, and their metrics against plain loops."""

from pathlib import Path

import numpy as np
import pytest

from cbir.artifacts.paths import DataPaths, ReportPaths
from cbir.core.files import read_json
from cbir.evaluation.prompts import write_prompt_metrics
from tests.support import oracles
from tests.support.world import PROMPT_SETS, World, make_world


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return make_world(tmp_path_factory.mktemp("prompts")).write()


def by_hand(world: World, vector: np.ndarray, label: str) -> dict[str, float]:
    gallery = world.vectors["clip"]["gallery"]
    scores = {
        image_id: float(np.float32(vector.astype(float) @ row.astype(float))) for image_id, row in gallery.items()
    }
    order = list(world.gallery)
    ranked = sorted(order, key=lambda image_id: (-scores[image_id], order.index(image_id)))
    relevance = {image_id: 1 for image_id, of in world.gallery.items() if of == label}
    values = oracles.all_metrics(ranked, relevance, [1, 10])
    return {name: values[name] for name in ("success@1", "precision@10", "map_at_r")}


def test_means_spreads_ensembles_and_the_worst_class(world: World, tmp_path: Path) -> None:
    found = world.compare_prompts(tmp_path)
    assert list(found) == PROMPT_SETS
    assert [found[name]["wordings"] for name in PROMPT_SETS] == [[1, 1], [1, 1], [2, 2]]
    labels = sorted({label for label in world.gallery.values() if label is not None})
    for name, template, names in (
        ("photo", "a photo of a {}.", ["name of {}"]),
        ("synonyms", "a photo of a {}.", ["name of {}", "other {}"]),
    ):
        means, spreads, ensembles = [], [], []
        for label in labels:
            vectors = [world.vectors["clip"]["prompts"][template.format(name_of.format(label))] for name_of in names]
            values = [by_hand(world, vector, label) for vector in vectors]
            means.append({key: np.mean([value[key] for value in values]) for key in values[0]})
            spreads.append({key: np.std([value[key] for value in values]) for key in values[0]})
            mean = np.mean([vector.astype(float) for vector in vectors], axis=0)
            ensembles.append(by_hand(world, (mean / np.linalg.norm(mean)).astype(np.float32), label))
        for key in ("success@1", "precision@10", "map_at_r"):
            assert found[name]["mean"][key] == pytest.approx(np.mean([values_of[key] for values_of in means]))
            assert found[name]["spread"][key] == pytest.approx(np.mean([values_of[key] for values_of in spreads]))
            assert found[name]["ensemble"][key] == pytest.approx(np.mean([values_of[key] for values_of in ensembles]))
            low, high = found[name]["intervals"]["ensemble"][key]
            assert low <= found[name]["ensemble"][key] <= high
        worst = min(range(len(labels)), key=lambda row: ensembles[row]["map_at_r"])
        assert found[name]["worst_class"] == {
            "label": labels[worst],
            **{k: pytest.approx(v) for k, v in ensembles[worst].items()},
        }


def test_without_prompts_there_is_nothing_to_compare(tmp_path: Path) -> None:
    world = make_world(tmp_path)
    world.gallery = dict.fromkeys(world.gallery)
    assert world.write().compare_prompts(tmp_path) == {}
    assert read_json(ReportPaths(tmp_path).evaluation("clip").prompts) == {}


def test_an_encoder_that_reads_no_text_gets_no_file(world: World, tmp_path: Path) -> None:
    out = tmp_path / "prompts.json"
    write_prompt_metrics(out, DataPaths(world.data), "mobilenet", 100, 0)
    assert not out.exists()
    write_prompt_metrics(out, DataPaths(world.data), "clip", 100, 0)
    assert list(read_json(out)) == PROMPT_SETS
