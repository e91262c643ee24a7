"""Letters against the definition, by brute force over all subsets."""

from itertools import chain, combinations

from hypothesis import given, settings
from hypothesis import strategies as st

from cbir.evaluation.letters import indistinct_groups, letters_of


def largest_by_hand(n: int, differing: set[tuple[int, int]]) -> list[list[int]]:
    """Every subset without a differing pair that no other such subset contains."""
    subsets = chain.from_iterable(combinations(range(n), size) for size in range(1, n + 1))
    alike = [set(subset) for subset in subsets if not any(pair in differing for pair in combinations(subset, 2))]
    return sorted(sorted(subset) for subset in alike if not any(subset < other for other in alike))


@st.composite
def relations(draw: st.DrawFn) -> tuple[int, set[tuple[int, int]]]:
    n = draw(st.integers(1, 7))
    pairs = list(combinations(range(n), 2))
    return n, draw(st.sets(st.sampled_from(pairs))) if pairs else set()


@given(relations())
@settings(max_examples=300, deadline=None)
def test_groups_are_the_largest_without_a_differing_pair(relation: tuple[int, set[tuple[int, int]]]) -> None:
    assert indistinct_groups(*relation) == largest_by_hand(*relation)


@given(relations())
@settings(max_examples=300, deadline=None)
def test_two_share_a_letter_unless_they_differ(relation: tuple[int, set[tuple[int, int]]]) -> None:
    n, differing = relation
    letters = letters_of(n, differing)
    for pair in combinations(range(n), 2):
        assert bool(set(letters[pair[0]]) & set(letters[pair[1]])) == (pair not in differing)
    assert all(letters)
    assert letters[0].startswith("a")


def test_the_order_of_pairs_changes_nothing() -> None:
    differing = [(0, 2), (0, 3), (1, 3), (4, 0), (1, 5)]
    assert letters_of(6, differing) == letters_of(6, differing[::-1])


def test_all_alike_share_a_and_all_different_share_nothing() -> None:
    assert letters_of(3, []) == ["a", "a", "a"]
    assert letters_of(3, [(0, 1), (0, 2), (1, 2)]) == ["a", "b", "c"]
    assert letters_of(1, []) == ["a"]
    assert letters_of(0, []) == []


def test_letters_after_z_have_a_number() -> None:
    letters = letters_of(28, list(combinations(range(28), 2)))
    assert letters[24:] == ["y", "z", "a1", "b1"]


def test_many_encoders_in_a_chain_get_a_letter_a_window() -> None:
    """20 encoders, each alike only to the 5 nearest on both sides: 15 windows of 6."""
    differing = [pair for pair in combinations(range(20), 2) if pair[1] - pair[0] > 5]
    assert indistinct_groups(20, differing) == [list(range(start, start + 6)) for start in range(15)]
