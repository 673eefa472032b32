"""Scales: pixels, round ticks, and the choice of a logarithm."""

from math import isclose

import pytest
from hypothesis import given
from hypothesis import strategies as st
from reports.scales import Scale, fitting, linear, number


@pytest.mark.parametrize(
    ("scale", "value", "pixel"),
    [
        (linear(0, 10, 0, 100), 5, 50),
        (linear(0, 10, 100, 0), 10, 0),
        (linear(0, 10, 0, 100), 99, 100),  # outside: at the border
        (Scale(1, 100, 0, 100, is_log=True), 10, 50),
        (Scale(1, 100, 0, 100, is_log=True), 0, 0),
        (linear(7, 7, 0, 100), 7, 0),
    ],
)
def test_scale_maps_a_value_to_a_pixel(scale: Scale, value: float, pixel: float) -> None:
    assert scale(value) == pixel


@pytest.mark.parametrize(
    ("scale", "ticks"),
    [
        (linear(0, 100, 0, 1), [0, 20, 40, 60, 80, 100]),
        (linear(0, 1, 0, 1), [0, 0.2, 0.4, 0.6, 0.8, 1]),
        (linear(0, 12, 0, 1), [0, 2.5, 5, 7.5, 10]),
        (linear(5.5, 8.4, 0, 1), [6, 7, 8]),
        (Scale(5, 120, 0, 1, is_log=True), [5, 10, 20, 30, 50, 100]),
        (Scale(1, 100000, 0, 1, is_log=True), [1, 10, 100, 1000, 10000, 100000]),
        (Scale(1.1, 1.9, 0, 1, is_log=True), [1.2, 1.4, 1.6, 1.8]),
        (Scale(0, 8, 0, 240, marked=(8, 1, 2, 4, 4.5)), [1, 2, 4, 8]),  # labels would overlap
    ],
)
def test_ticks_are_round_numbers(scale: Scale, ticks: list[float]) -> None:
    assert scale.ticks() == ticks


POSITIVE = st.floats(1e-4, 1e7)


@given(st.lists(POSITIVE, min_size=1))
def test_fitting_scale_has_all_values_and_some_ticks(values: list[float]) -> None:
    scale = fitting(values, 0, 100)
    assert 1 <= len(scale.ticks()) <= 12
    assert all(scale.low <= tick * (1 + 1e-9) and tick <= scale.high * (1 + 1e-9) for tick in scale.ticks())
    assert scale.high >= max(values)
    assert 0 <= scale(min(values)) <= scale(max(values)) <= 100
    assert isclose(scale(scale.high), 100)


@pytest.mark.parametrize(
    ("values", "is_log"), [([300, 310, 400], False), ([300] * 50 + [9000], True), ([0, 0, 1], False), ([], False)]
)
def test_fitting_scale_is_logarithmic_for_orders_of_magnitude(values: list[float], is_log: bool) -> None:
    assert fitting(values, 0, 100).is_log is is_log


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "-"),
        (0, "0"),
        (0.00412, "0.00412"),
        (6.2849, "6.28"),
        (63.04, "63.0"),
        (99.96, "100"),
        (2.0, "2.00"),
        (327.5, "328"),
        (8524.2, "8,524"),
        (1e-6, "0.000001"),
        (1234567.0, "1,234,567"),
    ],
)
def test_number_has_three_digits_and_separated_thousands(value: float | None, text: str) -> None:
    assert number(value) == text
