"""`where` clauses: whether they hold, and their messages, texts with `{expressions}`."""

from __future__ import annotations

import re
from collections.abc import Iterator

from detc.compiler.expressions.evaluate import Scope, evaluate, truth
from detc.compiler.values import Poisoned, show
from detc.dsl import ast
from detc.dsl.diagnostics import DetError, error
from detc.dsl.parser import parse_expression
from detc.dsl.source import Origin

_BRACES = re.compile(r"\{([^{}]+)\}")


def interpolate(text: str, s: Scope) -> str:
    """A message with its `{expressions}` filled in."""

    def fill(match: re.Match[str]) -> str:
        try:
            value = evaluate(parse_expression(match.group(1), "<message>"), s)
        except (DetError, Poisoned):
            return match.group(0)
        return value.data if isinstance(value.data, str) else show(value)

    return _BRACES.sub(fill, text)


def expressions(stmt: ast.WhereStmt) -> Iterator[ast.Expr]:
    """The expressions in a message.

    Raises:
        DetError: for one that is none, at the message.
    """
    for text in _BRACES.findall(stmt.message):
        try:
            yield parse_expression(text, "<message>")
        except DetError as problem:
            found = problem.diagnostics[0]
            raise error(
                found.code, f"`{{{text}}}`: {found.message}", stmt.message_span, "in this text"
            ) from None


def unmet(stmt: ast.WhereStmt, scope: Scope, place: Origin) -> DetError | None:
    """The report for a `where` that does not hold, or None. `place` is what is built.

    If an edit decided one side of it, the edit is to blame.

    Raises:
        DetError: if the condition itself is wrong.
    """
    holds = evaluate(stmt.condition, scope)
    if truth(holds, Origin(stmt.condition.span, scope.via)):
        return None
    others = [(Origin(stmt.condition.span), "required here")]
    label, because = "instantiated here", holds.origin.because
    if because is not None and because.edited:  # the user's: `derived` leaves out those of the library
        others, place, label = [(place, label), *others], because, "this edit breaks it"
    return error("DET0305", interpolate(stmt.message, scope), place, label, secondary=others)
