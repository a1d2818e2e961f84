"""Finding the first syntax fault of a text, and where the broken statement around it begins.

The start of the broken statement comes from the parser's own stack: the nearest state in which a statement, a
declaration or a param may start.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any

from detc.dsl.scan import CLOSING, indentation

if TYPE_CHECKING:
    from lark import Lark, Token, Tree

RESERVED = frozenset(
    ["input", "output", "node", "frozen", "shadow", "state", "next", "let", "loss", "where", "repeat", "when"]
    + ["at", "expect", "set", "replace", "remove", "insert", "tie"]
)
DECLARING = frozenset(["component", "model", "data", "train", "target", "interface", "patch", "run", "test"])


# Closing braces to put in: (offset behind which, how many).
Closings = Sequence[tuple[int, int]]


@dataclass(frozen=True)
class Fault:
    """The first place where a text stops being a sentence of the grammar.

    `start`..`end` is the offending token (empty at the end of the text), `kind` its terminal ("" if no
    terminal matches there), `previous` the last good token, `begin` the start of the broken statement.
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
        if "//" not in text:
            return result
        blamed = next((i for i, t in enumerate(tokens) if _is_foreign_comment(text, t)), None)
        if blamed is None:
            return result
        return _fault_at(lark, text, start, closings, tokens[:blamed], tokens[blamed])
    where, kind, token = result.pos_in_stream, "", getattr(result, "token", None)
    if token is not None:
        where, kind = token.start_pos, token.type
    if where is None or kind == "$END":
        where = len(text)
    end = token.end_pos if token is not None and kind != "$END" else where + (not kind)
    blamed = _blame(text, tokens, text[where:end])
    if blamed is not None:
        return _fault_at(lark, text, start, closings, tokens[:blamed], tokens[blamed])
    return _fault(lark, text, start, closings, tokens, (where, end or where, kind))


def _fault_at(
    lark: Lark, text: str, start: str, closings: Closings, tokens: list[Token], blamed: Token
) -> Fault:
    """A fault at a token that the parser took, though it is the one that is wrong."""
    place = (blamed.start_pos or 0, blamed.end_pos or 0, blamed.type)
    return _fault(lark, text, start, closings, tokens, place)


def _fault(
    lark: Lark, text: str, start: str, closings: Closings, tokens: list[Token], place: tuple[int, int, str]
) -> Fault:
    """Complete a fault at `place` (start, end, terminal), with `tokens` before it."""
    where, end, kind = place
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
        apart = previous.type == "RBRACE" or "\n" in text[previous.end_pos : where]
        begin, restart = (where, fresh) if apart else (begin, restart)
    return Fault(where, end, kind, previous, begin, restart, accepts)


def _blame(text: str, tokens: list[Token], found: str) -> int | None:
    """The index of an earlier token that is really at fault, or None."""
    if tokens and tokens[-1].type == "LBRACE" and found in RESERVED:
        # A block where an expression was due, `repeat i in { let … }`: its `{` was taken for a record's.
        return len(tokens) - 1
    if found == "=" and len(tokens) > 1 and tokens[-1].type == "NAME" and _first_on_line(text, tokens[-1]):
        # `y = x ->` and on the next line `z = …`, whose `z` was taken for the end of the statement above it
        before, name = tokens[-2].start_pos or 0, tokens[-1].start_pos or 0
        if tokens[-2].type != "COMMA" and indentation(text, name) <= indentation(text, before):
            return len(tokens) - 1
    for index in range(len(tokens) - 1, max(len(tokens) - 40, 0), -1):
        if tokens[index].type in ("LBRACE", "RBRACE"):
            break
        if tokens[index].type == "_IF" and found == "{" and _first_on_line(text, tokens[index]):
            return index  # `if a { … }` as a statement: it was taken for the end of the expression above it
        if _is_foreign_comment(text, tokens[index]):
            return index
    return None


def _is_foreign_comment(text: str, token: Token) -> bool:
    """A `//` at the start of a line: a comment of another language, taken for a division."""
    return token == "//" and _first_on_line(text, token)


def _first_on_line(text: str, token: Token) -> bool:
    start = token.start_pos or 0
    return not text[text.rfind("\n", 0, start) + 1 : start].strip()


def _feed(lark: Lark, text: str, start: str, closings: Closings) -> tuple[list[Token], Any]:
    from lark import Token
    from lark.exceptions import UnexpectedInput

    parser = lark.parse_interactive(text, start=start)
    tokens: list[Token] = []
    try:
        for token in _steps(parser, text, closings, None):
            tokens.append(token)  # noqa: PERF402 - they are needed when the next step raises
        end = Token.new_borrow_pos("$END", "", tokens[-1]) if tokens else Token("$END", "", 0, 1, 1)
        return tokens, parser.parser_state.feed_token(end, True)
    except UnexpectedInput as problem:
        return tokens, problem


def _steps(parser: Any, text: str, closings: Closings, limit: int | None) -> Iterator[Token]:
    """Feed the tokens of `text` one by one, with the braces that recovery has put in, and yield them."""
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
    """Walk down the stack to the nearest state that may start something; return where that starts."""
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


def starts_next(text: str, fault: Fault) -> bool:
    """Whether the offending token begins the next statement, so that the last one is what is broken."""
    if fault.previous is None or fault.start >= len(text) or fault.begin >= fault.start:
        return False
    before = fault.previous.end_pos or 0
    if "\n" not in text[before : fault.start]:
        return False
    first = text[fault.start : fault.end]
    if first in RESERVED or (first in DECLARING and indentation(text, fault.start) == 0):
        return True
    return indentation(text, fault.start) <= indentation(text, fault.begin) and first not in CLOSING
