"""Where the library has a name that a file uses without importing it, for the help of a report."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache

from detc.compiler import primitives
from detc.compiler.expressions.modules import STDLIB, Unread
from detc.dsl.diagnostics import closest

STEPS = "std.data.steps"


@cache
def library() -> dict[str, str]:
    """Every name that the library offers, and the module to import it from."""
    found: dict[str, str] = {}
    for path in sorted(STDLIB.rglob("*.det")):
        module = ".".join(("std", *path.relative_to(STDLIB).with_suffix("").parts[:1]))
        for name in Unread.of(path, lambda module: None).mentions:
            found.setdefault(name, module)
    for module in primitives.modules():
        found.update((name, module) for name in primitives.names_in(module) if not name.startswith("_"))
    return found


def suggest(name: str, known: list[str], called: bool = True) -> tuple[str, str | None, str | None]:
    """What to say of an unknown name: the end of a label, a help, and a near name of those in scope for a fix.

    Names of other letter case, and those with a number behind them (`resnet50`), are found too if the name is
    called; a wire's name is often a small letter away from some class.
    """
    there = _in_library(name, known, called)
    if there is not None:
        module = library()[there]
        if module == STEPS:
            return "", f"the library has it: write steps.{there}(…), and import std.data {{ steps }}", None
        meant = "" if there == name else f"; did you mean `{there}`?"
        return meant, f"the library has it: import {module} {{ {there} }}", None
    forms = [*_forms(name)] if called else []
    near = next((k for k in known if k.lower() in forms), None) or closest(name, known)
    near = near or next((k for k in known if len(k) > 4 and name.startswith(k)), None)
    return f"; did you mean `{near}`?" if near else "", None, near


def _in_library(name: str, known: list[str], called: bool) -> str | None:
    names = library()
    if name in names or not called:
        return name if name in names else None
    short = {n.lower() for n in known}
    for form in _forms(name):
        if form in short:
            return None
        found = next((n for n in names if n.lower() == form), None)
        if found is not None:
            return found
    return None


def _forms(name: str) -> Iterator[str]:
    """The name in small letters as others write it: `resnet50`, `faster_rcnn`."""
    plain = name.lower()
    yield plain
    yield plain.replace("_", "")
    yield re.sub(r"[_-]?\d+$", "", plain).replace("_", "")
