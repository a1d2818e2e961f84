"""The table of models: counts that can be done by hand, and a page of which only the table changes."""

from __future__ import annotations

from pathlib import Path

import pytest

from detc.compiler.check import check
from detc.compiler.program import build
from detc.dsl.diagnostics import DetError
from detc.runtime.cost import multiply_adds, parameters
from detc.runtime.model_table import BEGIN, END, HEAD, Row, measure_spec, read_rows, update

NET = """det 1
import std.ops { BatchNorm, Conv2d, DeformConv2d, Flatten, Linear }

model Net {
  input image: image
  node conv = Conv2d(8, kernel = 3, stride = 2)
  node norm = BatchNorm()
  node deep = DeformConv2d(4, kernel = 3)
  output y: map = image -> conv -> norm -> relu() -> deep
}
run { model = Net() target = small() }
target small { image = 64x32 }
"""
PAGE = f"# Models\n\nAbove.\n\n{BEGIN}\n{END}\n\nBelow.\n"


def test_multiply_adds_are_those_of_the_products() -> None:
    program = build(check(NET).run())
    conv = 3 * 9 * 8 * 16 * 32
    offsets, deform = 8 * 9 * 27 * 16 * 32, 8 * 9 * 4 * 16 * 32
    assert multiply_adds(program, 32, 64) == conv + offsets + deform
    assert multiply_adds(program, 64, 64) == 2 * (conv + offsets + deform)
    assert parameters(program) == (3 * 9 * 8 + 8) + 2 * 8 + (8 * 9 * 27 + 27) + (8 * 9 * 4 + 4)
    assert program.model.training, "the mode is as it was"


def row(spec: str, run: str, count: int) -> Row:
    return Row(spec, run, count, 640, 480, 12.345, 6.78, 123.4)


def test_rows_are_replaced_and_the_rest_of_the_page_stays(tmp_path: Path) -> None:
    page = tmp_path / "models.md"
    page.write_text(PAGE)
    update(page, [row("b.det", "s", 1000), row("b.det", "l", 2000)])
    update(page, [row("a.det", "", 5), row("b.det", "s", 1234567)])
    text = page.read_text()
    assert text.startswith("# Models\n\nAbove.\n") and text.endswith("\nBelow.\n")
    rows = list(read_rows(text).values())
    assert rows == [
        ("a.det", "-", "5", "640x480", "12.35", "6.8", "123"),
        ("b.det", "s", "1,234,567", "640x480", "12.35", "6.8", "123"),
        ("b.det", "l", "2,000", "640x480", "12.35", "6.8", "123"),
    ]
    lines = text[text.index(BEGIN) : text.index(END)].splitlines()[1:]
    assert len({len(line) for line in lines}) == 1, "columns stand below each other"


@pytest.mark.parametrize(
    "text", ["no place", f"{END}\n{BEGIN}\n", f"{BEGIN}\n| a | b |\n|---|---|\n{END}\n", PAGE + PAGE]
)
def test_a_page_without_a_place_is_left_alone(text: str, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(text)
    with pytest.raises(DetError) as caught:
        update(page, [row("a.det", "", 5)])
    assert caught.value.diagnostics[0].code == "DET0906"
    assert page.read_text() == text


def test_a_spec_is_measured_run_by_run(tmp_path: Path) -> None:
    spec = tmp_path / "net.det"
    spec.write_text(NET)
    (found,) = measure_spec(spec, latency=False)
    assert (found.spec, found.run, found.width, found.height) == ("net.det", "", 64, 32)
    assert found.onnx_mb is None and found.ms is None and found.gmacs > 0
    assert len(found.cells()) == len(HEAD)
