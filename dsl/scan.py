"""A light scanner: comments, brackets and word boundaries of a text, without parsing it.

It works on any text, also on one that has syntax errors, so recovery and the formatter can both lean on it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

_PIECE = re.compile(r'"(?:[^"\\\n]|\\.)*(?:"|(?=\n)|\Z|\\\Z)|#[^\n]*|[\[\](){}]|\n')
OPENING = {"(": ")", "[": "]", "{": "}"}
CLOSING = {close: opening for opening, close in OPENING.items()}


@dataclass(frozen=True)
class Comment:
    """One `#` or `##` comment. `own_line` says that nothing but blanks stands before it on its line."""

    start: int
    end: int
    text: str
    own_line: bool

    @property
    def is_doc(self) -> bool:
        """Whether it is a `##` comment on its own line, which documents what follows it."""
        return self.own_line and self.text.startswith("##")

    @property
    def doc_text(self) -> str:
        """The text behind `##`."""
        return self.text[2:].removeprefix(" ").rstrip()


@dataclass(frozen=True)
class Mark:
    """A bracket, newline, string or comment of the text."""

    start: int
    text: str

    @property
    def end(self) -> int:
        """The offset behind it."""
        return self.start + len(self.text)


def marks(text: str, start: int = 0) -> Iterator[Mark]:
    """Yield brackets, newlines, strings and comments from `start` on, in order."""
    for match in _PIECE.finditer(text, start):
        yield Mark(match.start(), match.group())


def comments(text: str) -> list[Comment]:
    """Return all comments of `text`, in order."""
    found = []
    for mark in marks(text):
        if mark.text.startswith("#"):
            line_start = text.rfind("\n", 0, mark.start) + 1
            own = not text[line_start : mark.start].strip(" \t\r\ufeff")
            found.append(Comment(mark.start, mark.end, mark.text.rstrip(), own))
    return found


def docs_before(text: str, found: list[Comment], index: int, start: int) -> tuple[str, list[Comment]]:
    """The `##` text directly above offset `start`.

    `index` is the number of comments that start before `start`. Plain comments in between are skipped.
    Returns the joined text and the comments that it was made of.
    """
    lines: list[Comment] = []
    edge = start
    while index > 0:
        comment = found[index - 1]
        if text[comment.end : edge].strip() or not comment.own_line:
            break
        if comment.is_doc:
            lines.append(comment)
        edge = comment.start
        index -= 1
    lines.reverse()
    return "\n".join(line.doc_text for line in lines), lines


def indentation(text: str, offset: int) -> int:
    """The number of blanks before the first word of the line that holds `offset`."""
    start = text.rfind("\n", 0, offset) + 1
    return len(text[start:]) - len(text[start:].lstrip(" \t"))
