"""`detc check`: everything that can be known about specs before torch is imported."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from detc.cli.console import Json, Run, Sets, command, count, print_json, show

if TYPE_CHECKING:
    from detc.compiler.check import CheckResult, ResolvedRun

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

    texts = {spec: sys.stdin.read() if spec == "-" else spec for spec in specs}
    results = {spec: check_spec(text, sets=sets, run=run) for spec, text in texts.items()}
    errors = sum(len(result.report.errors) for result in results.values())
    if json:
        from detc.dsl.render import to_json

        print_json(
            {
                "ok": errors == 0,
                "diagnostics": [to_json(d) for r in results.values() for d in r.report.diagnostics],
                "runs": {spec: {n: facts(run) for n, run in r.runs.items()} for spec, r in results.items()},
            }
        )
    else:
        show([d for result in results.values() for d in result.report.diagnostics])
        for spec, result in {} if quiet else results.items():
            for line in fine(result):
                print(f"{spec}: {line}")
    if errors:
        raise typer.Exit(1)


def fine(result: CheckResult) -> list[str]:
    """A line for each run, if all is well."""
    if result.report.errors:
        return []
    runs = [f"{f'run {name}: ' if name else ''}{summary(run)}" for name, run in result.runs.items()]
    return runs or ["fine"]


def facts(run: ResolvedRun) -> dict[str, object]:
    """A run in numbers."""
    return {
        "model": run.model.name,
        "classes": len(run.classes),
        "ops": {"infer": len(run.model.infer), "train": len(run.model.train)},
        "weights": len(run.model.weights),
        "losses": [loss.name for loss in run.model.train.losses],
    }


def summary(run: ResolvedRun) -> str:
    """A run in a line."""
    ops = f"{len(run.model.infer)} ops to infer, {len(run.model.train)} to train"
    losses = count(len(run.model.train.losses), "loss")
    return f"{run.model.name}, {count(len(run.classes), 'class')}, {ops}, {losses}"
