"""Options that the commands of `detc run` share."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

Device = Annotated[str | None, typer.Option("--device", help="cpu, cuda, cuda:1; the fastest by default.")]
Weights = Annotated[
    Path | None, typer.Option("--weights", "-w", help="A checkpoint, or the folder of a training.")
]
Model = Annotated[
    str, typer.Argument(metavar="MODEL", help="A .det spec, .pt checkpoint, training folder or .onnx file.")
]
RATIOS = ("HOTA", "MOTA", "IDF1", "DetA", "AssA", "MOTP")
COUNTS = ("CLR_FP", "CLR_FN", "IDSW", "Frag", "MT", "ML")


def track_rows(values: Mapping[str, float]) -> list[tuple[str, str]]:
    """The metrics of tracks that are printed: ratios, then counts."""
    return [*((k, f"{values[k]:.4f}") for k in RATIOS), *((k, f"{values[k]:.0f}") for k in COUNTS)]
