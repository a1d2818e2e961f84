"""`detc check`: everything that can be known about specs before torch is imported."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from detc.cli.console import Json, Run, Sets, command, count, print_json, show

app = command()


@app.command()
def check(
    specs: Annotated[list[str], typer.Argument(metavar="SPEC…", help=".det files; - reads standard input.")],
    sets: Sets = [],  # noqa: B006 (typer copies it)
    run: Run = None,
    json: Json = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing when all is well.")] = False,
) -> None:
    """Check specs: syntax, names, shapes, edits, data, schedule.

    Exits with 1 if there is an error; warnings do not count.
    """
    from detc.compiler.check import check as check_spec
    from detc.dsl import render

    errors, found, summaries = 0, [], {}
    for spec in specs:
        result = check_spec(sys.stdin.read() if spec == "-" else spec, sets=sets, run=run)
        errors += len(result.report.errors)
        found += result.report.diagnostics
        summaries[spec] = {name: summary(r) for name, r in result.runs.items()}
        if not json:
            show(result.report.diagnostics)
            if not result.report.errors and not quiet:
                for line in summaries[spec].values() or ["fine (no run)"]:
                    print(f"{spec}: {line}")
    if json:
        diagnostics = [render.to_json(d) for d in found]
        print_json({"ok": errors == 0, "diagnostics": diagnostics, "runs": summaries})
    elif errors:
        print(f"{count(errors, 'error')}", file=sys.stderr)
    if errors:
        raise typer.Exit(1)


def summary(run: object) -> str:
    """One line about a resolved run."""
    model = run.model  # type: ignore[attr-defined]
    nodes = f"{len(model.infer)} ops for inference, {len(model.train)} for training"
    name = getattr(run, "name", "")
    return f"{'run ' + name + ': ' if name else ''}{model.name}, {count(len(model.classes), 'class').replace('classs', 'classes')}, {nodes}"
