"""Source files, spans and origins: where a thing in a compiled program came from."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, field, replace


@dataclass(frozen=True, eq=False)
class Source:
    """One `.det` text with a display name.

    Identity, not content, makes two sources equal: the same text may be loaded from two places.
    """

    name: str
    text: str
    path: str | None = None
    library: bool = False
    line_starts: tuple[int, ...] = field(default=(), repr=False)

    def __post_init__(self) -> None:
        starts = [0, *(i + 1 for i, ch in enumerate(self.text) if ch == "\n")]
        object.__setattr__(self, "line_starts", tuple(starts))

    def position(self, offset: int) -> tuple[int, int]:
        """Return (line, column), both counted from 1, of a character offset."""
        line = bisect_right(self.line_starts, max(offset, 0))
        return line, offset - self.line_starts[line - 1] + 1

    def line(self, number: int) -> str:
        """Return the text of line `number` (from 1), without its newline."""
        start = self.line_starts[number - 1]
        end = self.line_starts[number] - 1 if number < len(self.line_starts) else len(self.text)
        return self.text[start:end]


@dataclass(frozen=True)
class Span:
    """A half-open range of characters of one source."""

    source: Source
    start: int
    end: int

    @property
    def text(self) -> str:
        """The characters that the span covers."""
        return self.source.text[self.start : self.end]

    def __str__(self) -> str:
        line, column = self.source.position(self.start)
        return f"{self.source.name}:{line}:{column}"


@dataclass(frozen=True)
class Origin:
    """A span plus the chain of call sites through which it was reached, innermost first.

    `because` is the place that decided what is computed at the span: of `64 * widen` in the library, the `0.3` that
    the user wrote. `edited`: an edit (`set`, `--set`) put it there, over what was there before.
    """

    span: Span
    via: tuple[Span, ...] = ()
    because: Origin | None = None
    edited: bool = False

    def through(self, call: Span) -> Origin:
        """Return this origin as seen from one more call site outside."""
        return replace(self, via=(*self.via, call))

    def frames(self) -> tuple[Span, ...]:
        """All spans, innermost first."""
        return (self.span, *self.via)

    def user(self) -> Span:
        """The innermost frame outside the library, else the outermost frame."""
        for span in self.frames():
            if not span.source.library:
                return span
        return self.frames()[-1]


BUILTIN = Span(Source("<builtin>", "", library=True), 0, 0)
COMMAND_LINE = "<command line>"
