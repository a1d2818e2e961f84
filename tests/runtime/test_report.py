"""The report is one well-formed file with everything inside."""

from __future__ import annotations

import base64
import io
from html.parser import HTMLParser

import pytest
from PIL import Image

from detc.runtime.charts import line_chart, ticks
from detc.runtime.report import Chart, ClassRow, Report, number

VOID = {"meta", "img", "line", "circle", "polyline", "i", "br"}


class Reader(HTMLParser):
    """Collects text and sources, and fails on tags that do not nest."""

    def __init__(self) -> None:
        super().__init__()
        self.stack: list[str] = []
        self.text = ""
        self.sources: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.sources += [v for k, v in attrs if k in ("src", "href")]
        if tag not in {"meta", "img"}:
            self.stack.append(tag)

    def handle_startendtag(self, tag, attrs):
        pass

    def handle_endtag(self, tag):
        assert self.stack.pop() == tag

    def handle_data(self, data):
        self.text += data


@pytest.fixture
def report() -> Report:
    return Report(
        title="quickstart <1>",
        facts={"device": "cpu & friends"},
        headline={"AP": "0.612"},
        metrics={"AP": 0.612, "AP large": -1.0, "objects": 1200},
        charts=[
            Chart(
                "AP by epoch", {"AP": [(1, 0.1), (2, float("nan")), (3, 0.6)], "AP50": [(1, 0.2), (3, 0.8)]}
            )
        ],
        classes=[ClassRow("disc", 0.7, 0.9, 31), ClassRow("star", float("nan"), float("nan"), 0)],
        pictures=[("a.jpg: 2 disc", Image.new("RGB", (900, 300), "red"))],
        spec='model X { where a < b else "no" }',
    )


def test_everything_is_inside(report, tmp_path):
    path = report.write(tmp_path / "deep" / "report.html")
    reader = Reader()
    reader.feed(path.read_text(encoding="utf-8"))
    assert reader.stack == []
    for text in (
        "quickstart <1>",
        "cpu & friends",
        "0.612",
        "1,200",
        "disc",
        "a.jpg: 2 disc",
        "where a < b",
        "AP50",
    ):
        assert text in reader.text
    assert len(reader.sources) == 1
    head, data = reader.sources[0].split(",")
    assert head == "data:image/jpeg;base64"
    assert Image.open(io.BytesIO(base64.b64decode(data))).size == (640, 213)


def test_empty_parts_are_left_out():
    text = Report("only a title").html()
    assert "<table" not in text and "Pictures" not in text and "<svg" not in text


def test_numbers():
    assert [number(v) for v in (0.5, -1.0, float("nan"), 12, 3.0, 12345.6)] == [
        "0.500",
        "–",
        "–",
        "12",
        "3",
        "12,346",
    ]


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1.0]), (0, 37, [0, 10, 20, 30]), (1, 60, [20, 40, 60]), (3, 3, [3])],
)
def test_ticks_are_round(low, high, expected):
    assert ticks(low, high) == pytest.approx(expected)


def test_charts():
    one = line_chart({"a": [(0, 1)]}, x_label="x", y_label="y")
    assert one.count("<circle") == 1 and "legend" not in one
    flat = line_chart({"a": [(0, 0.0), (1, 0.0)]}, x_label="x", y_label="y")
    assert "nan" not in flat
    with pytest.raises(ValueError, match="finite"):
        line_chart({"a": [(0, float("inf"))]}, x_label="x", y_label="y")
