"""A switch from one option of a group to another leaves no value of the former in params.yaml."""

from functools import cache
from itertools import permutations
from random import Random

import pytest
import yaml

from cbir.compose import composed
from cbir.schema import GROUPS
from tests.support.imports import ROOT

CONF = ROOT / "conf"
OPTIONS = {group: sorted(path.stem for path in (CONF / group).glob("*.yaml")) for group in GROUPS}
EXPERIMENTS = sorted(path.stem for path in (CONF / "experiment").glob("*.yaml"))
REQUIRED = {"dataset=image_folder": ["dataset.url=/photos"], "queries=file": ["queries.path=/queries.csv"]}


@cache
def values_of(*overrides: str) -> dict[str, object]:
    """The composed values of all groups.  The last option's required values are added."""
    values: dict[str, object] = yaml.safe_load(composed([*overrides, *REQUIRED.get(overrides[-1], [])], CONF))
    return values


@pytest.mark.parametrize("group", GROUPS)
def test_an_option_replaces_any_other_option(group: str) -> None:
    assert OPTIONS[group]
    pairs = [*permutations(OPTIONS[group], 2)]  # of many, a sample: each takes a tenth of a second
    for former, option in Random(0).sample(pairs, min(len(pairs), 30)):
        assert values_of(f"{group}={former}", f"{group}={option}") == values_of(f"{group}={option}"), (former, option)


@pytest.mark.parametrize("group", GROUPS)
@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_an_option_replaces_the_choice_of_an_experiment(experiment: str, group: str) -> None:
    of_experiment = values_of(f"experiment={experiment}")
    for option in OPTIONS[group]:
        expected = of_experiment | {group: values_of(f"{group}={option}")[group]}
        assert values_of(f"experiment={experiment}", f"{group}={option}") == expected, option
