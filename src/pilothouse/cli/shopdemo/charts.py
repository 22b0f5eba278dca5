"""Charts over time as inline SVG: stacked areas, lines and dots with a limit, and numbered marks."""

from __future__ import annotations

import html
import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple

__all__ = ["Chart", "Limit", "Mark", "Scale", "areas", "dots", "lines", "ticks"]

WIDTH: Final = 960
_LEFT, _RIGHT, _BOTTOM = 56, 12, 22
_ROW: Final = 20
"""Height of a row of marks, and how near they may stand in it."""
Points = Sequence[tuple[float, float]]


class Scale(NamedTuple):
    """The vertical axis. unit: is written behind numbers."""

    low: float
    high: float
    unit: str = ""
    is_log: bool = False

    def place(self, value: float) -> float:
        """Return where a value is, from 0 at the bottom to 1 at the top."""
        low, high, value = (math.log(each) if self.is_log else each for each in (self.low, self.high, value))
        return min(1.0, max(0.0, (value - low) / (high - low)))

    @property
    def ticks(self) -> list[float]:
        """Values with a line of their own."""
        if self.is_log:
            powers = range(math.ceil(math.log10(self.low)), math.floor(math.log10(self.high)) + 1)
            return [10.0**each for each in powers]
        return ticks(self.high)


class Mark(NamedTuple):
    """Something that happened. kind: a class of the style sheet."""

    at: float
    number: int
    kind: str
    text: str


class Limit(NamedTuple):
    """A value that should not be passed."""

    value: float
    text: str


class Chart(NamedTuple):
    """What all charts of a page have in common, and the vertical axis of one. seconds: the length of the time axis."""

    title: str
    seconds: float
    scale: Scale
    marks: Sequence[Mark] = ()
    height: int = 150
    is_numbered: bool = True

    @property
    def rows(self) -> list[tuple[Mark, int]]:
        """Marks with the row that their number stands in, so that none covers another."""
        found, last = list[tuple[Mark, int]](), list[float]()
        for mark in self.marks:
            row = next((row for row, x in enumerate(last) if self.x(mark.at) - x >= _ROW), len(last))
            last[row : row + 1] = [self.x(mark.at)]
            found.append((mark, row))
        return found

    @property
    def top(self) -> float:
        """Where the drawing begins, below the numbers."""
        return 4 + (_ROW * (max((row for _, row in self.rows), default=-1) + 1) if self.is_numbered else 0)

    def x(self, at: float) -> float:
        """Return where a second is."""
        return round(_LEFT + (WIDTH - _LEFT - _RIGHT) * at / self.seconds, 1)

    def y(self, value: float) -> float:
        """Return where a value is."""
        return round(self.top + self.height * (1 - self.scale.place(value)), 1)

    def svg(self, body: str, limit: Limit | None = None) -> str:
        """Return the whole with axes, limit and marks."""
        bottom = self.top + self.height
        return (
            f'<svg viewBox="0 0 {WIDTH} {bottom + _BOTTOM:g}" role="img" aria-label="{html.escape(self.title)}">'
            f"{self._grid(bottom)}{body}{self._marks(bottom)}{self._limit(limit)}</svg>"
        )

    def _grid(self, bottom: float) -> str:
        made = []
        for value in self.scale.ticks:
            y = self.y(value)
            made.append(f'<path class="grid" d="M{_LEFT} {y}H{WIDTH - _RIGHT}"/>')
            made.append(f'<text class="axis" x="{_LEFT - 6}" y="{y + 4}" text-anchor="end">{_said(value, self)}</text>')
        for at in ticks(self.seconds, 12):
            unit = " s" if at + ticks(self.seconds, 12)[1] > self.seconds else ""
            made.append(
                f'<text class="axis" x="{self.x(at)}" y="{bottom + 15}" text-anchor="middle">{at:g}{unit}</text>'
            )
        return "".join(made)

    def _limit(self, limit: Limit | None) -> str:
        if limit is None:
            return ""
        y = self.y(limit.value)
        return (
            f'<path class="limit" d="M{_LEFT} {y}H{WIDTH - _RIGHT}"/>'
            f'<text class="limit" x="{_LEFT + 5}" y="{y - 4}">{html.escape(limit.text)}</text>'
        )

    def _marks(self, bottom: float) -> str:
        made = []
        for mark, row in self.rows:
            x, y = self.x(mark.at), row * _ROW + 10
            line = f"M{x} {y + 9 if self.is_numbered else self.top}V{bottom}"
            number = f'<circle cx="{x}" cy="{y}" r="8.5"/><text x="{x}" y="{y + 3.5}">{mark.number}</text>'
            said = f"<title>{html.escape(mark.text)}</title>"
            shown = number if self.is_numbered else ""
            made.append(f'<g class="mark {mark.kind}">{said}<path d="{line}"/>{shown}</g>')
        return "".join(made)


def areas(chart: Chart, layers: Mapping[str, Sequence[float]]) -> str:
    """Return areas on top of each other, by class: values of each whole second, the first layer lowest."""
    below = [0.0] * max((len(each) for each in layers.values()), default=0)
    made = []
    for name, values in layers.items():
        above = [low + value for low, value in itertools.zip_longest(below, values, fillvalue=0.0)]
        there, back = _steps(chart, above), _steps(chart, below)
        made.append(f'<path class="area {name}" d="M{" ".join(there)} L{" ".join(reversed(back))}Z"/>')
        below = above
    return "".join(made)


def _steps(chart: Chart, values: Iterable[float]) -> list[str]:
    return [f"{chart.x(at)},{chart.y(value)}" for second, value in enumerate(values) for at in (second, second + 1)]


def lines(chart: Chart, layers: Mapping[str, Points]) -> str:
    """Return a line of each class through points a second apart; where some are missing it is broken."""
    made = []
    for name, points in layers.items():
        before = -math.inf
        parts = []
        for at, value in points:
            parts.append(f"{'L' if at - before <= 1 else 'M'}{chart.x(at)},{chart.y(value)}")
            before = at
        made.append(f'<path class="line {name}" d="{"".join(parts)}"/>')
    return "".join(made)


def dots(chart: Chart, layers: Mapping[str, Points]) -> str:
    """Return a dot of each class for each point; where they are many they cover each other, the last layer on top."""
    made = []
    for name, points in layers.items():
        made.append(f'<path class="dots {name}" d="{"".join(f"M{chart.x(at)},{chart.y(y)}h0" for at, y in points)}"/>')
    return "".join(made)


def ticks(high: float, most: int = 4) -> list[float]:
    """Return round values from 0 up to `high`, about `most` steps of them."""
    raw = high / most
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(each * power for each in (1, 2, 5, 10) if each * power >= raw * 0.999)
    return [round(number * step, 9) for number in range(int(high / step + 1e-9) + 1)]


def _said(value: float, chart: Chart) -> str:
    return f"{value:,.0f}{chart.scale.unit}" if value >= 1 or not value else f"{value:g}{chart.scale.unit}"
