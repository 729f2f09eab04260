"""Geometry of charts. All positions are per cent of the plot, x from the left and y from the top.

The template draws marks as SVG stretched over the plot and labels as text over it: so a chart is as wide as
the page, its letters keep their size, and its colours follow the page from light to dark.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

BINS, POINTS = 40, 300


@dataclass(frozen=True)
class Axis:
    """A linear axis from `low` to `high`, with a tick at every multiple of `step` between them."""

    low: float
    high: float
    step: float

    @classmethod
    def over(cls, low: float, high: float, ticks: int, whole: bool = False) -> Axis:
        """The axis from `low` up to the first tick not below `high`.

        Steps are 1, 2 or 5 times a power of ten, about `ticks` of them; whole numbers on request.
        """
        raw = (high - low or abs(high) or 1.0) / ticks
        power = 10.0 ** math.floor(math.log10(raw))
        step = power * next(factor for factor in (1, 2, 5, 10) if factor * power >= raw * (1 - 1e-9))
        if whole:
            step = max(1.0, step)
        return cls(low, max(math.ceil(high / step - 1e-9) * step, low + step), step)

    def place(self, value: float) -> float:
        """Per cent of the axis at which `value` lies."""
        return round(100 * (value - self.low) / (self.high - self.low), 2)

    @property
    def ticks(self) -> list[tuple[float, str]]:
        """Place and label of each tick."""
        first, last = math.ceil(self.low / self.step - 1e-9), math.floor(self.high / self.step + 1e-9)
        values = [number * self.step for number in range(first, last + 1)]
        return [(self.place(value), self._label(value)) for value in values]

    def _label(self, value: float) -> str:
        if abs(value) < self.step / 2:
            return "0"
        if max(abs(self.low), abs(self.high)) < 0.001:
            mantissa, exponent = f"{value:.1e}".split("e")
            return f"{float(mantissa):g}e{int(exponent)}"
        decimals = max(0, -math.floor(math.log10(self.step) + 1e-9))
        return f"{value:,.{decimals}f}"


@dataclass(frozen=True)
class Histogram:
    """Bars `(left, top, width, height)` of the rows in each bin of `width` tokens, from 0."""

    role: str
    x: Axis
    y: Axis
    width: int
    bars: list[tuple[float, float, float, float]]
    rows: int
    longest: int
    median: int


def histograms(lengths: dict[str, Counter[int]]) -> list[Histogram]:
    """One histogram per split that has rows, all with one x axis."""
    present = {role: counter for role, counter in lengths.items() if counter}
    if not present:
        return []
    x = Axis.over(0, max(max(counter) for counter in present.values()) + 1, 5, whole=True)
    width = max(1, math.ceil(x.high / BINS))
    return [_histogram(role, counter, x, width) for role, counter in present.items()]


def _histogram(role: str, lengths: Counter[int], x: Axis, width: int) -> Histogram:
    bins: Counter[int] = Counter()
    for tokens, rows in lengths.items():
        bins[tokens // width] += rows
    y = Axis.over(0, max(bins.values()), 3, whole=True)
    bars = []
    for number, rows in sorted(bins.items()):
        left, right = x.place(number * width), min(100.0, x.place((number + 1) * width))
        bars.append((left, round(100 - y.place(rows), 2), round(right - left, 2), y.place(rows)))
    return Histogram(role, x, y, width, bars, lengths.total(), max(lengths), _median(lengths))


def _median(lengths: Counter[int]) -> int:
    """The lower median."""
    left = (lengths.total() + 1) // 2
    for tokens in sorted(lengths):
        left -= lengths[tokens]
        if left <= 0:
            return tokens
    return 0


@dataclass(frozen=True)
class Line:
    """A curve `points`, as SVG's polyline has them."""

    x: Axis
    y: Axis
    points: str

    @classmethod
    def through(cls, points: Sequence[tuple[float, float]]) -> Line:
        """The curve through at least one `(x, y)`, both from 0; long ones are thinned to `POINTS` means."""
        last = max(points[-1][0], 1.0)
        x = Axis(0, last, Axis.over(0, last, 5, whole=True).step)
        y = Axis.over(0, max(0.0, *(value for _, value in points)), 4)
        means = thinned(points)
        return cls(x, y, " ".join(f"{x.place(a):g},{round(100 - y.place(b), 2):g}" for a, b in means))


def thinned(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """At most `POINTS` points, each the mean of equally many neighbours."""
    size = math.ceil(len(points) / POINTS)
    groups = [points[start : start + size] for start in range(0, len(points), size)]
    return [(sum(x for x, _ in g) / len(g), sum(y for _, y in g) / len(g)) for g in groups]
