"""`detc run predict`."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from detc.cli.console import Json, Run, Sets, command, count, print_json, show
from detc.cli.run.options import Device, Model, Weights

if TYPE_CHECKING:
    from detc.runtime.images import ImageError

app = command()


@app.command()
def predict(
    model: Model,
    inputs: Annotated[list[str], typer.Argument(metavar="INPUT…", help="Files, folders, patterns.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Output folder.")] = Path("predictions"),
    weights: Weights = None,
    run: Run = None,
    sets: Sets = [],  # noqa: B006
    score: Annotated[float, typer.Option("--score", min=0, max=1, help="Leave out what scores lower.")] = 0.3,
    batch: Annotated[int, typer.Option("--batch", min=1)] = 1,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="Only so many images.")] = None,
    draw: Annotated[bool, typer.Option("--draw/--no-draw", help="Write pictures.")] = True,
    zoom: Annotated[
        int, typer.Option("--zoom", min=1, max=8, help="Enlarge the pictures: labels then leave room.")
    ] = 1,
    device: Device = None,
    json: Json = False,
) -> None:
    """Detect objects: a JSON and a drawn picture for each image.

    Unreadable images are reported and skipped; the exit code is 1 if none could be read.
    """
    from detc.dsl.diagnostics import Diagnostic
    from detc.runtime.images import gather
    from detc.runtime.load import load
    from detc.runtime.predict import predict_to

    images = [image.source for image in gather(inputs)][:limit]
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always", UserWarning)
        detector = load(model, weights=weights, run=run, sets=sets, device=device)
    for warning in {str(w.message) for w in said}:
        print(f"warning: {warning}", file=sys.stderr)
    broken: list[ImageError] = []
    results = []
    for written in predict_to(
        detector, images, out, score=score, batch=batch, draw=draw, zoom=zoom, on_error=broken.append
    ):
        results.append(written.result.to_dict())
        if not json:
            print(f"{written.result.name}: {written.result.summary()}")
    if broken and not json:
        show([Diagnostic("DET0904", "warning", f"{fault} (skipped)") for fault in broken])
    if json:
        print_json({"results": results, "skipped": [{"image": f.name, "reason": f.reason} for f in broken]})
    else:
        print(f"{count(len(results), 'result')} in {out}")
    if not results:
        raise typer.Exit(1)
