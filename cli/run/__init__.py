"""`detc run`: what is done with a compiled experiment, one file a command."""

from __future__ import annotations

from detc.cli.lazy import lazy_group

COMMANDS = ("train", "val", "predict", "track", "bench", "table")

app = lazy_group("detc.cli.run", COMMANDS)


@app.callback()
def run() -> None:
    """Train, validate, predict, track, benchmark, tabulate."""
