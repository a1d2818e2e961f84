"""What a person sees of a training: a bar with the time left on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from typing import Any, Protocol, TextIO

_PLAIN_SECONDS = 15.0


class Display(Protocol):
    """Shows progress. `update` may be called every iteration; it decides itself how often to draw."""

    def start(self, total: int, done: int) -> None: ...

    def update(self, done: int, epoch: str, values: Mapping[str, float]) -> None: ...

    def say(self, text: str) -> None: ...

    def stop(self) -> None: ...


class Silent:
    """Shows nothing: what all processes but the first use."""

    def start(self, total: int, done: int) -> None:
        """Nothing."""

    def update(self, done: int, epoch: str, values: Mapping[str, float]) -> None:
        """Nothing."""

    def say(self, text: str) -> None:
        """Nothing."""

    def stop(self) -> None:
        """Nothing."""


class Plain:
    """A line now and then, for logs and pipes; `file` is standard output if None."""

    def __init__(self, file: TextIO | None = None) -> None:
        self._file = file
        self._total, self._first, self._began, self._last = 0, 0, 0.0, 0.0

    def start(self, total: int, done: int) -> None:
        """Begin the clock."""
        self._total, self._first, self._began, self._last = total, done, time.monotonic(), 0.0

    def update(self, done: int, epoch: str, values: Mapping[str, float]) -> None:
        """Print a line if the last one is some seconds old."""
        now = time.monotonic()
        if now - self._last < _PLAIN_SECONDS and done < self._total:
            return
        self._last = now
        left = (now - self._began) / max(done - self._first, 1) * (self._total - done)
        self.say(f"{epoch}  {done}/{self._total}  {_words(values)}  {duration(left)} left")

    def say(self, text: str) -> None:
        """Print a line at once."""
        print(text, file=self._file or sys.stdout, flush=True)

    def stop(self) -> None:
        """Nothing is left open."""


class Bar:
    """A bar, drawn by rich; `file` is standard output if None."""

    def __init__(self, file: TextIO | None = None) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        self._began, self._first, self._total = 0.0, 0, 0
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[values]}"),
            TimeElapsedColumn(),
            TextColumn("{task.fields[left]} left", style="cyan"),
            console=Console(file=file),
            refresh_per_second=4,
        )
        self._task: Any = None

    def start(self, total: int, done: int) -> None:
        """Draw the empty bar."""
        self._began, self._first, self._total = time.monotonic(), done, total
        self._progress.start()
        self._task = self._progress.add_task("starting", total=total, completed=done, values="", left="?")

    def update(self, done: int, epoch: str, values: Mapping[str, float]) -> None:
        """Move the bar; rich limits how often it is drawn."""
        each = (time.monotonic() - self._began) / max(done - self._first, 1)
        left = duration(each * (self._total - done))
        self._progress.update(self._task, completed=done, description=epoch, values=_words(values), left=left)

    def say(self, text: str) -> None:
        """Print a line above the bar."""
        self._progress.console.print(text, markup=False, highlight=False)

    def stop(self) -> None:
        """Leave the bar as it is."""
        self._progress.stop()


def make_display(plain: bool | None = None, *, aside: bool = False) -> Display:
    """A bar on a terminal, lines elsewhere; `plain` decides if it is given.

    `aside` writes to standard error, and leaves standard output to results.
    """
    file = sys.stderr if aside else sys.stdout
    if plain is None:
        plain = not file.isatty()
    return Plain(file) if plain else Bar(file)


def duration(seconds: float) -> str:
    """`1h02m`, `3m20s` or `12s`."""
    s = round(max(seconds, 0.0))
    if s >= 3600:
        return f"{s // 3600}h{s % 3600 // 60:02d}m"
    return f"{s // 60}m{s % 60:02d}s" if s >= 60 else f"{s}s"


def _words(values: Mapping[str, float]) -> str:
    return "  ".join(f"{k} {v:.3g}" if k == "lr" else f"{k} {v:.4g}" for k, v in values.items())
