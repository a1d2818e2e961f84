"""Hints about characters, strings, numbers and comments."""

from __future__ import annotations

import re

from detc.dsl.diagnostics import closest
from detc.dsl.hint import UNITS, Hint, Place

LONG_UNITS = {
    "epoch": "ep",
    "epochs": "ep",
    "e": "ep",
    "iter": "it",
    "iters": "it",
    "iterations": "it",
    "images": "img",
    "imgs": "img",
    "im": "img",
    "pixels": "px",
    "sec": "s",
    "GB": "GiB",
    "MB": "MiB",
}


def logic(p: Place) -> Hint | None:
    start = p.fault.start
    for written, right in (("&&", "and"), ("||", "or")):
        if p.rest.startswith(written):
            fix = p.edit(start, start + 2, right)
            return Hint(f"`{written}` is written `{right}`", f"write `{right}`", start, start + 2, None, fix)
    return None


def odd_character(p: Place) -> Hint | None:
    text, start = p.text, p.fault.start
    ch = text[start : start + 1]
    if p.fault.kind or not ch:
        return None
    if ch == '"':
        end = start + len(p.rest.rstrip())
        fix = p.edit(end, end, '"')
        message = "this string has no closing quote on its line"
        return Hint(
            message, "starts here", start, end, "strings end on the line they start on", fix, "DET0103"
        )
    if ch == "'":
        match = re.match(r"'([^'\n]*)'", p.rest)
        if match:
            return Hint(
                "strings are written with double quotes", "single quotes", start, start + match.end(),
                None, p.edit(start, start + match.end(), '"' + match.group(1).replace('"', '\\"') + '"'),
            )  # fmt: skip
        return p.here("strings are written with double quotes", "a single quote", help='write "…"')
    if ch in "“”„«»‘’":
        match = re.match(r"[“„«‘](.*?)[”“»’]", p.rest)
        end = start + (match.end() if match else 1)
        mend = p.edit(start, end, f'"{match.group(1)}"') if match else None
        return Hint(
            "strings are written with straight double quotes", "a typographic quote", start, end, None, mend
        )
    if ch == ";":
        return p.here("statements need no `;`", "remove this", "")
    if ch == "!":
        return p.here("`!` is written `not`", "write `not`", "not ")
    if ch == "@":
        return p.here("there are no decorators", "not known here", help="attach settings as arguments")
    if ch == "\\":
        return p.here("lines need no continuation", "remove this", "", help="a statement may run over lines")
    if ch.isdigit():
        return _number(p)
    if ch == "\t" or ch.isspace():
        name = {"\u00a0": "a no-break space", "\u3000": "an ideographic space"}.get(ch, f"U+{ord(ch):04X}")
        return Hint(f"{name} between words", "this blank is not a space", start, start + 1, None,
                    p.edit(start, start + 1, " "), "DET0102")  # fmt: skip
    return None


def _number(p: Place) -> Hint | None:
    start = p.fault.start
    match = re.match(r"([0-9]+(?:\.[0-9]+)?)(\w+)", p.rest)
    if not match:
        return None
    number, tail = match.groups()
    end = start + match.end()
    unit = LONG_UNITS.get(tail) or closest(tail, UNITS)
    if tail.startswith("_"):
        return Hint("numbers are written without `_`", "not a number", start, end, None,
                    p.edit(start, end, number + tail.replace("_", "")))  # fmt: skip
    fix = p.edit(start, end, number + unit) if unit else None
    help = "the units are " + ", ".join(UNITS) + "; names cannot start with a digit"
    label = f"did you mean `{number}{unit}`?" if unit else "neither a number nor a name"
    return Hint(f"unknown unit `{tail}`", label, start, end, help, fix)


def comment(p: Place) -> Hint | None:
    line_start = p.text.rfind("\n", 0, p.fault.start) + 1
    line_end = p.text.find("\n", p.fault.start)
    line = p.text[line_start : line_end if line_end >= 0 else len(p.text)]
    match = re.search(
        r"(?:^|\s)(//|/\*|--(?=\s)|\*/)", re.sub(r'"[^"]*"', lambda m: "_" * len(m.group()), line)
    )
    if not match or "#" in line[: match.start(1)] or line_start + match.start(1) > p.fault.start:
        return None
    start = line_start + match.start(1)
    end = start + 2
    fix = p.edit(start, end, "#") if match.group(1) != "*/" else p.edit(start, end, "")
    return Hint("comments start with `#`", "not a comment here", start, end, None, fix)


def apart(p: Place) -> Hint | None:
    """A number and its unit with a blank between."""
    units = {unit: unit for unit in UNITS} | LONG_UNITS
    for start, word in ((p.fault.start, p.found), (p.fault.begin, p.first)):
        before = re.search(r"(?<![\w.])([0-9]+(?:\.[0-9]+)?)[ \t]+$", p.text[:start])
        if before and word in units:
            end = start + len(word)
            fix = p.edit(before.start(), end, before.group(1) + units[word])
            return Hint("a unit stands right behind its number", f"write `{fix.text}`", before.start(), end,
                        None, fix)  # fmt: skip
    return None


def fused_string(p: Place) -> Hint | None:
    if p.fault.kind == "STRING" and p.before in ("f", "r", "b", "u", "F") and p.before_end == p.fault.start:
        start = p.before_end - 1
        return Hint("strings have no prefix", "remove this", start, start + 1,
                    "messages interpolate {name} by themselves", p.edit(start, start + 1, ""))  # fmt: skip
    if p.found.startswith('"') and p.before == '""' and p.before_end == p.fault.start:
        start = p.before_end - 2
        return Hint("there are no triple-quoted strings", "not a string", start, p.fault.start + 1)
    return None
