"""`detc resolve`: what a spec says when everything is said."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from detc.cli.console import Run, Sets, Spec, chosen_run, command

app = command()


@app.command()
def resolve(
    spec: Spec,
    run: Run = None,
    sets: Sets = [],  # noqa: B006 (typer copies it)
    out: Annotated[Path | None, typer.Option("--out", "-o", help="A file; default: print.")] = None,
) -> None:
    """Print a spec without imports, parameters or edits; the result is itself a valid spec.

    It is what a checkpoint stores. Two specs that resolve to the same text are the same experiment.
    """
    text = chosen_run(spec, sets, run).text
    if out is None:
        print(text, end="")
    else:
        out.write_text(text, encoding="utf-8")
        print(f"wrote {out}")
