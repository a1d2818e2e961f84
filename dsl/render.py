"""Diagnostics as text for people and as JSON for programs.

Labels on the user's own lines come first; what lies in the library follows, with the call sites through which
it was reached.
"""

from __future__ import annotations

import os
import sys
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TextIO

from detc.dsl.diagnostics import ERROR, Diagnostic, Label, ordered_labels
from detc.dsl.source import BUILTIN, Span

TAB = "    "
RESET, BOLD, RED, YELLOW, BLUE = "\033[0m", "\033[1m", "\033[1;31m", "\033[1;33m", "\033[1;34m"


def use_color(stream: TextIO) -> bool:
    """Whether `stream` wants colour: a terminal, and `NO_COLOR` is not set (https://no-color.org)."""
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return False
    return stream.isatty()


def ordered(diagnostics: Iterable[Diagnostic]) -> list[Diagnostic]:
    """Sort by file (in order of first appearance) and place; those without a place come last."""
    listed = list(diagnostics)
    files: dict[str, int] = {}
    for d in listed:
        if d.primary is not None:
            files.setdefault(d.primary.source.name, len(files))

    def key(d: Diagnostic) -> tuple[int, int]:
        return (len(files), 0) if d.primary is None else (files[d.primary.source.name], d.primary.start)

    return sorted(listed, key=key)


@dataclass(frozen=True)
class Style:
    """Paints with ANSI codes, or not at all."""

    color: bool = False

    def paint(self, text: str, code: str) -> str:
        return f"{code}{text}{RESET}" if self.color and text else text


def render(diagnostic: Diagnostic, color: bool = False) -> str:
    """One diagnostic as text, ending in a newline."""
    style = Style(color)
    tone = RED if diagnostic.severity == ERROR else YELLOW
    head = style.paint(f"{diagnostic.severity}[{diagnostic.code}]", tone)
    lines = [f"{head}{style.paint(': ' + diagnostic.message, BOLD)}"]
    labels = ordered_labels(diagnostic)
    frames = _frames(labels)
    numbers = [label.origin.span.source.position(label.origin.span.start)[0] for label in labels]
    width = max([3, *(len(str(n)) + 1 for n in numbers)])
    for index, frame in enumerate(frames):
        lines += _frame(frame, index == 0, width, style, tone)
    bar = " " * width + style.paint("=", BLUE)
    lines += [f"{bar} via {place}" for place in _via(labels)]
    lines += _indented(bar, "note", diagnostic.notes)
    lines += _indented(bar, "help", [diagnostic.help] if diagnostic.help else [])
    fix = _fix(diagnostic)
    lines += _indented(bar, "fix", [fix] if fix else [])
    return "\n".join(lines) + "\n"


def render_all(diagnostics: Sequence[Diagnostic], color: bool = False) -> str:
    """All diagnostics, in order of place, a blank line between them, and a count at the end."""
    if not diagnostics:
        return ""
    texts = [render(d, color) for d in ordered(diagnostics)]
    return "\n".join([*texts, summary(diagnostics) + "\n"])


def summary(diagnostics: Sequence[Diagnostic]) -> str:
    """`2 errors, 1 warning`."""
    errors = sum(d.severity == ERROR for d in diagnostics)
    warnings = len(diagnostics) - errors
    counts = [(errors, "error"), (warnings, "warning")]
    return ", ".join(f"{n} {word}{'s' * (n != 1)}" for n, word in counts if n) or "no errors"


def report(diagnostics: Sequence[Diagnostic], stream: TextIO | None = None) -> None:
    """Write all diagnostics to `stream` (stderr), in colour on a terminal."""
    out = stream or sys.stderr
    out.write(render_all(diagnostics, use_color(out)))


def to_json(diagnostic: Diagnostic) -> dict[str, Any]:
    """One diagnostic as plain data; lines and columns count from 1, offsets from 0."""
    fix = diagnostic.fix
    labels = ordered_labels(diagnostic)
    return {
        "code": diagnostic.code,
        "severity": diagnostic.severity,
        "message": diagnostic.message,
        "labels": [
            {
                **place(label.origin.span),
                "text": label.text,
                "primary": index == 0,
                "via": [place(span) for span in label.origin.via],
            }
            for index, label in enumerate(labels)
        ],
        "notes": list(diagnostic.notes),
        "help": diagnostic.help,
        "fix": {**place(fix.span), "text": fix.text} if fix else None,
    }


