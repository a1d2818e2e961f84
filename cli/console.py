"""Options that commands share, and how they print."""

from __future__ import annotations

import json as json_module
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from detc.compiler.check import CheckResult, ResolvedRun
    from detc.dsl.diagnostics import Diagnostic

Spec = Annotated[str, typer.Argument(metavar="SPEC", help="A .det file.")]
Sets = Annotated[
    list[str],
    typer.Option("--set", metavar="PATH=VALUE", help="One more edit, e.g. train.epochs=3ep; repeatable."),
]
Run = Annotated[str | None, typer.Option("--run", metavar="NAME", help="Which run of the spec.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def command(**options: Any) -> typer.Typer:
    """An application for one command or a group of commands."""
    help_names = {"help_option_names": ["-h", "--help"]}
    return typer.Typer(add_completion=False, context_settings=help_names, **options)


def show(diagnostics: Sequence[Diagnostic], *, as_json: bool = False) -> None:
    """Print diagnostics: text to stderr (in colour on a terminal), or one JSON object to stdout."""
    from detc.dsl import render

    if as_json:
        print_json({"diagnostics": [render.to_json(d) for d in diagnostics]})
    else:
        render.report(diagnostics)


def print_json(data: Any) -> None:
    """One JSON document on stdout."""
    print(json_module.dumps(data, ensure_ascii=False, indent=2))


def usage(message: str) -> typer.BadParameter:
    """A fault of the command line: raise it for a message and exit code 2."""
    return typer.BadParameter(message)


def checked(spec: str, sets: Sequence[str], run: str | None = None, *, as_json: bool = False) -> CheckResult:
    """Check a spec; with errors, print them all and exit with 1. Warnings are printed as they are."""
    from detc.compiler.check import check

    result = check(spec, sets=list(sets), run=run)
    if result.report.errors:
        show(result.report.diagnostics, as_json=as_json)
        raise typer.Exit(1)
    if not as_json:
        show(result.report.warnings)
    return result


def chosen_run(spec: str, sets: Sequence[str], run: str | None, *, as_json: bool = False) -> ResolvedRun:
    """The run that the command line names (the only one if it names none)."""
    return checked(spec, sets, run, as_json=as_json).run(run)


def count(n: int, thing: str) -> str:
    """`1 error`, `2 errors`, `2 losses`."""
    return f"{n} {thing}" if n == 1 else f"{n} {thing}{'es' if thing.endswith('s') else 's'}"


def table(rows: Sequence[tuple[str, str]]) -> None:
    """Two columns on stdout."""
    width = max((len(name) for name, _ in rows), default=0)
    for name, value in rows:
        print(f"  {name:<{width}}  {value}")
