"""A small document algebra for pretty printing (Wadler, "A prettier printer", 2003; strict variant).

A document is text with possible line breaks in it. A `Group` is laid out on one line if it fits, else its own
breaks become newlines; the groups inside it decide for themselves.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

WIDTH = 100
INDENT = 2


@dataclass(frozen=True)
class Line:
    """A newline, or `flat` when the group around it fits on a line. `hard` ones are always newlines."""

    flat: str = " "
    hard: bool = False


@dataclass(frozen=True)
class Indent:
    """Newlines in `body` are indented one step more."""

    body: Doc


@dataclass(frozen=True)
class Group:
    """Laid out flat if it fits and holds no hard line."""

    body: Doc
    broken: bool


@dataclass(frozen=True)
class IfBroken:
    """`text` only when the group around it is broken, as for a trailing comma."""

    text: str


@dataclass(frozen=True)
class Suffix:
    """A comment at the end of the line: printed before the next newline and not counted as width."""

    text: str


Doc = str | Line | Indent | Group | IfBroken | Suffix | tuple["Doc", ...]

LINE, SOFT, HARD = Line(), Line(""), Line("", True)


def concat(*parts: Doc) -> Doc:
    """The parts one after the other."""
    return parts


def group(*parts: Doc) -> Doc:
    """A group; it knows from the start whether it can be flat."""
    return Group(parts, has_hard(parts))


def indent(*parts: Doc) -> Doc:
    """The parts, one step further in."""
    return Indent(parts)


def join(separator: Doc, parts: Iterable[Doc]) -> Doc:
    """The parts with the separator between them."""
    found: list[Doc] = []
    for part in parts:
        if found:
            found.append(separator)
        found.append(part)
    return tuple(found)


def has_hard(doc: Doc) -> bool:
    """Whether a hard line or an end-of-line comment is in it, so that it cannot be flat."""
    match doc:
        case Line(hard=hard):
            return hard
        case Suffix():
            return True
        case Group(broken=broken):
            return broken
        case Indent(body=body):
            return has_hard(body)
        case tuple():
            return any(has_hard(part) for part in doc)
    return False


Command = tuple[int, bool, Doc]  # indentation, flat, document


def layout(doc: Doc, width: int = WIDTH) -> str:
    """Lay the document out in lines of at most `width` columns where that is possible."""
    out: list[str] = []
    suffix: list[str] = []
    column = 0
    stack: list[Command] = [(0, False, doc)]
    while stack:
        depth, flat, part = stack.pop()
        match part:
            case str():
                out.append(part)
                column += len(part)
            case tuple():
                stack.extend((depth, flat, p) for p in reversed(part))
            case Indent(body=body):
                stack.append((depth + INDENT, flat, body))
            case Group(body=body, broken=broken):
                fits = not broken and (flat or _fits(width - column, (depth, True, body), stack))
                stack.append((depth, fits, body))
            case IfBroken(text=text):
                if not flat:
                    out.append(text)
                    column += len(text)
            case Suffix(text=text):
                suffix.append(text)
            case Line(flat=text, hard=hard):
                if flat and not hard:
                    out.append(text)
                    column += len(text)
                else:
                    out += [*suffix, "\n", " " * depth]
                    suffix.clear()
                    column = depth
    lines = "".join(out + suffix).split("\n")
    return "\n".join(line.rstrip(" ") for line in lines)


def _fits(room: int, first: Command, rest: Sequence[Command]) -> bool:
    """Whether `first`, and what follows it up to the next possible newline, takes at most `room` columns."""
    stack = [first]
    behind = len(rest)
    while room >= 0:
        if not stack:
            if not behind:
                return True
            behind -= 1
            stack.append(rest[behind])
            continue
        depth, flat, part = stack.pop()
        match part:
            case str():
                room -= len(part)
            case tuple():
                stack.extend((depth, flat, p) for p in reversed(part))
            case Indent(body=body):
                stack.append((depth, flat, body))
            case Group(body=body, broken=broken):
                stack.append((depth, flat and not broken, body))
            case IfBroken(text=text):
                room -= 0 if flat else len(text)
            case Line(flat=text, hard=hard):
                if hard or not flat:
                    return True
                room -= len(text)
            case Suffix():
                pass
    return False
