"""Plots for the documentation, as SVG text.

Rules of this module:

* Written by hand, a few elements each: no plotting package is worth its weight for bars and lines.
* Pages show them as images, which know nothing of the page: grey text can be read on white and
  on black.
* Same figures, same bytes: a plot that hasn't changed is no change in git.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from html import escape

WIDTH = 760
TOP = 40  # below the title

LABELS = 230  # of bars, to the left of them
FIGURES = 90  # of bars, to the right of them
BAR = 26  # from one bar to the next

LEFT = 70  # of the axes
RIGHT = 530
BOTTOM = 360
LEGEND = 24  # from one of its lines to the next

COLOURS = ("#2563eb", "#d97706", "#059669", "#dc2626", "#7c3aed", "#0891b2", "#8b8b9e")

STYLE = """\
<style>
  text { font: 13px system-ui, sans-serif; fill: #777; }
  .title { font-size: 15px; }
  .hint { font-size: 12.5px; }
  .end { text-anchor: end; }
  .mid { text-anchor: middle; }
  .grid { stroke: #7774; }
  .line { fill: none; stroke-width: 2; }
  .ours { fill: #2563eb; }
  .theirs { fill: #8b8b9e; }
</style>"""


def bars(title: str, unit: str, values: dict[str, float]) -> str:
    """One bar for each value, in the order given; what begins with "trioweb" stands out."""
    longest = max(values.values())
    marks = []
    for number, (label, value) in enumerate(values.items()):
        y = TOP + 10 + number * BAR
        length = (WIDTH - LABELS - FIGURES) * value / longest
        kind = "ours" if label.startswith("trioweb") else "theirs"
        marks += [
            _text(LABELS - 10, y + 14, label, "end"),
            f'<rect class="{kind}" x="{LABELS}" y="{y}" width="{length:.1f}" height="{BAR - 8}"/>',
            _text(LABELS + length + 8, y + 14, figure(value), "hint"),
        ]
    height = TOP + 20 + len(values) * BAR
    return _svg(f"{title}, {unit}", height, marks)


def lines(
    title: str, x_label: str, y_label: str, series: dict[str, list[tuple[float, float]]]
) -> str:
    """One line for each series, both axes logarithmic.

    A zero stands one decade below what is smallest beside it: 0 tasks, then 1 to 100,000.
    """
    points = [point for values in series.values() for point in values]
    x_axis = _Axis([x for x, _ in points], LEFT, RIGHT)
    y_axis = _Axis([y for _, y in points], BOTTOM, TOP + 20)
    marks = [*_grid(x_axis, y_axis)]
    for number, (name, values) in enumerate(series.items()):
        marks += _line(name, number, [(x_axis.at(x), y_axis.at(y)) for x, y in values])
    marks.append(_text((LEFT + RIGHT) / 2, BOTTOM + 42, x_label, "hint mid"))
    marks.append(_text(LEFT - 50, TOP + 2, y_label, "hint"))
    return _svg(title, BOTTOM + 56, marks)


class _Axis:
    """A logarithmic axis of whole decades, from one place of the plot to another."""

    def __init__(self, values: Iterable[float], start: float, end: float) -> None:
        values = list(values)
        positive = [value for value in values if value > 0] or [1]
        self._has_zero = min(values) <= 0
        self._first = math.floor(math.log10(min(positive))) - self._has_zero
        self._last = max(math.ceil(math.log10(max(positive))), self._first + 1)
        self._start, self._end = start, end

    def at(self, value: float) -> float:
        """Where a value stands."""
        decade = math.log10(value) if value > 0 else self._first
        share = (decade - self._first) / (self._last - self._first)
        return self._start + share * (self._end - self._start)

    def ticks(self) -> dict[str, float]:
        """Where each power of ten stands, by its figure."""
        ticks = {figure(10.0**n): self.at(10.0**n) for n in range(self._first, self._last + 1)}
        if not self._has_zero:
            return ticks
        return dict(zip(["0", *[*ticks][1:]], ticks.values(), strict=True))


def _grid(x_axis: _Axis, y_axis: _Axis) -> Iterable[str]:
    for label, x in x_axis.ticks().items():
        yield f'<path class="grid" d="M{x:.1f} {TOP + 20} V{BOTTOM}"/>'
        yield _text(x, BOTTOM + 20, label, "mid")
    for label, y in y_axis.ticks().items():
        yield f'<path class="grid" d="M{LEFT} {y:.1f} H{RIGHT}"/>'
        yield _text(LEFT - 8, y + 4, label, "end")


def _line(name: str, number: int, places: list[tuple[float, float]]) -> list[str]:
    """The line, a dot for each of its points, and its name in the legend."""
    colour = COLOURS[number % len(COLOURS)]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    dots = [f'<circle fill="{colour}" cx="{x:.1f}" cy="{y:.1f}" r="3"/>' for x, y in places]
    y = TOP + 30 + number * LEGEND
    return [
        f'<polyline class="line" stroke="{colour}" points="{path}"/>',
        *dots,
        f'<rect fill="{colour}" x="{RIGHT + 20}" y="{y - 4}" width="14" height="4"/>',
        _text(RIGHT + 42, y + 2, name),
    ]


def figure(value: float) -> str:
    """A number as a reader wants it: 36,300, 12.5, 0.001."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _text(x: float, y: float, text: str, kind: str = "") -> str:
    what = f' class="{kind}"' if kind else ""
    return f'<text{what} x="{x:.1f}" y="{y:.1f}">{escape(text)}</text>'


def _svg(title: str, height: int, marks: Iterable[str]) -> str:
    name = re.sub(r"\W+", "-", title.lower()).strip("-")
    return "\n".join(
        [
            f'<svg width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}" role="img" '
            f'aria-labelledby="{name}" xmlns="http://www.w3.org/2000/svg">',
            f'<title id="{name}">{escape(title)}</title>',
            STYLE,
            _text(10, 22, title, "title"),
            *marks,
            "</svg>\n",
        ]
    )
