"""Scales of plots: map values to pixels, and choose round numbers for the ticks."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, floor, log10

from measures import percentile

LABEL_PIXELS = 30.0
"""Minimum distance of two labels in pixels."""
LOG_RATIO = 5.0
"""Ratio of the largest to the smallest value from which a logarithmic scale is more readable."""


@dataclass(frozen=True, slots=True)
class Scale:
    """Maps values between `low` and `high` to pixels between `begin` and `end`."""

    low: float
    high: float
    begin: float
    end: float
    is_log: bool = False
    marked: tuple[float, ...] = ()
    """Values that get the ticks instead of round numbers."""

    def __call__(self, value: float) -> float:
        """Return the pixel of a value; values outside are drawn at the border."""
        value = min(max(value, self.low), self.high)
        if self.is_log:
            share = (log10(value) - log10(self.low)) / (log10(self.high) - log10(self.low))
        else:
            share = (value - self.low) / (self.high - self.low)
        return round(self.begin + share * (self.end - self.begin), 1)

    def ticks(self, count: int = 5) -> list[float]:
        """Return about `count` round numbers within the scale, or the marked values, if they are not too close."""
        if self.marked:
            return self._apart()
        return _log_ticks(self.low, self.high, count) if self.is_log else _ticks(self.low, self.high, count)

    def _apart(self) -> list[float]:
        """Return the marked values whose labels do not overlap."""
        found: list[float] = []
        for value in sorted(self.marked):
            if not found or abs(self(value) - self(found[-1])) >= LABEL_PIXELS:
                found.append(value)
        return found


def linear(low: float, high: float, begin: float, end: float) -> Scale:
    """Return a linear scale; equal limits get some room."""
    return Scale(low, high if high > low else low + (abs(low) or 1.0), begin, end)


def fitting(values: Sequence[float], begin: float, end: float, *, from_zero: bool = True) -> Scale:
    """Return the scale on which these values are readable: logarithmic if they differ by orders of magnitude."""
    positive = [value for value in values if value > 0] or [1.0]
    low, high = min(positive), max(positive)
    typical = percentile(positive, 5) or low
    if high / typical > LOG_RATIO:
        return Scale(typical / 2 if low < typical / 2 else low * 0.9, high * 1.15, begin, end, is_log=True)
    return linear(0.0 if from_zero else low * 0.95, high * 1.08, begin, end)


def _ticks(low: float, high: float, count: int) -> list[float]:
    rough = (high - low) / count
    power = 10.0 ** floor(log10(rough))
    step = next(each * power for each in (1, 2, 2.5, 5, 10) if each * power >= rough * 0.999)
    return [round(index * step, 12) for index in range(ceil(low / step - 1e-9), floor(high / step + 1e-9) + 1)]


def _log_ticks(low: float, high: float, count: int) -> list[float]:
    powers = range(floor(log10(low)), ceil(log10(high)) + 1)
    for factors in ((1, 2, 3, 5), (1, 2, 5), (1, 3), (1,)):
        found = [factor * 10.0**power for power in powers for factor in factors if low <= factor * 10.0**power <= high]
        if len(found) <= count + 1:
            break
    return found if len(found) > 1 else _ticks(low, high, count)


def number(value: float | None) -> str:
    """Return a number with three significant digits and separated thousands; `-` for None."""
    if value is None:
        return "-"
    if abs(value) >= 99.95:
        return f"{value:,.0f}"
    decimals = 2 - floor(log10(abs(value))) if abs(value) >= 1e-6 else 0
    text = f"{value:.{min(decimals, 6)}f}"
    return text.rstrip("0") if decimals > 6 else text


def whole_or_number(value: float | None) -> str:
    """Return a count, or a level of a sweep, without decimals that it does not have."""
    return f"{value:,.0f}" if value is not None and value == round(value) else number(value)
