"""`detc fix`: apply the edits that diagnostics offer."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from detc.cli.console import command, count, show

if TYPE_CHECKING:
    from detc.dsl.diagnostics import Diagnostic, Edit

app = command()
ROUNDS = 10  # a fix may uncover a fault behind it


@app.command()
def fix(
    specs: Annotated[list[Path], typer.Argument(metavar="SPEC…", help=".det files.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", "-n", help="Print the edits only.")] = False,
) -> None:
    """Apply the fixes that diagnostics offer, then report what is left.

    Only files named on the command line are changed. Exits with 1 if errors remain.
    """
    from detc.compiler.check import check

    remaining = 0
    for spec in specs:
        for _ in range(ROUNDS):
            report = check(str(spec)).report
            edits = fixes(report.diagnostics, spec)
            for edit in edits:
                print(f"{edit.span}: `{edit.span.text}` -> `{edit.text}`")
            if not edits or dry_run:
                break
            spec.write_text(apply(spec.read_text(encoding="utf-8"), edits), encoding="utf-8")
        show(report.diagnostics)
        remaining += len(report.errors)
    if remaining:
        print(f"{count(remaining, 'error')} left", file=sys.stderr)
        raise typer.Exit(1)


def fixes(diagnostics: Iterable[Diagnostic], path: Path) -> list[Edit]:
    """The edits of one file, without those that overlap an earlier one."""
    wanted = [d.fix for d in diagnostics if d.fix is not None]
    here = [e for e in wanted if e.span.source.path and Path(e.span.source.path).resolve() == path.resolve()]
    kept: list[Edit] = []
    for edit in sorted(here, key=lambda e: (e.span.start, e.span.end)):
        if not kept or (edit.span.start >= kept[-1].span.end and edit != kept[-1]):
            kept.append(edit)
    return kept


def apply(text: str, edits: list[Edit]) -> str:
    """`text` with all edits (in order, not overlapping) made."""
    for edit in reversed(edits):
        text = text[: edit.span.start] + edit.text + text[edit.span.end :]
    return text
