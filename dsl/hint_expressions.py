"""Hints about arguments, params, brackets and operators."""

from __future__ import annotations

import re

from detc.dsl.hint import Hint, Place
from detc.dsl.recovery import RESERVED, starts_next
from detc.dsl.scan import CLOSING, OPENING, marks

_STARTS_VALUE = frozenset(
    {"NAME", "STRING", "INT", "FLOAT", "QUANTITY", "SIZE", "TRUE", "FALSE", "NONE", "LSQB"}
)


def colon_for_equals(p: Place) -> Hint | None:
    accepts = p.fault.accepts
    if p.found == ":" and "EQUAL" in accepts:
        return p.here("arguments and fields are written `name = value`", "write `=`", " =")
    quoted = re.match(r'"(\w+)"\s*:', p.rest)
    if quoted and p.before in ("{", ","):
        end = p.fault.start + quoted.end()
        fix = p.edit(p.fault.start, end, f"{quoted.group(1)} =")
        message = "fields of a record are names, written `name = value`"
        return Hint(message, "a quoted field", p.fault.start, end, None, fix)
    if p.found == "(" and p.first in ("node", "frozen", "shadow", "output", "state") and "EQUAL" in accepts:
        colon = p.text.rfind(":", p.fault.begin, p.fault.start)
        if colon >= 0:
            message = f"`{p.first}` gives its value after `=`; what follows `:` is only an interface"
            return Hint(message, "write `=`", colon, colon + 1, None, p.edit(colon, colon + 1, " ="))
    return None


def equals_for_colon(p: Place) -> Hint | None:
    accepts = p.fault.accepts
    if p.found == "=" and p.fault.restart == "param" and "COLON" in accepts and "EQUAL" not in accepts:
        types = 'the types are int, float, bool, str, size, labels, list, "a" | "b" and interfaces'
        return p.here(
            "a param needs a type: `name: type = value`", "a type is missing before this", help=types
        )
    if p.found in (",", ")") and "COLON" in accepts and p.fault.restart == "param":
        start = p.before_end - len(p.before)
        return Hint("a param needs a type: `name: type`", "without a type", start, p.before_end)
    if p.found == "=" and p.first == "input":
        return p.here("an input has a type and no value: `input name: type`", "no value here")
    return None


def missing_comma(p: Place) -> Hint | None:
    accepts = p.fault.accepts
    closers = {"RPAR", "RSQB", "RBRACE"}
    inside = "COMMA" in accepts and accepts & closers
    if not inside or p.fault.previous is None:
        return None
    if p.fault.kind in _STARTS_VALUE or p.found == "{" or p.found in RESERVED | {"in"}:
        at = p.before_end
        return Hint("a `,` is missing", "add `,` here", at, at, None, p.edit(at, at, ","))
    return None


def unclosed_bracket(p: Place) -> Hint | None:
    """A `(` or `[` that is still open where the next statement or the end of the block comes."""
    pairs = {"RPAR": ("(", ")"), "RSQB": ("[", "]")}
    closer = next((c for c in pairs if c in p.fault.accepts), None)
    if closer is None:
        return None
    opening, closing = pairs[closer]
    stack = []
    for mark in marks(p.text[: p.fault.start], p.fault.begin):
        if mark.text in OPENING:
            stack.append(mark)
        elif mark.text in CLOSING and stack:
            stack.pop()
    if not stack or stack[-1].text != opening:
        return None
    at, place = p.before_end, stack[-1]
    if p.found in (")", "]"):
        return p.here(f"this `{opening}` is closed by `{p.found}`", f"write `{closing}`", closing)
    if p.found == "}" or p.fault.kind == "$END" or starts_next(p.text, p.fault):
        return Hint(f"this `{opening}` is never closed", "opened here", place.start, place.end, None,
                    p.edit(at, at, closing))  # fmt: skip
    return None


def operator(p: Place) -> Hint | None:
    two = p.text[p.fault.start : p.fault.start + 2]
    last_two = p.text[max(p.fault.start - 1, 0) : p.fault.start + 1]
    if two in ("+=", "-=", "*=", "/=") or (p.found == "=" and last_two in ("+=", "-=", "*=", "/=")):
        start = p.fault.start if two[1:] == "=" else p.fault.start - 1
        help = "bind a new name: `y = x + …`, or an element of an array: `x[i + 1] = x[i] + …`"
        message = "nothing is assigned twice, so there is no `+=`"
        return Hint(message, "not known here", start, start + 2, help)
    if last_two == ":=":
        start = p.fault.start - 1
        return Hint("`:=` is written `=`", "write `=`", start, start + 2, None, p.edit(start, start + 2, "="))
    if last_two == "**":
        start = p.fault.start - 1
        return Hint("there is no power operator", "not known here", start, start + 2, "write `x * x`")
    for arrow in ("=>", "|>"):
        if arrow in (two, last_two):
            start = p.fault.start - (two != arrow)
            fix = p.edit(start, start + 2, "->")
            return Hint(f"`{arrow}` is written `->`", "write `->`", start, start + 2, None, fix)
    if p.found == "." and re.match(r"\.[0-9]", p.rest):
        return p.here("a number starts with a digit", "write `0.`", "0.")
    if p.found == "." and p.fault.previous is not None and p.fault.previous.type == "INT":
        return p.here("a number ends with a digit", "write `.0`", ".0")
    if p.found == "=" and p.before == "=" and last_two == "==":
        start = p.fault.start - 1
        return Hint("`==` compares; a value is bound with `=`", "write `=`", start, start + 2, None,
                    p.edit(start, start + 2, "="))  # fmt: skip
    if p.found == "=" and p.first == "repeat":
        return p.here("loops are written `repeat i in 0 .. n { … }`", "write `in`", "in")
    if p.found == "=" and p.first in ("where", "when", "expect"):
        return p.here("`=` binds; values are compared with `==`", "write `==`", "==")
    if p.found == "," and p.at_statement:
        return p.here("statements are not separated by `,`", "remove this", "")
    if p.fault.kind in ("ADDOP", "MULOP", "CMP") and _in_chain(p):
        return p.here(
            f"`->` binds less tightly than `{p.found}`", "the chain ends before this",
            help="put the chain in parentheses: `(a -> b) + c`",
        )  # fmt: skip
    return None


def _in_chain(p: Place) -> bool:
    statement = p.text[p.fault.begin : p.fault.start]
    return "->" in statement.rpartition("(")[2] or "->" in statement
