"""The group `index`: values out of range are refused, and every kind is described."""

from typing import Any

import pytest

from cbir.core.errors import ConfigError
from cbir.index.kinds import KINDS
from cbir.index.params import BuildParams, IndexKind, SearchParams


@pytest.mark.parametrize(
    ("schema", "values", "message"),
    [
        (BuildParams, {"nlist": 0}, r"^build\.nlist: expected a number >= 1, found 0"),
        (BuildParams, {"pq_m": 0}, r"^build\.pq_m: expected a number >= 1, found 0"),
        (BuildParams, {"hnsw_m": 1}, r"^build\.hnsw_m: expected a number >= 2, found 1"),
        (BuildParams, {"ef_construction": 0}, r"^build\.ef_construction: expected a number >= 1, found 0"),
        (BuildParams, {"train_rows": 0}, r"^build\.train_rows: expected a number >= 1, found 0"),
        (BuildParams, {"seed": -1}, r"^build\.seed: expected a number >= 0, found -1"),
        (SearchParams, {"nprobe": 0}, r"^search\.nprobe: expected a number >= 1, found 0"),
        (SearchParams, {"ef_search": 0}, r"^search\.ef_search: expected a number >= 1, found 0"),
    ],
)
def test_values_out_of_range_are_refused(schema: Any, values: dict[str, int], message: str) -> None:
    """The group's name comes before these messages where a file is read (tests/core/test_params.py)."""
    with pytest.raises(ConfigError, match=message):
        schema(**values)


def test_every_kind_that_can_be_chosen_is_described() -> None:
    assert list(KINDS) == [kind.value for kind in IndexKind]
