"""The table of models in a Markdown page: what each run of some specs costs, measured and written between markers.

A row is known by its spec and run: measuring some specs again replaces their rows and keeps the others.
"""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from detc.dsl.diagnostics import DetError, error

if TYPE_CHECKING:
    from detc.compiler.experiments.runs import ResolvedRun

BEGIN = "<!-- begin: detc run table -->"
END = "<!-- end: detc run table -->"
HEAD = ("spec", "run", "parameters", "input", "GMACs", "ONNX, MB", "ms")


@dataclass(frozen=True)
class Row:
    """One run: see `HEAD`. `width` x `height` is the network's input; `ms` the median latency of one image."""

    spec: str
    run: str
    parameters: int
    width: int
    height: int
    gmacs: float
    onnx_mb: float | None
    ms: float | None

    def cells(self) -> tuple[str, ...]:
        """The row as text."""
        return (
            self.spec,
            self.run or "-",
            f"{self.parameters:,}",
            f"{self.width}x{self.height}",
            f"{self.gmacs:.2f}",
            "-" if self.onnx_mb is None else f"{self.onnx_mb:.1f}",
            "-" if self.ms is None else f"{self.ms:.0f}" if self.ms >= 100 else f"{self.ms:.1f}",
        )


def measure_spec(
    path: Path, *, threads: int = 2, latency: bool = True, runs: tuple[str, ...] = ()
) -> Iterable[Row]:
    """Measure all runs of a spec, or the named ones.

    Args:
        path: a `.det` file.
        threads: of ONNX Runtime.
        latency: also export to ONNX and time it; otherwise only count.
        runs: names of runs.

    Raises:
        DetError: with the errors of the spec or of an export.
    """
    from detc.compiler.check import check

    result = check(str(path))
    if result.report.errors:
        raise DetError(*result.report.errors)
    for name in runs or tuple(result.runs):
        yield measure_run(result.run(name or None), path.name, name, threads, latency)


def measure_run(run: ResolvedRun, spec: str, name: str, threads: int, latency: bool) -> Row:
    """One row. The input is that of a deployed graph: the size of the data's `val` pipeline."""
    from detc.compiler.backends.deploy import DEFAULT_BOX, preprocessing
    from detc.compiler.program import build
    from detc.runtime.bench import measure
    from detc.runtime.cost import multiply_adds, parameters
    from detc.runtime.export import export_onnx

    program = build(run, seed=0)
    height, width = preprocessing(run, run.target).box or DEFAULT_BOX
    count, macs = parameters(program), multiply_adds(program, height, width)
    size = time = None
    if latency:
        import numpy as np
        import torch

        from detc.runtime.onnx import load_onnx

        program.model.eval()
        with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            file = Path(folder) / "model.onnx"
            data = export_onnx(program, run.target).SerializeToString()
            file.write_bytes(data)
            del program
            detector = load_onnx(file, device="cpu", threads=threads)
            pixels = np.random.default_rng(0).integers(0, 256, (1, 3, height, width), dtype=np.uint8)
            image = torch.from_numpy(pixels)
            size = len(data) / 1e6
            time = measure(lambda: detector(image), warmup=2, runs=5, seconds=2.0).median
    return Row(spec, name, count, width, height, macs / 1e9, size, time)


def render(rows: Iterable[tuple[str, ...]]) -> str:
    """A Markdown table, numbers to the right."""
    lines = [HEAD, *rows]
    widths = [max(len(line[i]) for line in lines) for i in range(len(HEAD))]

    def line(cells: tuple[str, ...]) -> str:
        padded = (
            c.ljust(w) if i < 2 else c.rjust(w) for i, (c, w) in enumerate(zip(cells, widths, strict=True))
        )
        return f"| {' | '.join(padded)} |"

    rule = "|".join("-" * (w + 2) if i < 2 else "-" * (w + 1) + ":" for i, w in enumerate(widths))
    return "\n".join([line(HEAD), f"|{rule}|", *(line(r) for r in lines[1:])])


def read_rows(text: str) -> dict[tuple[str, str], tuple[str, ...]]:
    """The rows between the markers of a page, by spec and run.

    Raises:
        DetError: DET0906 if the page has no markers, or what stands between them is no such table.
    """
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(BEGIN) > text.index(END):
        raise error(
            "DET0906",
            "the page has no place for the table",
            help=f"write these two lines where it belongs:\n{BEGIN}\n{END}",
        )
    body = text[text.index(BEGIN) + len(BEGIN) : text.index(END)]
    lines = [line.strip() for line in body.strip().splitlines()]
    if not lines:
        return {}
    table = [tuple(c.strip() for c in line.strip("|").split("|")) for line in lines]
    if table[0] != HEAD or any(len(row) != len(HEAD) for row in table):
        raise error("DET0906", f"what stands between the markers is no table of {', '.join(HEAD)}")
    return {(row[0], row[1]): row for row in table[2:]}


def update(page: Path, rows: Iterable[Row], *, wrote: Callable[[Row], None] | None = None) -> None:
    """Measure row after row and put each into the page at once, so that nothing is lost when one fails.

    Rows stand by spec; those of one spec in the order of its runs.

    Raises:
        DetError: DET0906 if the page cannot take the table.
    """
    read_rows(page.read_text(encoding="utf-8"))
    for row in rows:
        text = page.read_text(encoding="utf-8")  # others may have edited the rest of the page meanwhile
        known = read_rows(text)
        known[row.spec, row.cells()[1]] = row.cells()
        by_spec = sorted(known.values(), key=lambda cells: cells[0])
        start, end = text.index(BEGIN) + len(BEGIN), text.index(END)
        page.write_text(f"{text[:start]}\n{render(by_spec)}\n{text[end:]}", encoding="utf-8")
        if wrote is not None:
            wrote(row)
