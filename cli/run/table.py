"""`detc run table`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from detc.cli.console import command

if TYPE_CHECKING:
    from detc.runtime.model_table import Row

app = command()


@app.command()
def table(
    page: Annotated[
        Path, typer.Argument(metavar="PAGE", exists=True, dir_okay=False, help="A Markdown file.")
    ],
    specs: Annotated[list[Path], typer.Argument(metavar="SPECS...", exists=True, help=".det files.")],
    run: Annotated[
        list[str], typer.Option("--run", metavar="NAME", help="Only these runs; repeatable.")
    ] = [],  # noqa: B006
    threads: Annotated[int, typer.Option("--threads", min=1, help="Of ONNX Runtime.")] = 2,
    latency: Annotated[bool, typer.Option(help="Export to ONNX and time it; or only count.")] = True,
) -> None:
    """Measure runs of specs and put them into a page's table: parameters, multiply-adds, ONNX size, latency.

    The table stands between the lines `<!-- begin: detc run table -->` and `<!-- end: detc run table -->`; rows of
    other specs stay as they are.
    """
    from detc.runtime.model_table import measure_spec, update

    def wrote(row: Row) -> None:
        print("  ".join(row.cells()), flush=True)

    for spec in specs:
        update(page, measure_spec(spec, threads=threads, latency=latency, runs=tuple(run)), wrote=wrote)
