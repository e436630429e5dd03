"""Inline SVG charts: colours come from the page's CSS classes, so that they follow light and dark."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

Points = Sequence[Sequence[float]]


@dataclass(frozen=True)
class Series:
    """A line: its label, points (x, y), CSS class, and whether each point gets a dot."""

    label: str
    points: Points
    style: str
    dots: bool = False


@dataclass(frozen=True)
class _Frame:
    """Maps data to the drawing: x and y ranges onto the inner box."""

    x: tuple[float, float]
    y: tuple[float, float]
    width: int
    height: int
    left: int = 46
    right: int = 10
    top: int = 10
    bottom: int = 26

    def at(self, x: float, y: float) -> tuple[float, float]:
        across = (x - self.x[0]) / ((self.x[1] - self.x[0]) or 1)
        up = (y - self.y[0]) / ((self.y[1] - self.y[0]) or 1)
        inner_width, inner_height = self.width - self.left - self.right, self.height - self.top - self.bottom
        return round(self.left + across * inner_width, 1), round(self.top + (1 - up) * inner_height, 1)


def ticks(low: float, high: float, about: int = 4) -> list[float]:
    """Round numbers between two values, about as many as asked for."""
    span = high - low
    if not span > 0:
        return [low]
    raw = span / about
    unit = 10.0 ** math.floor(math.log10(raw))
    step = next(unit * factor for factor in (1, 2, 2.5, 5, 10) if unit * factor >= raw * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(number * step, 12) for number in range(first, last + 1)]


def short(value: float | None) -> str:
    """A number in few characters: 12,300 is 12.3k."""
    if value is None:
        return "–"
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= limit:
            return f"{value / (1e3 if unit == 'k' else limit):.3g}{unit}"
    if value and abs(value) < 1e-3:
        return f"{value:.1e}".replace("e-0", "e-")
    return f"{value:,.4g}" if abs(value) < 1000 else f"{value:,.0f}"


def _axes(frame: _Frame, x_ticks: Sequence[float], y_ticks: Sequence[float]) -> list[Markup]:
    parts = []
    base = frame.height - frame.bottom
    for value in y_ticks:
        _, y = frame.at(frame.x[0], value)
        line = '<line class="grid" x1="{}" y1="{}" x2="{}" y2="{}"/><text class="tick end" x="{}" y="{}">{}</text>'
        parts.append(
            Markup(line).format(frame.left, y, frame.width - frame.right, y, frame.left - 6, y + 3.5, short(value))
        )
    for value in x_ticks:
        x, _ = frame.at(value, frame.y[0])
        parts.append(Markup('<text class="tick mid" x="{}" y="{}">{}</text>').format(x, base + 16, short(value)))
    parts.append(
        Markup('<line class="axis" x1="{}" y1="{}" x2="{}" y2="{}"/>').format(
            frame.left, base, frame.width - frame.right, base
        )
    )
    return parts


def _svg(frame: _Frame, label: str, parts: Sequence[Markup]) -> Markup:
    head = '<svg viewBox="0 0 {} {}" role="img" aria-label="{}">'
    return Markup(head).format(frame.width, frame.height, label) + Markup("").join(parts) + Markup("</svg>")


def _range(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    pad = (high - low) * 0.05 or abs(high) * 0.05 or 0.5
    return (max(0.0, low - pad) if low >= 0 else low - pad), high + pad


def lines(series: Sequence[Series], label: str, width: int = 460, height: int = 230) -> Markup:
    """A line chart over steps; empty markup where there is no point."""
    series = [one for one in series if one.points]
    xs = [point[0] for one in series for point in one.points]
    ys = [point[1] for one in series for point in one.points]
    if not xs:
        return Markup("")
    frame = _Frame((min(0.0, *xs), max(xs)) if len(xs) > 1 else (0.0, xs[0] or 1.0), _range(ys), width, height)
    parts = _axes(frame, ticks(*frame.x, about=max(2, width // 90)), ticks(*frame.y, about=max(2, height // 48)))
    for one in series:
        places = [frame.at(x, y) for x, y in one.points]
        path = " ".join(f"{x},{y}" for x, y in places)
        parts.append(Markup('<polyline class="line {}" points="{}"/>').format(one.style, path))
        if one.dots or len(places) == 1:
            parts += [_dot(place, point, one) for place, point in zip(places, one.points, strict=True)]
    return _svg(frame, label, parts)


def _dot(place: tuple[float, float], point: Sequence[float], one: Series) -> Markup:
    dot = '<circle class="dot {}" cx="{}" cy="{}" r="3"><title>{} at {}: {}</title></circle>'
    return Markup(dot).format(one.style, *place, one.label, short(point[0]), short(point[1]))


def smoothed(points: Points, share: float = 0.04) -> list[list[float]]:
    """A centred moving average over ``share`` of the curve; it narrows toward the ends, so that it never lags."""
    half = max(1, round(len(points) * share / 2))
    values = [point[1] for point in points]
    found = []
    for index, (x, _) in enumerate(points):
        reach = min(half, index, len(points) - 1 - index)
        window = values[index - reach : index + reach + 1]
        found.append([x, sum(window) / len(window)])
    return found


def histogram(data: dict[str, Any], label: str, width: int = 300, height: int = 132) -> Markup:
    """Kept and dropped documents stacked over a score, its thresholds as lines with the dropping side shaded."""
    low, high = data["edges"]
    stacks = [data["counts"].get(name) or [] for name in ("kept", "dropped")]
    bins = max(map(len, stacks), default=0)
    if not bins:
        return Markup("")
    stacks = [stack or [0] * bins for stack in stacks]
    most = max(map(sum, zip(*stacks, strict=True))) or 1
    frame = _Frame((low, high), (0, most * 1.05), width, height, left=34, right=8, top=12, bottom=20)
    parts = [_shade(frame, limit) for limit in data["thresholds"] if low <= limit["value"] <= high]
    parts += _axes(frame, ticks(low, high, 4), ticks(0, most, 2))
    step = (high - low) / bins
    for number in range(bins):
        base = 0.0
        for style, stack in zip(("kept", "dropped"), stacks, strict=True):
            if stack[number]:
                parts.append(_bar(frame, low + number * step, step, base, stack[number], style))
                base += stack[number]
    parts += [_limit(frame, limit) for limit in data["thresholds"] if low <= limit["value"] <= high]
    return _svg(frame, label, parts)


def _bar(frame: _Frame, start: float, step: float, base: float, count: float, style: str) -> Markup:
    left, top = frame.at(start, base + count)
    right, bottom = frame.at(start + step, base)
    bar = '<rect class="bar {}" x="{}" y="{}" width="{}" height="{}"><title>{} to {}: {} {}</title></rect>'
    size = round(max(right - left - 0.7, 0.7), 1), round(bottom - top, 1)
    return Markup(bar).format(style, left, top, *size, short(start), short(start + step), f"{count:,}", style)


def _shade(frame: _Frame, limit: dict[str, Any]) -> Markup:
    x, top = frame.at(limit["value"], frame.y[1])
    _, bottom = frame.at(limit["value"], 0)
    left, right = (frame.left, x) if limit["bound"] == "min" else (x, frame.width - frame.right)
    if limit["bound"] not in ("min", "max"):
        return Markup("")
    shade = '<rect class="shade" x="{}" y="{}" width="{}" height="{}"/>'
    return Markup(shade).format(left, top, round(max(right - left, 0), 1), round(bottom - top, 1))


def _limit(frame: _Frame, limit: dict[str, Any]) -> Markup:
    x, top = frame.at(limit["value"], frame.y[1])
    _, bottom = frame.at(limit["value"], 0)
    line = '<line class="limit" x1="{}" y1="{}" x2="{}" y2="{}"><title>{} {}</title></line>'
    return Markup(line).format(x, top - 4, x, bottom, limit["bound"], short(limit["value"]))
