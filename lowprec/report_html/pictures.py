"""Pictures as inline SVG: nothing but text, coloured by the page's style sheet.

Each has a title, which screen readers say and pointers show. Coordinates have one decimal: a page
may hold hundreds of pictures.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from lowprec.report_html.markup import Html, element, finite, joined, significant

WIDTH, HEIGHT = 460.0, 250.0  # of a chart, in its own units; letters are 12 high
LEFT, RIGHT, TOP, BOTTOM = 46.0, 10.0, 12.0, 36.0
DEEPEST = 6.0  # times what the criterion allows: trials that lose more stand at the lower edge


def svg(title: str, width: float, height: float, *content: object, class_: str) -> Html:
    """Return a picture that scales with the page."""
    return element(
        "svg",
        element("title", title),
        *content,
        viewBox=f"0 0 {width:g} {height:g}",
        role="img",
        class_=class_,
    )


# ---- Ranges --------------------------------------------------------------------------------------


def range_picture(layer: Mapping[str, Any], histogram: Mapping[str, Any] | None) -> Html:
    """Return the histogram of what a layer reads, with the range that its codes cover.

    Heights are logarithms of the counts: what is cut off is little.
    """
    width, height, floor = 132.0, 30.0, 25.0
    rmin, rmax = finite(layer.get("rmin")), finite(layer.get("rmax"))
    counts, low, high = _bins(histogram)
    if rmin is None or rmax is None:
        return Html("")
    left, right = min(rmin, low if counts else rmin), max(rmax, high if counts else rmax)
    scale = (width - 2) / (right - left) if right > left else 0.0

    def x(value: float) -> float:
        return 1 + (value - left) * scale

    top = math.log1p(max(counts, default=0)) or 1.0
    step = (high - low) / len(counts) if counts else 0.0
    inside: list[tuple[float, float, float]] = []
    outside: list[tuple[float, float, float]] = []
    for index, count in enumerate(counts):
        if not count:
            continue
        start, end = low + index * step, low + (index + 1) * step
        bar = (x(start), max(x(end), x(start) + 0.6), floor - 22 * math.log1p(count) / top)
        middle = (start + end) / 2
        (inside if rmin <= middle <= rmax else outside).append(bar)
    title = f"codes hold {significant(rmin)} to {significant(rmax)}"
    if counts:
        title += f"; calibration saw {significant(low)} to {significant(high)}"
    return svg(
        title,
        width,
        height,
        element(
            "rect",
            x=_at(x(rmin)),
            y=1,
            width=_at(max(x(rmax) - x(rmin), 1)),
            height=_at(floor),
            class_="held",
        ),
        _bars(inside, floor, "seen"),
        _bars(outside, floor, "cut"),
        element("line", x1=_at(x(0)), x2=_at(x(0)), y1=_at(floor), y2=_at(height), class_="zero"),
        class_="range",
    )


def _bins(histogram: Mapping[str, Any] | None) -> tuple[list[float], float, float]:
    """Return counts and ends; no counts for what is missing or is no histogram."""
    if not isinstance(histogram, Mapping):
        return [], 0.0, 0.0
    low, high = finite(histogram.get("low")), finite(histogram.get("high"))
    found = histogram.get("counts")
    counts = [finite(count) for count in found] if isinstance(found, Sequence) else []
    if low is None or high is None or high <= low or not counts:
        return [], 0.0, 0.0
    return [max(count or 0.0, 0.0) for count in counts], low, high


def _bars(bars: Iterable[tuple[float, float, float]], floor: float, class_: str) -> Html:
    path = "".join(f"M{_at(a)} {_at(floor)}V{_at(y)}H{_at(b)}V{_at(floor)}Z" for a, b, y in bars)
    return element("path", d=path, class_=class_) if path else Html("")


# ---- Charts --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Series:
    """Values in the order of the layers.

    Attributes:
        name: For the legend.
        class_: For the style sheet.
        values: None where there is none.
    """

    name: str
    class_: str
    values: Sequence[float | None]


def layer_bars(title: str, unit: str, names: Sequence[str], series: Sequence[Series]) -> Html:
    """Return bars side by side, one group per layer, from the input to the output."""
    frame = _Frame.of([value for each in series for value in each.values], from_zero=True)
    group = frame.inner_width / max(len(names), 1)
    bar = group * 0.84 / len(series)
    marks = []
    for position, name in enumerate(names):
        for index, each in enumerate(series):
            value = each.values[position]
            if value is None:
                continue
            start = LEFT + position * group + group * 0.08 + index * bar
            y, zero = frame.y(value), frame.y(0)
            marks.append(
                element(
                    "rect",
                    x=_at(start),
                    y=_at(min(y, zero)),
                    width=_at(max(bar - 0.3, 0.5)),
                    height=_at(max(abs(zero - y), 0.5)),
                    class_=f"bar {each.class_}",
                )
            )
        spoken = ", ".join(
            f"{each.name} {significant(value)} {unit}"
            for each in series
            if (value := each.values[position]) is not None
        )
        marks.append(_hover(LEFT + position * group, group, f"{name}: {spoken}"))
    return _chart(title, unit, "layers, from input to output", frame, marks, series)


def layer_lines(title: str, unit: str, names: Sequence[str], series: Sequence[Series]) -> Html:
    """Return a line per series over the layers, from the input to the output."""
    frame = _Frame.of([value for each in series for value in each.values])
    step = frame.inner_width / max(len(names), 1)
    marks = []
    for each in series:
        path, pen = "", "M"
        for position, value in enumerate(each.values):
            if value is None:
                continue
            path += f"{pen}{_at(LEFT + (position + 0.5) * step)} {_at(frame.y(value))}"
            pen = "L"
        if path:
            marks.append(element("path", d=path, class_=f"curve {each.class_}"))
        marks += [
            element(
                "circle",
                cx=_at(LEFT + (position + 0.5) * step),
                cy=_at(frame.y(value)),
                r=2.2,
                class_=f"dot {each.class_}",
            )
            for position, value in enumerate(each.values)
            if value is not None
        ]
    for position, name in enumerate(names):
        spoken = ", ".join(
            f"{each.name} {value:.1f} {unit}"
            for each in series
            if (value := each.values[position]) is not None
        )
        marks.append(_hover(LEFT + position * step, step, f"{name}: {spoken}"))
    return _chart(title, unit, "layers, from input to output", frame, marks, series)


@dataclass(frozen=True)
class Point:
    """A trial in the picture: cost to the right, quality upwards.

    Attributes:
        cost: Latency or size.
        quality: Score, the better the higher.
        label: What the pointer shows.
        class_: "met", "missed", "best" or "original".
        efficient: Whether no other point is better in both.
        number: Written beside the point; empty for none.
    """

    cost: float
    quality: float
    label: str
    class_: str
    efficient: bool = False
    number: str = ""


def pareto_picture(
    title: str, cost: str, quality: str, points: Sequence[Point], limit: float | None
) -> Html:
    """Return the trials: what they cost and what they keep.

    Args:
        title: Of the picture.
        cost: Axis to the right, with its unit.
        quality: Axis upwards.
        points: The trials.
        limit: Quality that the criterion asks for; None draws no line.
    """
    lowest = _lowest_shown([point.quality for point in points], limit)
    points = [
        point if point.quality >= lowest else replace(point, quality=lowest, class_="below")
        for point in points
    ]
    vertical = _Frame.of([*(point.quality for point in points), limit])
    costs = _Frame.of([point.cost for point in points], margin=0.08)
    left = LEFT + 14

    def x(value: float) -> float:
        share = (value - costs.low) / (costs.high - costs.low)
        return left + share * (WIDTH - RIGHT - left)

    marks = []
    if limit is not None:
        y = _at(vertical.y(limit))
        marks.append(element("line", x1=_at(left), x2=WIDTH - RIGHT, y1=y, y2=y, class_="limit"))
    best = sorted((p for p in points if p.efficient), key=lambda p: (p.cost, p.quality))
    if len(best) > 1:
        path = f"M{_at(x(best[0].cost))} {_at(vertical.y(best[0].quality))}"
        path += "".join(f"H{_at(x(p.cost))}V{_at(vertical.y(p.quality))}" for p in best[1:])
        marks.append(element("path", d=path, class_="front"))
    labels: list[tuple[float, float]] = []
    # What is drawn last lies on top; what is labelled first keeps its number.
    numbered = {
        id(point)
        for point in sorted(points, key=lambda point: point.class_ != "best")
        if point.number and _is_free(labels, x(point.cost), vertical.y(point.quality))
    }
    for point in sorted(points, key=lambda point: point.class_ in ("best", "original")):
        cx, cy = x(point.cost), vertical.y(point.quality)
        if point.class_ == "best":
            shape = element("path", d=_star(cx, cy, 9), class_="point best")
        elif point.class_ == "original":
            d = f"M{_at(cx)} {_at(cy - 7)}l7 7-7 7-7-7Z"
            shape = element("path", d=d, class_="point original")
        elif point.class_ == "below":
            d = f"M{_at(cx)} {_at(cy + 5)}l-5-9h10Z"
            shape = element("path", d=d, class_="point below")
        elif point.class_ == "missed":
            d = f"M{_at(cx - 4)} {_at(cy - 4)}l8 8m0-8l-8 8"
            shape = element("path", d=d, class_="point missed")
        else:
            shape = element("circle", cx=_at(cx), cy=_at(cy), r=4.5, class_="point met")
        label = element(
            "text",
            point.number,
            x=_at(cx + (9 if cx < WIDTH - 60 else -9)),
            y=_at(cy - 6),
            text_anchor="start" if cx < WIDTH - 60 else "end",
            class_="small",
        )
        marks.append(
            element(
                "g", element("title", point.label), shape, label if id(point) in numbered else ""
            )
        )
    ticks = []
    for value in costs.ticks():
        tick = element(
            "text",
            costs.shown(value),
            x=_at(x(value)),
            y=HEIGHT - 20,
            text_anchor="middle",
        )
        ticks.append(tick)
    return svg(
        title,
        WIDTH,
        HEIGHT,
        vertical.drawn(left),
        *ticks,
        _axis_names(quality, cost),
        *marks,
        class_="chart",
    )


def _lowest_shown(qualities: Sequence[float], limit: float | None) -> float:
    """Return where the picture ends below: a ruined trial must not flatten all the others."""
    best = max(qualities, default=0.0)
    if limit is None or best <= limit:
        return min(qualities, default=0.0)
    return best - DEEPEST * (best - limit)


def _is_free(labels: list[tuple[float, float]], x: float, y: float) -> bool:
    """Return whether a number at (x, y) hides none before it; it is remembered then."""
    free = all(abs(x - a) > 18 or abs(y - b) > 12 for a, b in labels)
    if free:
        labels.append((x, y))
    return free


def _star(x: float, y: float, radius: float) -> str:
    corners = []
    for index in range(10):
        angle = math.pi * (index / 5 - 0.5)
        r = radius if index % 2 == 0 else radius * 0.45
        corners.append(f"{_at(x + r * math.cos(angle))} {_at(y + r * math.sin(angle))}")
    return "M" + "L".join(corners) + "Z"


# ---- Frames --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Frame:
    """A linear axis: [low, high] with room at the ends."""

    low: float
    high: float
    step: float

    @classmethod
    def of(
        cls, values: Iterable[float | None], *, from_zero: bool = False, margin: float = 0.05
    ) -> _Frame:
        known = [value for value in values if value is not None and math.isfinite(value)]
        low, high = (min(known), max(known)) if known else (0.0, 1.0)
        if from_zero:
            low, high = min(low, 0.0), max(high, 0.0)
        if high <= low:
            low, high = (low - abs(low) * 0.05 - 1e-6, high + abs(high) * 0.05 + 1e-6)
        room = (high - low) * margin
        low, high = (low if from_zero and low == 0 else low - room), high + room
        raw = (high - low) / 4
        unit = 10 ** math.floor(math.log10(raw))
        step = next(unit * factor for factor in (1, 2, 5, 10) if unit * factor >= raw * 0.999)
        return cls(low, high, step)

    @property
    def inner_width(self) -> float:
        return WIDTH - LEFT - RIGHT

    def y(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low)
        return HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM)

    def ticks(self) -> list[float]:
        first = math.ceil(self.low / self.step - 1e-9)
        last = math.floor(self.high / self.step + 1e-9)
        return [index * self.step for index in range(first, last + 1)]

    def shown(self, value: float) -> str:
        decimals = max(-math.floor(math.log10(self.step) + 1e-9), 0)
        return f"{value:,.{decimals}f}".replace("-", "−")

    def drawn(self, left: float = LEFT) -> Html:
        lines = []
        for value in self.ticks():
            y = self.y(value)
            lines += [
                element(
                    "line", x1=_at(left), x2=WIDTH - RIGHT, y1=_at(y), y2=_at(y), class_="grid"
                ),
                element(
                    "text", self.shown(value), x=_at(left - 5), y=_at(y + 4), text_anchor="end"
                ),
            ]
        return joined(lines)


def _chart(
    title: str,
    vertical: str,
    horizontal: str,
    frame: _Frame,
    marks: Sequence[Html],
    series: Sequence[Series],
) -> Html:
    picture = svg(
        title,
        WIDTH,
        HEIGHT,
        frame.drawn(),
        _axis_names(vertical, horizontal),
        *marks,
        class_="chart",
    )
    keys = [
        element("span", element("i", class_=f"key {each.class_}"), each.name, class_="legend")
        for each in series
    ]
    return joined([picture, element("p", *keys, class_="legends", aria_hidden="true")])


def _axis_names(vertical: str, horizontal: str) -> Html:
    middle = (TOP + HEIGHT - BOTTOM) / 2
    return joined(
        [
            element(
                "text",
                vertical,
                transform=f"translate(11 {middle:g}) rotate(-90)",
                text_anchor="middle",
                class_="axis",
            ),
            element(
                "text",
                horizontal,
                x=_at((LEFT + WIDTH - RIGHT) / 2),
                y=HEIGHT - 4,
                text_anchor="middle",
                class_="axis",
            ),
        ]
    )


def _hover(x: float, width: float, label: str) -> Html:
    area = element(
        "rect",
        element("title", label),
        x=_at(x),
        y=TOP,
        width=_at(width),
        height=HEIGHT - TOP - BOTTOM,
        class_="hover",
    )
    return Html(area)


def _at(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")
