"""Error recovery: find the first fault of a text, and overwrite the broken statement so that parsing can go on.

Overwriting keeps every offset true. The start of the broken statement comes from the parser's own stack: the
nearest state in which a statement, a declaration or a param may start.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any

from detc.dsl.scan import CLOSING, OPENING, comments, indentation, marks

if TYPE_CHECKING:
    from lark import Lark, Token, Tree

RESERVED = frozenset(
    "input output node frozen shadow state next let loss where repeat when at expect set replace remove insert "
    "tie".split()
)
DECLARING = frozenset("component model data train target interface patch run test".split())
_DECLARATION = re.compile(
    r"(component|model|data|train|target|interface|patch|run)[ \t]+[A-Za-z_]\w*[ \t]*($|[({:\n#]|extends\b|with\b|for\b)"
    r"|run[ \t]*\{|test[ \t]*\""
)
HEADERS = DECLARING | frozenset("when repeat at for if while def class fn func function struct else".split())


# Closing braces to put in: (offset behind which, how many).
Closings = Sequence[tuple[int, int]]


@dataclass(frozen=True)
class Fault:
    """The first place where a text stops being a sentence of the grammar.

    `start`..`end` is the offending token (empty at the end of the text), `kind` its terminal ("" if no terminal
    matches there), `previous` the last good token, `begin` the start of the broken statement.
    """

    start: int
    end: int
    kind: str
    previous: Token | None
    begin: int
    restart: str
    accepts: frozenset[str] = field(repr=False)


def attempt(lark: Lark, text: str, start: str, closings: Closings = ()) -> Tree[Any] | Fault:
    """Parse `text`; return its tree or the first fault."""
    from lark.exceptions import UnexpectedInput

    tokens, result = _feed(lark, text, start, closings)
    if not isinstance(result, UnexpectedInput):
        return result
    where, kind, token = result.pos_in_stream, "", getattr(result, "token", None)
    if token is not None:
        where, kind = token.start_pos, token.type
    if where is None or kind == "$END":
        where = len(text)
    end = token.end_pos if token is not None and kind != "$END" else where + (not kind)
    if tokens and tokens[-1].type == "LBRACE" and text[where:end] in RESERVED:
        # A block where an expression was due, `repeat i in { let … }`: its `{` was taken for a record's.
        brace = tokens.pop()
        where, end, kind = brace.start_pos, brace.end_pos, brace.type
    # The offending token may have made the parser reduce before it was refused, so ask a parser that has not
    # seen it what it would have accepted.
    again = lark.parse_interactive(text, start=start)
    for _ in _steps(again, text, closings, len(tokens)):
        pass
    previous = tokens[-1] if tokens else None
    accepts = frozenset(again.accepts())
    begin, restart = _begin(lark, again.parser_state, where)
    fresh = level(accepts)
    if previous is not None and begin < where and fresh:
        # What stands before is complete; on a new line or behind a block the fault is in something new.
        if previous.type == "RBRACE" or "\n" in text[previous.end_pos : where]:
            begin, restart = where, fresh
    return Fault(where, end or where, kind, previous, begin, restart, accepts)


def _feed(lark: Lark, text: str, start: str, closings: Closings) -> tuple[list[Token], Any]:
    from lark import Token
    from lark.exceptions import UnexpectedInput

    parser = lark.parse_interactive(text, start=start)
    tokens: list[Token] = []
    try:
        for token in _steps(parser, text, closings, None):
            tokens.append(token)
        end = Token.new_borrow_pos("$END", "", tokens[-1]) if tokens else Token("$END", "", 0, 1, 1)
        return tokens, parser.parser_state.feed_token(end, True)
    except UnexpectedInput as problem:
        return tokens, problem


def _steps(parser: Any, text: str, closings: Closings, limit: int | None) -> Iterator[Token]:
    """Feed the tokens of `text` one by one, with the closing braces that recovery has put in, and yield them."""
    from lark import Token

    state, stream = parser.parser_state, parser.lexer_thread.lex(parser.parser_state)
    pending = sorted(closings)
    count = 0
    while limit is None or count < limit:
        # Lexing depends on the parser's state, so a closing is fed before the token behind it is read.
        if pending and parser.lexer_thread.state.line_ctr.char_pos >= pending[0][0]:
            edge = pending[0][0]
            token = Token("RBRACE", "}", edge, 1, 1, 1, 1, edge)
            pending[0] = (edge, pending[0][1] - 1)
            if not pending[0][1]:
                del pending[0]
        else:
            found = next(stream, None)
            if found is None:
                return
            token = found
        state.feed_token(token)
        count += 1
        yield token


def _begin(lark: Lark, state: Any, default: int) -> tuple[int, str]:
    """Walk down the stack to the nearest state that may start something; return where that something starts."""
    from lark.parsers.lalr_analysis import Shift

    table = state.parse_conf.parse_table.states
    params = _param_states(lark)
    for depth in range(len(state.state_stack) - 1, -1, -1):
        number = state.state_stack[depth]
        if number in params:
            return _first_position(state.value_stack[depth:], default), "param"
        shifted = {name for name, action in table[number].items() if action[0] is Shift}
        kind = level(shifted)
        if kind is not None:
            return _first_position(state.value_stack[depth:], default), kind
    return _first_position(state.value_stack, default), "declaration"


def level(terminals: Collection[str]) -> str | None:
    """What may start where these terminals are good: a statement, a declaration, or nothing of that size."""
    if "_LET" in terminals:
        return "statement"
    # Where a plain name is good too, the words of declarations are only names.
    return "declaration" if "_INTERFACE" in terminals and "NAME" not in terminals else None


@cache
def _param_states(lark: Lark) -> frozenset[int]:
    """The parser's states in which a param may start."""
    found = set()
    for text in ("component A(", "component A(a: int,", "component A(a: int, b: int,"):
        parser = lark.parse_interactive(text, start="start")
        for _ in _steps(parser, text, (), None):
            pass
        found.add(parser.parser_state.state_stack[-1])
    return frozenset(found)


def _first_position(values: list[Any], default: int) -> int:
    for value in values:
        place = value if hasattr(value, "start_pos") else getattr(value, "meta", None)
        position = getattr(place, "start_pos", None)
        if position is not None:
            return int(position)
    return default


def overwrite(text: str, fault: Fault) -> tuple[str, int | None]:
    """Blank the broken statement of `fault`.

    A broken header keeps its block, under a made-up header, so that faults inside it are found too. Returns the
    new text and the offset of that made-up header, if any.
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


def starts_next(text: str, fault: Fault) -> bool:
    """Whether the offending token begins the next statement, so that the fault is at the end of the last one."""
    if fault.previous is None or fault.start >= len(text) or fault.begin >= fault.start:
        return False
    before = fault.previous.end_pos or 0
    if "\n" not in text[before : fault.start]:
        return False
    first = text[fault.start : fault.end]
    if first in RESERVED or (first in DECLARING and indentation(text, fault.start) == 0):
        return True
    return indentation(text, fault.start) <= indentation(text, fault.begin) and first not in CLOSING


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
        elif ch == "\n" and mark.start >= fault.start:
            if not stack or _dedents(text, mark.end, base):
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
    found = [c for c in comments(text[:offset])]
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
