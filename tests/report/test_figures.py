"""Numbers and nested values as reports show them."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cbir.report.figures import at_each, figure, megabytes, seconds, share, signed, whole


@given(value=st.floats(-10, 10))
def test_a_figure_is_rounded_to_three_decimals(value: float) -> None:
    text = figure(value)
    assert re.fullmatch(r"-?\d+\.\d{3}", text)
    assert text != "-0.000"
    assert float(text) == pytest.approx(value, abs=0.000501)


@given(value=st.floats(-10, 10), digits=st.integers(1, 4))
def test_a_difference_has_a_sign_unless_it_is_zero(value: float, digits: int) -> None:
    text = signed(value, digits)
    assert float(text) == pytest.approx(value, abs=0.51 * 10**-digits)
    assert text[0] == ("0" if float(text) == 0 else "+" if value > 0 else "-")


@given(value=st.floats(0, 1))
def test_a_share_is_in_per_cent(value: float) -> None:
    text = share(value)
    assert re.fullmatch(r"\d{1,3}(\.[1-9])? %", text)
    assert float(text.removesuffix(" %")) == pytest.approx(100 * value, abs=0.1 if value > 0.9995 else 0.0501)
    assert (text == "100 %") == (round(value, 9) == 1)  # a sum that should be 1 may miss it by its last bits


SECONDS = re.compile(r"(?:(?P<h>\d+) h )?(?:(?P<min>\d+) min)?(?: ?(?P<s>[\d.]+) s)?")


@given(
    value=st.floats(0, 400_000) | st.floats(0, 130) | st.sampled_from([59.94, 59.96, 59.999, 3599.7, 3629.9, 7199.9])
)
def test_a_duration_is_exact_to_its_last_unit(value: float) -> None:
    found = SECONDS.fullmatch(seconds(value))
    assert found is not None, seconds(value)
    hours, minutes, rest = (float(part or 0) for part in found.group("h", "min", "s"))
    assert rest < 60
    assert minutes < 60
    last = 31 if hours else 1 if minutes else 0.051
    assert 3600 * hours + 60 * minutes + rest == pytest.approx(value, abs=last)


def test_sizes_counts_and_names_are_formatted() -> None:
    assert [megabytes(value) for value in (0, 49_999, 50_001, 1_234_567_890)] == [
        "0.0 MB",
        "0.0 MB",
        "0.1 MB",
        "1234.6 MB",
    ]
    assert [whole(value) for value in (0, 999.5, 1234567, 12.4)] == ["0", "1,000", "1,234,567", "12"]
    assert (at_each([1, 10], "recall"), at_each([])) == (["recall@1", "recall@10"], [])
    assert figure(0.5, [0.25, None]) == "0.500 [0.250, -]"


def test_a_figure_and_a_share_of_the_same_number_agree() -> None:
    assert (figure(0.0125), share(0.0125)) == ("0.013", "1.3 %")
