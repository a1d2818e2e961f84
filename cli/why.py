"""`detc why`: where a value or a node came from."""

from __future__ import annotations

from typing import Annotated

import typer

from detc.cli.console import Run, Sets, Spec, chosen_run, command

app = command()


@app.command()
def why(
    spec: Spec,
    path: Annotated[str, typer.Argument(metavar="PATH", help="For example neck.lateral[2].out, or neck.")],
    run: Run = None,
    sets: Sets = [],  # noqa: B006 (typer copies it)
) -> None:
    """Show every place that had a say in a value, or what a node is and where it is applied."""
    from detc.compiler.why import why as explain

    print(explain(chosen_run(spec, sets, run), path), end="")
