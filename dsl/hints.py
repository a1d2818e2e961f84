"""Hand-written messages for the mistakes that people make most, each with a fix where one is certain.

Every hint looks at one fault and returns a `Hint`, or None when it does not apply. The first wins.
"""

from __future__ import annotations

from collections.abc import Callable

from detc.dsl import hint_expressions, hint_statements, hint_words
from detc.dsl.hint import Hint, Place
from detc.dsl.recovery import Fault
from detc.dsl.source import Source

HINTS: tuple[Callable[[Place], Hint | None], ...] = (
    hint_words.logic,
    hint_words.odd_character,
    hint_words.fused_string,
    hint_statements.else_if,
    hint_statements.foreign_keyword,
    hint_words.comment,
    hint_expressions.operator,
    hint_words.apart,
    hint_expressions.unclosed_bracket,
    hint_expressions.colon_for_equals,
    hint_expressions.equals_for_colon,
    hint_statements.edit_without_set,
    hint_statements.reserved_as_name,
    hint_expressions.missing_comma,
    hint_statements.outside,
    hint_statements.keyword_typo,
)


def find_hint(source: Source, fault: Fault) -> Hint | None:
    """The first hint that applies to `fault`."""
    place = Place(source, fault)
    for hint in HINTS:
        found = hint(place)
        if found is not None:
            return found
    return None
