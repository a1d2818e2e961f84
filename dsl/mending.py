"""Mending a text that does not parse: blanking the broken statement, finding the brace that is missing."""

from __future__ import annotations

import re

from detc.dsl.recovery import DECLARING, RESERVED, Fault, starts_next
from detc.dsl.scan import CLOSING, OPENING, comments, indentation, marks

_DECLARATION = re.compile(
    r"(component|model|data|train|target|interface|patch|run)[ \t]+[A-Za-z_]\w*[ \t]*"
    r"($|[({:\n#]|extends\b|with\b|for\b)"
    r"|run[ \t]*\{|test[ \t]*\""
)
# Words that begin a statement with a block, of this language or of others.
HEADERS = DECLARING | {
    "when",
    "repeat",
    "at",
    "for",
    "if",
    "while",
    "def",
    "class",
    "fn",
    "func",
    "function",
    "else",
}


def overwrite(text: str, fault: Fault) -> tuple[str, int | None]:
    """Blank the broken statement of `fault`.

    A broken header keeps its block, under a made-up header, so that faults inside it are found too. Returns
    the new text, in which every offset is still true, and the offset of that made-up header, if any.
    """
    if fault.restart == "param":
        return _blank(text, fault.begin, max(_param_end(text, fault), fault.begin + 1)), None
    end, opens = _extent(text, fault)
    end = max(end, fault.begin + 1)
    if opens:
        made_up = "run" if fault.restart == "declaration" else "x"
        if end - fault.begin >= len(made_up):
            return _blank(text, fault.begin, end, made_up), fault.begin
        end = _matching(text, end)
    return _blank(text, fault.begin, end), None


def _blank(text: str, start: int, end: int, put: str = "") -> str:
    gone = "".join(ch if ch == "\n" else " " for ch in text[start:end])
    return text[:start] + put + gone[len(put) :] + text[end:]


def _extent(text: str, fault: Fault) -> tuple[int, bool]:
    """The end of the broken statement, and whether a block of its own opens there."""
    if starts_next(text, fault) and fault.previous is not None:
        return fault.previous.end_pos or fault.start, False
    stack: list[str] = []
    base = indentation(text, fault.begin)
    for mark in marks(text, fault.begin):
        ch = mark.text
        if ch in OPENING:
            if ch == "{" and not stack and mark.start >= fault.start and _is_block(text, fault, mark.end):
                return mark.start, True
            stack.append(ch)
        elif ch in CLOSING:
            if stack and OPENING[stack[-1]] == ch:
                stack.pop()
            elif mark.start < fault.start:
                continue
            elif ch == "}":
                return max(mark.start, fault.end if fault.start == mark.start == fault.begin else 0), False
        elif ch == "\n" and mark.start >= fault.start and (not stack or _dedents(text, mark.end, base)):
            return mark.start, False
    return len(text), False


def _param_end(text: str, fault: Fault) -> int:
    """The offset behind the `,` that ends the broken param, or of the `)` that ends them all."""
    depth = 0
    for match in re.compile(r"\"[^\"\n]*\"|#[^\n]*|[\[\](){},]").finditer(text, fault.begin):
        ch = match.group()
        if match.start() >= fault.start and depth <= 0:
            if ch == ",":
                return match.end()
            if ch in "){}":
                return match.start()
        depth += (ch in OPENING) - (ch in CLOSING)
    return len(text)


def _is_block(text: str, fault: Fault, inside: int) -> bool:
    """Whether the `{` before `inside` opens a block and not a record."""
    end = text.find("\n", inside)
    rest = text[inside : end if end >= 0 else len(text)].strip()
    words = text[fault.begin : inside - 1].split()
    return not rest or rest.startswith("#") or bool(words and words[0] in HEADERS)


def _dedents(text: str, line: int, base: int) -> bool:
    """Whether the line at offset `line` cannot belong to a statement that is indented by `base`."""
    end = text.find("\n", line)
    content = text[line : end if end >= 0 else len(text)]
    words = content.split()
    if not words or content.lstrip()[0] in ")]":
        return False
    if words[0] in RESERVED:
        return True
    return len(content) - len(content.lstrip(" \t")) <= base


def _matching(text: str, opening: int) -> int:
    """The offset behind the `}` that closes the `{` at `opening`."""
    depth = 0
    for mark in marks(text, opening):
        if mark.text == "{":
            depth += 1
        elif mark.text == "}":
            depth -= 1
            if depth == 0:
                return mark.end
    return len(text)


def edge_before(text: str, offset: int) -> int:
    """The end of the last token before `offset`, that is without blanks and comments."""
    found = comments(text[:offset])
    edge = len(text[:offset].rstrip())
    while found and found[-1].end >= edge > 0:
        edge = len(text[: found.pop().start].rstrip())
    return edge


def open_braces(text: str, since: int) -> int:
    """How many `{` of `text`, from `since` on, are not closed."""
    depth = 0
    for mark in marks(text, since):
        depth = max(depth + (mark.text == "{") - (mark.text == "}"), 0)
    return depth


def stray_declaration(text: str, since: int) -> int | None:
    """The offset of the first declaration at the start of a line that stands inside an open block."""
    depth = 0
    for mark in marks(text, since):
        depth = max(depth + (mark.text == "{") - (mark.text == "}"), 0)
        if mark.text == "\n" and depth and is_declaration(text, mark.end):
            return mark.end
    return None


def is_declaration(text: str, offset: int) -> bool:
    """Whether the line that starts at `offset` reads as the head of a declaration."""
    if offset > 0 and text[offset - 1] != "\n":
        return False
    match = _DECLARATION.match(text, offset)
    return match is not None


def unclosed(text: str, since: int) -> int | None:
    """The offset of the `{` that most likely lacks its `}`, judged by the indentation of the lines.

    A `}` that stands further left than the line of the `{` it would close belongs to an outer one.
    """
    stack: list[int] = []
    for mark in marks(text, since):
        if mark.text == "{":
            stack.append(mark.start)
        elif mark.text == "}" and stack:
            line_start = text.rfind("\n", 0, mark.start) + 1
            if not text[line_start : mark.start].strip() and len(stack) > 1:
                here = indentation(text, mark.start)
                if here < indentation(text, stack[-1]) and here <= indentation(text, stack[-2]):
                    return stack[-1]
            stack.pop()
    return stack[-1] if stack else None
