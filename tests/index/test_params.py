"""The group `index`: values out of range are refused, and every kind is described."""

from typing import Any

import pytest

from cbir.core.errors import ConfigError
from cbir.core.params import build_group
from cbir.index.kinds import KINDS
from cbir.index.params import IndexKind, IndexParams


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"build": {"nlist": 0}}, r"index\.build\.nlist: expected a number >= 1, found 0"),
        ({"build": {"pq_m": 0}}, r"index\.build\.pq_m: expected a number >= 1, found 0"),
        ({"build": {"hnsw_m": 1}}, r"index\.build\.hnsw_m: expected a number >= 2, found 1"),
        ({"build": {"ef_construction": 0}}, r"index\.build\.ef_construction: expected a number >= 1, found 0"),
        ({"build": {"train_rows": 0}}, r"index\.build\.train_rows: expected a number >= 1, found 0"),
        ({"build": {"seed": -1}}, r"index\.build\.seed: expected a number >= 0, found -1"),
        ({"search": {"nprobe": 0}}, r"index\.search\.nprobe: expected a number >= 1, found 0"),
        ({"search": {"ef_search": 0}}, r"index\.search\.ef_search: expected a number >= 1, found 0"),
    ],
)
def test_values_out_of_range_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build_group("index", IndexParams, {"kind": "flat"} | values, "params.yaml")


def test_every_kind_that_can_be_chosen_is_described() -> None:
    assert list(KINDS) == [kind.value for kind in IndexKind]
