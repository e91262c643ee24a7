"""Groups of encoders that cannot be told apart, as a compact letter display."""

from collections.abc import Collection

Group = frozenset[int]


def indistinct_groups(n: int, differing: Collection[tuple[int, int]]) -> list[list[int]]:
    """Return the largest groups of 0 ... n-1 of which no pair differs; a number may be in several groups.

    differing : pairs (i, j) that differ.  The groups are in the order of their numbers, each in ascending order.
    Insert and absorb: start with one group of all; split each group that holds a differing pair into one without i and one
    without j; drop a group that another contains.  Source: Piepho, "An Algorithm for a Letter-Based Representation of
    All-Pairwise Comparisons", Journal of Computational and Graphical Statistics 13(2), 2004, without the sweep, which drops
    letters and with them members of groups.

    >>> indistinct_groups(3, [(0, 2)])
    [[0, 1], [1, 2]]
    """
    groups: list[Group] = [frozenset(range(n))] if n else []
    for pair in differing:
        whole = [group for group in groups if not group.issuperset(pair)]
        parts = {group - {number} for group in groups if group.issuperset(pair) for number in pair}
        # a whole group is never part of a split one, because it was not part of the group before
        groups = whole + [part for part in parts if not any(part < other for other in (*whole, *parts))]
    return sorted(sorted(group) for group in groups)


def letters_of(n: int, differing: Collection[tuple[int, int]]) -> list[str]:
    """Return the letters of 0 ... n-1: two of them share a letter if and only if they do not differ.

    >>> letters_of(3, [(0, 2)])
    ['a', 'ab', 'b']
    """
    groups = indistinct_groups(n, differing)
    return ["".join(_letter(place) for place, group in enumerate(groups) if number in group) for number in range(n)]


def _letter(place: int) -> str:
    """a ... z, a1 ... z1, a2 ..."""
    round_, letter = divmod(place, 26)
    return f"{chr(ord('a') + letter)}{round_ or ''}"
