"""`detc run val`."""

from __future__ import annotations

from typing import Annotated

import typer

from detc.cli.console import Json, Run, Sets, chosen_run, command, print_json, table
from detc.cli.run.options import Device, Model, Weights, track_rows

app = command()


@app.command()
def val(
    spec: Model,
    weights: Weights = None,
    run: Run = None,
    sets: Sets = [],  # noqa: B006
    split: Annotated[str, typer.Option("--split", help="val, test or train.")] = "val",
    device: Device = None,
    batch: Annotated[int, typer.Option("--batch", min=1)] = 16,
    workers: Annotated[int, typer.Option("--workers", min=0)] = 0,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="Only so many images.")] = None,
    json: Json = False,
) -> None:
    """Evaluate weights on a split: COCO average precision, over all classes and for each."""
    from detc.runtime.evaluate import evaluate_file
    from detc.runtime.run_report import NAMES

    if weights is None and spec.endswith(".det") and chosen_run(spec, sets, run).weights is None:
        raise typer.BadParameter(
            'a spec needs --weights, or `model = … from "…"`; a checkpoint holds its own',
            param_hint="--weights",
        )
    metrics = evaluate_file(
        spec,
        weights=weights,
        run=run,
        sets=sets,
        split=split,
        device=device,
        batch=batch,
        workers=workers,
        limit=limit,
    )
    if json:
        print_json(metrics)
        return
    table([(label, f"{metrics[key]:.4f}") for key, label in NAMES.items() if metrics.get(key, -1) >= 0])
    tracks = {k.removeprefix("tracks/"): v for k, v in metrics.items() if k.startswith("tracks/")}
    if tracks:
        print("\nTracks")
        table(track_rows(tracks))
    classes = {key.removeprefix("ap/"): value for key, value in metrics.items() if key.startswith("ap/")}
    if len(classes) > 1:
        print("\nAP 50:95 by class")
        table([(name, f"{value:.4f}" if value >= 0 else "no object") for name, value in classes.items()])
