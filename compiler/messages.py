"""Messages of `where` clauses: text with `{expressions}`."""

from __future__ import annotations

import re

from detc.compiler.evaluate import Scope, evaluate
from detc.compiler.values import Poisoned, show
from detc.dsl.diagnostics import DetError
from detc.dsl.parser import parse_expression

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
