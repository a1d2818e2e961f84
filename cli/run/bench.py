"""`detc run bench`."""

from __future__ import annotations

import warnings
from typing import Annotated

import typer

from detc.cli.console import Json, Run, Sets, command, print_json, table
from detc.cli.run.options import Device, Model, Weights

app = command()


@app.command()
def bench(
    model: Model,
    size: Annotated[str, typer.Option("--size", help="WIDTHxHEIGHT, or one number.")] = "640",
    batch: Annotated[int, typer.Option("--batch", min=1)] = 1,
    threads: Annotated[int | None, typer.Option("--threads", min=1, help="All cores by default.")] = None,
    runs: Annotated[int, typer.Option("--runs", min=1, help="At least so many timed calls.")] = 20,
    seconds: Annotated[float, typer.Option("--seconds", min=0, help="At least so long.")] = 1.0,
    warmup: Annotated[int, typer.Option("--warmup", min=0)] = 3,
    weights: Weights = None,
    run: Run = None,
    sets: Sets = [],  # noqa: B006
    device: Device = None,
    json: Json = False,
) -> None:
    """Measure latency, throughput and memory, from uint8 pixels to boxes."""
    from detc.runtime.bench import bench as measure

    width, height = parse_size(size)
    warnings.simplefilter("ignore", UserWarning)  # random weights are as fast as others
    result = measure(
        model,
        sets=sets,
        run=run,
        weights=None if weights is None else str(weights),
        size=(height, width),
        batch=batch,
        threads=threads,
        device=device,
        warmup=warmup,
        runs=runs,
        seconds=seconds,
    )
    if json:
        print_json(result.to_dict())
    else:
        table(result.rows())


def parse_size(text: str) -> tuple[int, int]:
    """`640` or `1333x800` to (width, height)."""
    parts = text.lower().split("x")
    if len(parts) > 2 or not all(p.isdecimal() and int(p) > 0 for p in parts):
        raise typer.BadParameter(f"`{text}` is no size; write 640 or 1333x800", param_hint="--size")
    return int(parts[0]), int(parts[-1])
