"""The HTML report of a run: one file that opens anywhere.

Curves are inline SVG and pictures are inline JPEG, so the file can be sent by mail and needs no network.
"""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from detc.runtime.charts import Points, bar, line_chart

if TYPE_CHECKING:
    from PIL import Image

PICTURE_SIZE = 640  # pixels of the longer side inside the report


@dataclass(frozen=True)
class Chart:
    """A titled line chart; `series` maps names to (x, y) points."""

    title: str
    series: Mapping[str, Points]
    x_label: str = "epoch"
    y_label: str = ""
    y_range: tuple[float, float] | None = None


@dataclass(frozen=True)
class ClassRow:
    """One line of the table of classes; AP values are NaN where there is none."""

    name: str
    ap: float
    ap50: float
    objects: int | None = None


@dataclass(frozen=True)
class Report:
    """What a report shows; empty parts are left out.

    Attributes:
        title: the heading.
        facts: small print below it: date, device, command, versions.
        headline: the few numbers that matter, large.
        metrics: all numbers of the evaluation, in order.
        charts: curves over time.
        classes: results class by class.
        pictures: captions and drawn images.
        spec: the resolved spec.
    """

    title: str
    facts: Mapping[str, str] = field(default_factory=dict)
    headline: Mapping[str, str] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    charts: Sequence[Chart] = ()
    classes: Sequence[ClassRow] = ()
    pictures: Sequence[tuple[str, Image.Image]] = ()
    spec: str = ""

    def html(self) -> str:
        """The whole document."""
        parts = [self._head(), self._charts(), self._tables(), self._pictures(), self._spec()]
        body = "\n".join(p for p in parts if p)
        return _PAGE.replace("@title@", escape(self.title)).replace("@body@", body)

    def write(self, path: str | Path) -> Path:
        """Write the document and return its path."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(self.html(), encoding="utf-8")
        return path

    def _head(self) -> str:
        facts = " · ".join(f"{escape(k)} <b>{escape(v)}</b>" for k, v in self.facts.items())
        tiles = "".join(
            f"<div><strong>{escape(v)}</strong><span>{escape(k)}</span></div>"
            for k, v in self.headline.items()
        )
        return f'<h1>{escape(self.title)}</h1><p class="facts">{facts}</p><div class="tiles">{tiles}</div>'

    def _charts(self) -> str:
        drawn = []
        for c in self.charts:
            chart = line_chart(c.series, x_label=c.x_label, y_label=c.y_label or c.title, y_range=c.y_range)
            drawn.append(f"<figure><figcaption>{escape(c.title)}</figcaption>{chart}</figure>")
        return f'<section class="charts">{"".join(drawn)}</section>' if drawn else ""

    def _tables(self) -> str:
        out = ""
        if self.metrics:
            rows = "".join(
                f"<tr><td>{escape(k)}</td><td class=n>{number(v)}</td></tr>" for k, v in self.metrics.items()
            )
            out += f"<div><h2>Metrics</h2><table>{rows}</table></div>"
        if self.classes:
            rows = "".join(map(class_row, self.classes))
            head = "<tr><th>class</th><th>objects</th><th>AP</th><th></th><th>AP50</th></tr>"
            out += f"<div><h2>Classes</h2><table>{head}{rows}</table></div>"
        return f'<section class="tables">{out}</section>' if out else ""

    def _pictures(self) -> str:
        shown = "".join(
            f'<figure><img src="{data_uri(image)}" alt="{escape(caption)}">'
            f"<figcaption>{escape(caption)}</figcaption></figure>"
            for caption, image in self.pictures
        )
        return f'<h2>Pictures</h2><section class="pictures">{shown}</section>' if shown else ""

    def _spec(self) -> str:
        if not self.spec:
            return ""
        return (
            f"<h2>Spec</h2><details><summary>resolved spec</summary><pre>{escape(self.spec)}</pre></details>"
        )


def class_row(row: ClassRow) -> str:
    """A line of the table of classes."""
    objects = "" if row.objects is None else f"{row.objects:,}"
    return (
        f"<tr><td>{escape(row.name)}</td><td class=n>{objects}</td><td class=n>{number(row.ap)}</td>"
        f"<td>{bar(row.ap)}</td><td class=n>{number(row.ap50)}</td></tr>"
    )


def number(value: float) -> str:
    """Three decimals for fractions, none for counts, a dash for what was not measured (NaN or -1)."""
    if not math.isfinite(value) or value == -1:
        return "–"
    if isinstance(value, int) or (float(value).is_integer() and abs(value) >= 2):
        return f"{int(value):,}"
    return f"{value:.3f}" if abs(value) < 1000 else f"{value:,.0f}"


def data_uri(image: Image.Image) -> str:
    """The image, made small enough for a page, as a JPEG `data:` address."""
    from PIL import Image, ImageOps

    size = (PICTURE_SIZE, PICTURE_SIZE)
    small = image.convert("RGB")
    if max(small.size) > PICTURE_SIZE:
        small = ImageOps.contain(small, size, Image.Resampling.LANCZOS)
    stream = io.BytesIO()
    small.save(stream, "JPEG", quality=88)
    return "data:image/jpeg;base64," + base64.b64encode(stream.getvalue()).decode("ascii")


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>@title@</title><style>
:root { --ink: #1d2330; --dim: #667085; --line: #e3e6ec; --paper: #fff; --tint: #f5f7fa; --accent: #3f7fd0 }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e9ef; --dim: #98a2b3; --line: #343b4a; --paper: #171b24; --tint: #1f2531 } }
* { box-sizing: border-box }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper);
  max-width: 1280px; margin: 0 auto; padding: 32px 24px }
h1 { font-size: 26px; margin: 0 } h2 { font-size: 18px; margin: 32px 0 12px }
.facts { color: var(--dim); margin: 4px 0 20px } .facts b { color: var(--ink); font-weight: 500 }
.tiles { display: flex; flex-wrap: wrap; gap: 12px }
.tiles div { background: var(--tint); border-radius: 10px; padding: 12px 20px; min-width: 130px }
.tiles strong { display: block; font-size: 26px; font-weight: 600 } .tiles span { color: var(--dim) }
.charts { display: grid; gap: 20px; margin-top: 28px;
  grid-template-columns: repeat(auto-fit, minmax(380px, 1fr)) }
figure { margin: 0 } figcaption { color: var(--dim); font-size: 13px; overflow-wrap: anywhere }
svg { width: 100%; height: auto } svg text { font-size: 12px; fill: var(--dim) } .grid { stroke: var(--line) }
.legend { display: flex; gap: 16px; margin: 0 0 0 56px; font-size: 13px; flex-wrap: wrap }
.legend i { display: inline-block; width: 10px; height: 10px; border-radius: 2px; margin-right: 6px }
.tables { display: flex; flex-wrap: wrap; gap: 48px }
table { border-collapse: collapse } td, th { padding: 4px 14px 4px 0; border-bottom: 1px solid var(--line) }
th { text-align: left; font-weight: 500; color: var(--dim) }
.n { text-align: right; font-variant-numeric: tabular-nums }
.bar { display: inline-block; width: 140px; height: 8px; border-radius: 4px; background: var(--tint) }
.bar i { display: block; height: 8px; border-radius: 4px; background: var(--accent) }
.pictures { display: grid; grid-template-columns: repeat(auto-fill, minmax(280px, 1fr)); gap: 14px }
.pictures img { width: 100%; border-radius: 8px; display: block }
pre { background: var(--tint); padding: 16px; border-radius: 8px; overflow: auto; font-size: 13px }
</style></head><body>
@body@
</body></html>
"""
