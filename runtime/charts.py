"""Small charts as SVG text, for reports that must open without a server, a script or a library."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape

from detc.runtime.draw import oklch

Points = Sequence[tuple[float, float]]
WIDTH, HEIGHT = 620, 300
LEFT, RIGHT, TOP, BOTTOM = 56, 16, 16, 40
MARKED = 40  # a line of at most so many points has a dot on each


def series_color(index: int) -> str:
    """The CSS colour of the series `index`; readable on light and on dark paper."""
    r, g, b = oklch(0.66, 0.16, 250.0 + index * 137.50776)
    return f"rgb({r},{g},{b})"


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Round numbers (1, 2 or 5 times a power of ten apart) from `low` to `high`, about `count` of them."""
    span = high - low
    if span <= 0:
        return [low]
    raw = span / max(count, 1)
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [round(i * step, 12) for i in range(first, last + 1)]


@dataclass(frozen=True)
class _Axes:
    """Data coordinates to pixels."""

    x_low: float
    x_high: float
    y_low: float
    y_high: float

    def at(self, x: float, y: float) -> tuple[float, float]:
        """The pixel of a point; `y` is held inside the axes."""
        across = (x - self.x_low) / (self.x_high - self.x_low) if self.x_high > self.x_low else 0.5
        up = (min(max(y, self.y_low), self.y_high) - self.y_low) / (self.y_high - self.y_low or 1.0)
        return LEFT + across * (WIDTH - LEFT - RIGHT), HEIGHT - BOTTOM - up * (HEIGHT - TOP - BOTTOM)

    def svg(self, x_label: str, y_label: str) -> Iterator[str]:
        """Grid lines, numbers and axis titles."""
        for y in ticks(self.y_low, self.y_high):
            _, py = self.at(self.x_low, y)
            yield f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{py:.1f}" y2="{py:.1f}"/>'
            yield f'<text x="{LEFT - 6}" y="{py + 4:.1f}" text-anchor="end">{y:g}</text>'
        for x in ticks(self.x_low, self.x_high, 8):
            px, _ = self.at(x, self.y_low)
            yield f'<text x="{px:.1f}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle">{x:g}</text>'
        center, middle = (LEFT + WIDTH - RIGHT) / 2, (TOP + HEIGHT - BOTTOM) / 2
        yield f'<text x="{center}" y="{HEIGHT - 6}" text-anchor="middle">{escape(x_label)}</text>'
        turned = f"translate(14 {middle}) rotate(-90)"
        yield f'<text transform="{turned}" text-anchor="middle">{escape(y_label)}</text>'


def line_chart(
    series: Mapping[str, Points],
    *,
    x_label: str,
    y_label: str,
    y_range: tuple[float, float] | None = None,
) -> str:
    """An SVG line chart of named series, with a legend if there are several.

    Points that are not finite are left out.

    Raises:
        ValueError: if there is no finite point at all.
    """
    finite = {name: [(x, y) for x, y in points if math.isfinite(x + y)] for name, points in series.items()}
    finite = {name: points for name, points in finite.items() if points}
    if not finite:
        raise ValueError("a chart needs at least one finite point")
    xs = [x for points in finite.values() for x, _ in points]
    ys = [y for points in finite.values() for _, y in points]
    axes = _Axes(min(xs), max(xs), *(y_range or (min(0.0, *ys), max(ys) * 1.05 or 1.0)))
    label = f"{escape(y_label)} by {escape(x_label)}"
    out = [
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{label}">',
        *axes.svg(x_label, y_label),
    ]
    for i, (name, points) in enumerate(finite.items()):
        out += _line(name, points, series_color(i), axes)
    return "".join([*out, "</svg>", _legend(list(finite)) if len(finite) > 1 else ""])


def _line(name: str, points: Points, color: str, axes: _Axes) -> Iterator[str]:
    pixels = [axes.at(x, y) for x, y in points]
    path = " ".join(f"{px:.1f},{py:.1f}" for px, py in pixels)
    yield f'<polyline points="{path}" fill="none" stroke="{color}" stroke-width="2"/>'
    if len(points) <= MARKED:
        for (x, y), (px, py) in zip(points, pixels, strict=True):
            title = f"<title>{escape(name)} {y:.4g} at {x:g}</title>"
            yield f'<circle cx="{px:.1f}" cy="{py:.1f}" r="2.5" fill="{color}">{title}</circle>'


def _legend(names: list[str]) -> str:
    keys = [
        f'<span><i style="background:{series_color(i)}"></i>{escape(n)}</span>' for i, n in enumerate(names)
    ]
    return f'<p class="legend">{"".join(keys)}</p>'


def bar(value: float, maximum: float = 1.0) -> str:
    """A horizontal bar for a table cell."""
    share = 0.0 if not math.isfinite(value) or maximum <= 0 else min(max(value / maximum, 0.0), 1.0)
    return f'<span class="bar"><i style="width:{100 * share:.1f}%"></i></span>'
