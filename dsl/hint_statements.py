"""Hints about statements: words of other languages, typos, statements in the wrong place."""

from __future__ import annotations

import re

from detc.dsl.diagnostics import closest
from detc.dsl.hint import Hint, Place
from detc.dsl.recovery import DECLARING, RESERVED

_INSTEAD = {
    "for": ("repeat", "loops are written `repeat i in 0 .. n { … }`"),
    "foreach": ("repeat", "loops are written `repeat i in 0 .. n { … }`"),
    "while": (None, "there are no open-ended loops; `repeat i in 0 .. n { … }` runs over a known range"),
    "if": ("when", "conditions on statements are written `when cond { … } else { … }`"),
    "def": ("component", "there are no functions; a reusable part is a `component`"),
    "fn": ("component", "there are no functions; a reusable part is a `component`"),
    "func": ("component", "there are no functions; a reusable part is a `component`"),
    "function": ("component", "there are no functions; a reusable part is a `component`"),
    "class": ("component", "a reusable part is a `component`, a detector is a `model`"),
    "module": ("component", "a reusable part is a `component`, a detector is a `model`"),
    "return": (None, "results are declared: `output name = value`"),
    "var": ("let", "values are bound with `let`, wires with `name = …`"),
    "const": ("let", "values are bound with `let`"),
    "val": ("let", "values are bound with `let`"),
    "auto": ("let", "values are bound with `let`"),
    "assert": ("expect", 'write `where cond else "message"` in a component and `expect cond` in a test'),
    "elif": ("else when", "write `} else when cond { … }`"),
    "pass": (None, "an empty block is written `{ }`"),
    "from": (None, "imports are written `import module { Name }`"),
    "import": (None, "imports stand at the top of the file, before the first declaration"),
    "use": ("import", "imports are written `import module { Name }`"),
    "include": ("import", "imports are written `import module { Name }`"),
    "delete": ("remove", "write `remove path`"),
    "del": ("remove", "write `remove path`"),
    "override": ("set", "write `set path = value`"),
    "param": (None, "params stand in the header: `component Name(width: int = 256) { … }`"),
}  # fmt: skip


def foreign_keyword(p: Place) -> Hint | None:
    """A word of another language at the start of the broken statement."""
    start = p.fault.begin
    word = p.found if p.at_statement or p.at_declaration else p.first
    if word == p.found:
        start = p.fault.start
    if word not in _INSTEAD or not p.text.startswith(word, start):
        return None
    if word == "if" and p.before == "else":
        return None
    body = (
        word == "import" and p.fault.restart == "statement" and re.match(r"import\s+[\w\"]", p.text[start:])
    )
    if word in ("from", "import") and not (p.at_declaration and word == p.found) and not body:
        return None
    right, help = _INSTEAD[word]
    inside = p.fault.restart == "statement"
    certain = (right in ("repeat", "when", "let", "else when") and inside) or (
        right == "component" and not inside
    )
    fix = p.edit(start, start + len(word), right) if right and certain else None
    message = (
        f"`{word}` is not a statement of this language"
        if word != "import"
        else "an import in the wrong place"
    )
    label = f"write `{right}`" if right else "not known here"
    return Hint(message, label, start, start + len(word), help, fix)


def else_if(p: Place) -> Hint | None:
    if p.before == "else" and p.found == "if":
        return p.here("`else if` is written `else when`", "write `when`", "when")
    if p.found in ("elif", "elsif") and p.before == "}":
        return p.here(f"`{p.found}` is written `else when`", "write `else when`", "else when")
    if p.found == "else" and p.before == "}":
        return p.here("this `else` belongs to no `when`", "no `when` before it")
    return None


def reserved_as_name(p: Place) -> Hint | None:
    if "NAME" not in p.fault.accepts or p.at_statement or p.at_declaration:
        return None
    words = RESERVED | {"for", "in", "if", "else", "and", "or", "not", "true", "false", "none"}
    if p.found not in words or "\n" in p.text[p.before_end : p.fault.start]:
        return None
    return p.here(
        f"`{p.found}` is a reserved word and cannot be a name", "reserved", help="choose another name"
    )


def keyword_typo(p: Place) -> Hint | None:
    """`nodde x = …`, `modell X { … }`."""
    word = p.first
    if not word or word in RESERVED or word in DECLARING:
        return None
    inside = p.fault.restart == "statement"
    if inside and (p.fault.kind != "NAME" and p.found not in ("=", ":", "(", "[")):
        return None
    if not inside and p.fault.start != p.fault.begin:
        return None
    pool = RESERVED | {"frozen"} if inside else DECLARING | {"import"}
    if inside and not re.match(r"\w+[ \t]+[A-Za-z_]", p.text[p.fault.begin :]):
        return None
    right = closest(word, pool)
    if right is None:
        return None
    start = p.fault.begin
    return Hint(f"unknown statement `{word}`" if inside else f"unknown declaration `{word}`",
                f"did you mean `{right}`?", start, start + len(word), None,
                p.edit(start, start + len(word), right))  # fmt: skip


def edit_without_set(p: Place) -> Hint | None:
    """`neck.width = 5`: only `set` reaches into a part; `self.conv = …`: there is no self."""
    if p.found != "." or p.before != p.first or not re.match(r"\.\w[\w.\[\], *]*=(?!=)", p.rest):
        return None
    start = p.fault.begin
    if p.first == "self":
        return Hint("there is no `self`: the parts of a component have plain names", "leave it out", start,
                    start + len("self."), "write `node conv = Conv2d(64)`")  # fmt: skip
    return Hint("a value of a part is changed with `set`", "write `set` before it", start, start + len(p.first),
                f"set {p.first}… = …, in a body that extends another", p.edit(start, start, "set "))  # fmt: skip


def outside(p: Place) -> Hint | None:
    """A statement where only declarations may stand."""
    if not p.at_declaration:
        return None
    if p.found == "det":
        return p.here("`det 1` is the first line of a file", "too late here")
    if p.found in RESERVED or re.match(r"[A-Za-z_]\w*(\[[^\]\n]*\])?\s*=", p.rest):
        return p.here("a statement outside of a declaration", "not inside `{ }`",
                      help="put it into a component, model, data, train, target or run")  # fmt: skip
    return None
