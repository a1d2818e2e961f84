"""`detc fmt`: one style for all .det files."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from detc.cli.console import command, count

app = command()


@app.command()
def fmt(
    paths: Annotated[list[Path], typer.Argument(metavar="PATH…", help="Files, folders, or - for stdin.")],
    check: Annotated[bool, typer.Option("--check", help="Only tell whether a file would change.")] = False,
    diff: Annotated[bool, typer.Option("--diff", help="Only show what would change.")] = False,
) -> None:
    """Format .det files in place. There is one style and no option for it.

    With --check and --diff nothing is written, and the exit code is 1 if a file would change.
    """
    if [str(p) for p in paths] == ["-"]:
        text = sys.stdin.read()
        formatted = format_text(text, "<stdin>")
        if not check:
            sys.stdout.write(formatted)
        raise typer.Exit(1 if check and formatted != text else 0)
    changed = 0
    for path in det_files(paths):
        text = path.read_text(encoding="utf-8")
        formatted = format_text(text, str(path))
        if formatted == text:
            continue
        changed += 1
        if diff:
            print_diff(path, text, formatted)
        elif check:
            print(f"{path} is not formatted")
        else:
            path.write_text(formatted, encoding="utf-8")
            print(f"formatted {path}")
    if changed and (check or diff):
        print(f"{count(changed, 'file')} would change", file=sys.stderr)
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