def place(span: Span) -> dict[str, Any]:
    """A place as plain data; lines and columns count from 1, offsets from 0."""
    line, column = span.source.position(span.start)
    end_line, end_column = span.source.position(span.end)
    return {
        "file": span.source.path or span.source.name,
        "line": line,
        "column": column,
        "end_line": end_line,
        "end_column": end_column,
        "start": span.start,
        "end": span.end,
    }


def _frames(labels: list[Label]) -> list[list[Label]]:
    """Group labels that lie on one line, in order of first appearance."""
    groups: dict[tuple[int, int], list[Label]] = {}
    for label in labels:
        span = label.origin.span
        groups.setdefault((id(span.source), span.source.position(span.start)[0]), []).append(label)
    return list(groups.values())


def _frame(group: list[Label], first: bool, width: int, style: Style, tone: str) -> list[str]:
    """One quoted line with its marks."""
    span = group[0].origin.span
    number = span.source.position(span.start)[0]
    text = span.source.line(number).rstrip("\r")
    gutter = style.paint(" " * width + "|", BLUE)
    arrow = style.paint(" " * (width - 1) + ("-->" if first else ":::"), BLUE)
    lines = [f"{arrow} {span}", gutter]
    lines.append(style.paint(f"{number:>{width}}|", BLUE) + " " + text.replace("\t", TAB))
    for index, label in enumerate(group):
        main = first and index == 0
        mark = style.paint(_mark(label.origin.span, text, main), tone if main else BLUE)
        words = style.paint(label.text, tone if main else BLUE)
        lines.append(f"{gutter} {mark} {words}".rstrip())
    return lines


def _mark(span: Span, text: str, main: bool) -> str:
    """Blanks up to the span, then `^^^` or `---` under its part of this line."""
    column = span.source.position(span.start)[1] - 1
    inside = text[column : column + max(span.end - span.start, 1)]
    return " " * _columns(text[:column]) + ("^" if main else "-") * max(_columns(inside), 1)


def _columns(text: str) -> int:
    """How many terminal cells `text` takes."""
    cells = 0
    for ch in text:
        if ch == "\t":
            cells += len(TAB)
        elif not unicodedata.combining(ch):
            cells += 2 if unicodedata.east_asian_width(ch) in "WF" else 1
    return cells


def _via(labels: list[Label]) -> list[str]:
    """The call sites that led to library lines, without those that are quoted anyway."""
    quoted = {
        (id(x.origin.span.source), x.origin.span.source.position(x.origin.span.start)[0]) for x in labels
    }
    places: dict[str, None] = {}
    for label in labels:
        for span in label.origin.via:
            number = span.source.position(span.start)[0]
            # A bare name is the declaration that was checked, which nothing called.
            root = span.text.isidentifier()
            if span is not BUILTIN and not root and (id(span.source), number) not in quoted:
                places[f"{span}  {span.source.line(number).strip()}"] = None
    return list(places)


def _indented(bar: str, word: str, texts: Sequence[str]) -> list[str]:
    """`= note: …`, with further lines of a text under its first."""
    lines = []
    for text in texts:
        head, *rest = text.split("\n")
        lines.append(f"{bar} {word}: {head}")
        indent = " " * (bar.count(" ") + len(word) + 4)
        lines += [indent + line for line in rest]
    return lines


def _fix(diagnostic: Diagnostic) -> str | None:
    """The fix in words, unless the labels or the help say it already."""
    fix = diagnostic.fix
    if fix is None:
        return None
    new, old = fix.text.strip(), fix.span.text.strip()
    said = [diagnostic.help or "", diagnostic.message, *(label.text for label in diagnostic.labels)]
    if any((f"`{new}`" in text) if new else ("remove" in text) for text in said):
        return None
    if not old:
        return f"insert `{new}` at {fix.span}"
    return f"write `{new}` for `{old}`" if new else f"remove `{old}`"
