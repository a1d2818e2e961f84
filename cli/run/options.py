"""Options that the commands of `detc run` share."""

from __future__ import annotations

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
