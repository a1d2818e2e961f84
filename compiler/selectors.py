"""Selectors of parameters: `backbone`, `"**.norm"`, `"head.*.bias"`."""

from __future__ import annotations

import re
from functools import cache

_INDEX = re.compile(r"\[[^\]]*\]$")


@cache
def _parts(text: str) -> tuple[str, ...]:
    depth, parts, current = 0, [], ""
    for ch in text:
        depth += (ch == "[") - (ch == "]")
        if ch == "." and depth == 0:
            parts.append(current)
            current = ""
        else:
            current += ch
    return (*parts, current)


def _segment(pattern: str, name: str) -> bool:
    if "[" not in pattern:
        name = _INDEX.sub("", name)
    regex = "".join(".*" if c == "*" else re.escape(c) for c in pattern)
    return re.fullmatch(regex, name) is not None


def matches(selector: str, name: str) -> bool:
    """True if `selector` names the parameter (or node) `name`, or something that contains it.

    `**` stands for any number of path segments, `*` for any characters of one; a segment without an index
    matches all indices (`norm` matches `norm[0, 1]`).
    """
    return _match(_parts(selector), _parts(name))


def _match(pattern: tuple[str, ...], name: tuple[str, ...]) -> bool:
    if not pattern:
        return True
    if pattern[0] == "**":
        return any(_match(pattern[1:], name[i:]) for i in range(len(name) + 1)) if len(pattern) > 1 else True
    return bool(name) and _segment(pattern[0], name[0]) and _match(pattern[1:], name[1:])
