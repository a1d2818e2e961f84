"""`detc resolve`: what a spec says when everything is said."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from detc.cli.console import Json, Run, Sets, Spec, chosen_run, command, print_json

app = command()


@app.command()
def resolve(
    spec: Spec,
    run: Run = None,
    sets: Sets = [],  # noqa: B006 (typer copies it)
    out: Annotated[Path | None, typer.Option("--out", "-o", help="A file; default: print.")] = None,
    json: Json = False,
) -> None:
    """Print a spec without imports, parameters or edits; the result is itself a valid spec.

    It is what a checkpoint stores. Two specs that resolve to the same text are the same experiment.
    """
    chosen = chosen_run(spec, sets, run, as_json=json)
    if out is not None:
        out.write_text(chosen.text, encoding="utf-8")
    if json:
        print_json({"run": chosen.name, "model": chosen.model.name, "text": chosen.text})
    elif out is None:
        print(chosen.text, end="")
    else:
        print(f"wrote {out}")
