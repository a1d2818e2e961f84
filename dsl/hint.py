"""One syntax fault with the text around it, and what a hand-written hint about it looks like."""

from __future__ import annotations

import re
from dataclasses import dataclass

from detc.dsl.diagnostics import Edit
from detc.dsl.recovery import Fault, level
from detc.dsl.source import Source, Span

UNITS = ("ep", "it", "img", "ms", "s", "px", "GiB", "MiB", "%")


@dataclass(frozen=True)
class Hint:
    """What to say instead of "expected …, found …". `start`..`end` is the place to point at."""

    message: str
    label: str
    start: int
    end: int
    help: str | None = None
    fix: Edit | None = None
    code: str = "DET0101"


@dataclass(frozen=True)
class Place:
    """A fault with the text around it."""

    source: Source
    fault: Fault

    @property
    def text(self) -> str:
        return self.source.text

    @property
    def found(self) -> str:
        """The offending token."""
        return self.text[self.fault.start : self.fault.end]

    @property
    def rest(self) -> str:
        """The text from the offending token to the end of its line."""
        end = self.text.find("\n", self.fault.start)
        return self.text[self.fault.start : end if end >= 0 else len(self.text)]

    @property
    def before(self) -> str:
        """The last good token, or ""."""
        return str(self.fault.previous) if self.fault.previous is not None else ""

    @property
    def before_end(self) -> int:
        """The offset behind the last good token."""
        return (self.fault.previous.end_pos or 0) if self.fault.previous is not None else 0

    @property
    def at_statement(self) -> bool:
        """Whether the offending token stands where a statement may start."""
        return level(self.fault.accepts) == "statement"

    @property
    def at_declaration(self) -> bool:
        return level(self.fault.accepts) == "declaration"

    @property
    def first(self) -> str:
        """The first word of the broken statement."""
        match = re.compile(r"\w+").match(self.text, self.fault.begin)
        return match.group() if match else ""

    def edit(self, start: int, end: int, text: str) -> Edit:
        return Edit(Span(self.source, start, end), text)

    def here(self, message: str, label: str, put: str | None = None, help: str | None = None) -> Hint:
        """A hint at the offending token, which `put` replaces."""
        start, end = self.fault.start, self.fault.end
        fix = None if put is None else self.edit(start, end, put)
        return Hint(message, label, start, end, help, fix)
