"""`detc fmt`: one style for all .det files."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from detc.cli.console import Json, command, count, print_json, show

app = command()


@app.command()
def fmt(
    paths: Annotated[list[Path], typer.Argument(metavar="PATH…", help="Files, folders, or - for stdin.")],
    check: Annotated[bool, typer.Option("--check", help="Only tell whether a file would change.")] = False,
    diff: Annotated[bool, typer.Option("--diff", help="Only show what would change.")] = False,
    json: Json = False,
) -> None:
    """Format .det files in place. There is one style and no option for it.

    With --check and --diff nothing is written, and the exit code is 1 if a file would change. Files with syntax
    errors are left alone, and the exit code is 1.
    """
    from detc.dsl.diagnostics import DetError, Diagnostic

    if [str(p) for p in paths] == ["-"]:
        text = sys.stdin.read()
        formatted = format_text(text, "<stdin>")
        if not check:
            sys.stdout.write(formatted)
        raise typer.Exit(1 if check and formatted != text else 0)
    changed: list[str] = []
    problems: list[Diagnostic] = []
    files = det_files(paths)
    for path in files:
        text = path.read_text(encoding="utf-8")
        try:
            formatted = format_text(text, str(path))
        except DetError as problem:
            problems += problem.diagnostics
            continue
        if formatted == text:
            continue
        changed.append(str(path))
        if not (check or diff):
            path.write_text(formatted, encoding="utf-8")
        if json:
            continue
        if diff:
            print_diff(path, text, formatted)
        else:
            print(f"{path} is not formatted" if check else f"formatted {path}")
    only_asked = bool(changed) and (check or diff)
    if json:
        from detc.dsl.render import to_json

        found = [to_json(d) for d in problems]
        print_json({"files": [str(p) for p in files], "changed": changed, "diagnostics": found})
    else:
        show(problems)
        if only_asked:
            print(f"{count(len(changed), 'file')} would change", file=sys.stderr)
    if problems or only_asked:
        raise typer.Exit(1)


def det_files(paths: list[Path]) -> list[Path]:
    """The files themselves, and all .det files below the folders.

    Raises:
        FileNotFoundError: if a path does not exist.
    """
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            found += sorted(path.rglob("*.det"))
        elif path.exists():
            found.append(path)
        else:
            raise FileNotFoundError(2, "No such file or folder", str(path))
    return found


def format_text(text: str, name: str) -> str:
    """The formatted text.

    Raises:
        DetError: with all syntax errors, if there are any.
    """
    from detc.dsl.format import format_text as format_source

    return format_source(text, name)


def print_diff(path: Path, old: str, new: str) -> None:
    """A unified diff on stdout."""
    from difflib import unified_diff

    lines = unified_diff(old.splitlines(True), new.splitlines(True), str(path), f"{path} (formatted)")
    sys.stdout.writelines(lines)
