"""The `detc` command: the list of commands, and the border where exceptions become messages.

Each command is one file of this folder that holds a typer application called `app`. A file is imported only
when its command is asked for, so `detc check` never pays for what `detc run` needs. To add a command: write
`cli/<name>.py` with an `app` and add its name to `COMMANDS`.

Exit codes: 0 fine; 1 the input is at fault (diagnostics, an unreadable file, a failed verification); 2 the
command line is at fault; 70 a bug in detc; 130 a training that was interrupted.
"""

from __future__ import annotations

import gc
import sys

import typer

from detc.cli.lazy import lazy_group

# in the order of an experiment's life
COMMANDS = (
    "check",
    "fix",
    "fmt",
    "why",
    "resolve",
    "explain",
    "graph",
    "test",
    "data",
    "run",
    "compile",
    "native",
    "doctor",
)


root = lazy_group("detc.cli", COMMANDS, name="detc")


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"detc {version('detc')}")
        raise typer.Exit()


@root.callback()
def _root(version: bool = typer.Option(False, "--version", callback=_version, is_eager=True)) -> None:
    """A declarative, graph-compiled language for object detection."""


def main(args: list[str] | None = None) -> None:
    """Run one command and exit with its code; the entry point of the console script."""
    args = sys.argv[1:] if args is None else args
    gc.set_threshold(100_000, 50, 50)  # imports make many objects that stay: looking through them is in vain
    try:
        typer.main.get_command(root).main(args=args, prog_name="detc")
    except Exception as fault:
        from detc.cli.faults import report

        sys.exit(report(fault, as_json="--json" in args))


if __name__ == "__main__":
    main()
