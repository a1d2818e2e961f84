"""`detc why`: where a value or a node came from."""

from __future__ import annotations

from typing import Annotated

import typer

from detc.cli.console import Json, Run, Sets, Spec, chosen_run, command, print_json

app = command()


@app.command()
def why(
    spec: Spec,
    path: Annotated[str, typer.Argument(metavar="PATH", help="For example neck.lateral[2].out, or neck.")],
    run: Run = None,
    sets: Sets = [],  # noqa: B006 (typer copies it)
    json: Json = False,
) -> None:
    """Show every place that had a say in a value, or what a node is and where it is applied."""
    from detc.compiler.why import why as explain
    from detc.compiler.why import why_data

    chosen = chosen_run(spec, sets, run, as_json=json)
    if json:
        print_json(why_data(chosen, path))
    else:
        print(explain(chosen, path), end="")
