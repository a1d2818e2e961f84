"""Hand-written messages for the mistakes that people make most, each with a fix where one is certain.

Every hint looks at one fault and returns a `Hint`, or None when it does not apply. The first that applies wins.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from detc.dsl.diagnostics import Edit, closest
from detc.dsl.recovery import DECLARING, RESERVED, Fault, level, starts_next
from detc.dsl.scan import CLOSING, OPENING, marks
from detc.dsl.source import Source, Span

UNITS = ("ep", "it", "img", "ms", "s", "px", "GiB", "MiB", "%")
_STARTS_VALUE = frozenset({"NAME", "STRING", "INT", "FLOAT", "QUANTITY", "SIZE", "TRUE", "FALSE", "NONE", "LSQB"})


@dataclass(frozen=True)
class Hint:
    """What to say instead of "expected …, found …". `start`..`end` is the place to point at."""

    message: str
    label: str
    start: int
    end: int
    help: str | None = None
    fix: Edit | None = None
    code: str = "DET0101"


@dataclass(frozen=True)
class Place:
    """A fault with the text around it."""

    source: Source
    fault: Fault

    @property
    def text(self) -> str:
        return self.source.text

    @property
    def found(self) -> str:
        """The offending token."""
        return self.text[self.fault.start : self.fault.end]

    @property
    def rest(self) -> str:
        """The text from the offending token to the end of its line."""
        end = self.text.find("\n", self.fault.start)
        return self.text[self.fault.start : end if end >= 0 else len(self.text)]

    @property
    def before(self) -> str:
        """The last good token, or ""."""
        return str(self.fault.previous) if self.fault.previous is not None else ""

    @property
    def before_end(self) -> int:
        """The offset behind the last good token."""
        return (self.fault.previous.end_pos or 0) if self.fault.previous is not None else 0

    @property
    def at_statement(self) -> bool:
        """Whether the offending token stands where a statement may start."""
        return level(self.fault.accepts) == "statement"

    @property
    def at_declaration(self) -> bool:
        return level(self.fault.accepts) == "declaration"

    @property
    def first(self) -> str:
        """The first word of the broken statement."""
        match = re.compile(r"\w+").match(self.text, self.fault.begin)
        return match.group() if match else ""

    def edit(self, start: int, end: int, text: str) -> Edit:
        return Edit(Span(self.source, start, end), text)

    def here(self, message: str, label: str, put: str | None = None, help: str | None = None) -> Hint:
        """A hint at the offending token, which `put` replaces."""
        start, end = self.fault.start, self.fault.end
        fix = None if put is None else self.edit(start, end, put)
        return Hint(message, label, start, end, help, fix)


def _odd_character(p: Place) -> Hint | None:
    text, start = p.text, p.fault.start
    ch = text[start : start + 1]
    if p.fault.kind or not ch:
        return None
    if ch == '"':
        end = start + len(p.rest.rstrip())
        fix = p.edit(end, end, '"')
        message = "this string has no closing quote on its line"
        return Hint(message, "starts here", start, end, "strings end on the line they start on", fix, "DET0103")
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
        fix = p.edit(start, end, f'"{match.group(1)}"') if match else None
        return Hint('strings are written with straight double quotes', "a typographic quote", start, end, None, fix)
    if ch == ";":
        return p.here("statements need no `;`", "remove this", "")
    for written, right in (("&&", "and"), ("||", "or")):
        if p.rest.startswith(written):
            fix = p.edit(start, start + 2, right)
            return Hint(f"`{written}` is written `{right}`", f"write `{right}`", start, start + 2, None, fix)
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
    words = {"epoch": "ep", "epochs": "ep", "e": "ep", "iter": "it", "iters": "it", "iterations": "it",
             "images": "img", "imgs": "img", "im": "img", "pixels": "px", "sec": "s", "GB": "GiB", "MB": "MiB"}  # fmt: skip
    unit = words.get(tail) or closest(tail, UNITS)
    if tail.startswith("_"):
        return Hint("numbers are written without `_`", "not a number", start, end, None,
                    p.edit(start, end, number + tail.replace("_", "")))  # fmt: skip
    fix = p.edit(start, end, number + unit) if unit else None
    help = "the units are " + ", ".join(UNITS) + "; names cannot start with a digit"
    label = f"did you mean `{number}{unit}`?" if unit else "neither a number nor a name"
    return Hint(f"unknown unit `{tail}`", label, start, end, help, fix)


def _comment(p: Place) -> Hint | None:
    line_start = p.text.rfind("\n", 0, p.fault.start) + 1
    line_end = p.text.find("\n", p.fault.start)
    line = p.text[line_start : line_end if line_end >= 0 else len(p.text)]
    match = re.search(r"(?:^|\s)(//|/\*|--(?=\s)|\*/)", re.sub(r'"[^"]*"', lambda m: "_" * len(m.group()), line))
    if not match or "#" in line[: match.start(1)] or line_start + match.start(1) > p.fault.start:
        return None
    start = line_start + match.start(1)
    end = start + 2
    fix = p.edit(start, end, "#") if match.group(1) != "*/" else p.edit(start, end, "")
    return Hint("comments start with `#`", "not a comment here", start, end, None, fix)


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


def _foreign_keyword(p: Place) -> Hint | None:
    """A word of another language at the start of the broken statement."""
    start = p.fault.begin
    word = p.found if p.at_statement or p.at_declaration else p.first
    if word == p.found:
        start = p.fault.start
    if word not in _INSTEAD or not p.text.startswith(word, start):
        return None
    if word == "if" and p.before == "else":
        return None
    if word in ("from", "import") and not (p.at_declaration and word == p.found):
        return None
    right, help = _INSTEAD[word]
    inside = p.fault.restart == "statement"
    certain = right in ("repeat", "when", "let", "else when") and inside or right == "component" and not inside
    fix = p.edit(start, start + len(word), right) if right and certain else None
    message = f"`{word}` is not a statement of this language" if word != "import" else "an import in the wrong place"
    label = f"write `{right}`" if right else "not known here"
    return Hint(message, label, start, start + len(word), help, fix)


def _else_if(p: Place) -> Hint | None:
    if p.before == "else" and p.found == "if":
        return p.here("`else if` is written `else when`", "write `when`", "when")
    if p.found in ("elif", "elsif") and p.before == "}":
        return p.here(f"`{p.found}` is written `else when`", "write `else when`", "else when")
    if p.found == "else" and p.before == "}":
        return p.here("this `else` belongs to no `when`", "no `when` before it")
    return None


def _colon_for_equals(p: Place) -> Hint | None:
    accepts = p.fault.accepts
    if p.found == ":" and "EQUAL" in accepts:
        return p.here("arguments and fields are written `name = value`", "write `=`", " =")
    quoted = re.match(r'"(\w+)"\s*:', p.rest)
    if quoted and p.before in ("{", ","):
        end = p.fault.start + quoted.end()
        fix = p.edit(p.fault.start, end, f"{quoted.group(1)} =")
        return Hint("fields of a record are names, written `name = value`", "a quoted field", p.fault.start, end,
                    None, fix)  # fmt: skip
    if p.found == "(" and p.first in ("node", "frozen", "shadow", "output", "state") and "EQUAL" in accepts:
        colon = p.text.rfind(":", p.fault.begin, p.fault.start)
        if colon >= 0:
            return Hint(f"`{p.first}` gives its value after `=`; what follows `:` is only an interface",
                        "write `=`", colon, colon + 1, None, p.edit(colon, colon + 1, " ="))  # fmt: skip
    return None


def _equals_for_colon(p: Place) -> Hint | None:
    accepts = p.fault.accepts
    if p.found == "=" and p.fault.restart == "param" and "COLON" in accepts and "EQUAL" not in accepts:
        return p.here("a param needs a type: `name: type = value`", "a type is missing before this",
                      help="the types are int, float, bool, str, size, labels, list, \"a\" | \"b\", interfaces")  # fmt: skip
    if p.found in (",", ")") and "COLON" in accepts and p.fault.restart == "param":
        return Hint("a param needs a type: `name: type`", "without a type", p.fault.previous.start_pos or 0,
                    p.before_end) if p.fault.previous is not None else None  # fmt: skip
    if p.found == "=" and p.first == "input":
        return p.here("an input has a type and no value: `input name: type`", "no value here")
    return None


def _missing_comma(p: Place) -> Hint | None:
    accepts = p.fault.accepts
    closers = {"RPAR", "RSQB", "RBRACE"}
    inside = "COMMA" in accepts and accepts & closers
    if not inside or p.fault.previous is None:
        return None
    if p.fault.kind in _STARTS_VALUE or p.found == "{" or p.found in RESERVED | {"in"}:
        at = p.before_end
        return Hint("a `,` is missing", "add `,` here", at, at, None, p.edit(at, at, ","))
    return None


def _unclosed_bracket(p: Place) -> Hint | None:
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


def _apart(p: Place) -> Hint | None:
    """A number and its unit with a blank between."""
    units = {**{unit: unit for unit in UNITS}, "epochs": "ep", "epoch": "ep", "iters": "it", "images": "img"}
    for start, word in ((p.fault.start, p.found), (p.fault.begin, p.first)):
        before = re.search(r"(?<![\w.])([0-9]+(?:\.[0-9]+)?)[ \t]+$", p.text[:start])
        if before and word in units:
            end = start + len(word)
            fix = p.edit(before.start(), end, before.group(1) + units[word])
            return Hint("a unit stands right behind its number", f"write `{fix.text}`", before.start(), end,
                        None, fix)  # fmt: skip
    return None


def _operator(p: Place) -> Hint | None:
    two = p.text[p.fault.start : p.fault.start + 2]
    last_two = p.text[max(p.fault.start - 1, 0) : p.fault.start + 1]
    if two in ("+=", "-=", "*=", "/=") or (p.found == "=" and last_two in ("+=", "-=", "*=", "/=")):
        start = p.fault.start if two[1:] == "=" else p.fault.start - 1
        return Hint("nothing is assigned twice, so there is no `+=`", "not known here", start, start + 2,
                    "bind a new name: `y = x + …`, or an element of an array: `x[i + 1] = x[i] + …`")  # fmt: skip
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
    if p.found == "==" and "EQUAL" in p.fault.accepts:
        return p.here("`==` compares; a value is bound with `=`", "write `=`", "=")
    if p.found == "=" and p.first in ("where", "when", "expect", "repeat"):
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


def _comma_at_end(p: Place) -> Hint | None:
    """`a = 1,` before the next statement or the end of a block."""
    if p.before != ",":
        return None
    if p.found == "}" or p.found in RESERVED or "\n" in p.text[p.before_end : p.fault.start]:
        at = p.before_end - 1
        return Hint("statements are not separated by `,`", "remove this", at, at + 1, None, p.edit(at, at + 1, ""))
    return None


def _fused_string(p: Place) -> Hint | None:
    if p.fault.kind == "STRING" and p.before in ("f", "r", "b", "u", "F") and p.before_end == p.fault.start:
        start = p.before_end - 1
        return Hint("strings have no prefix", "remove this", start, start + 1,
                    "messages interpolate {name} by themselves", p.edit(start, start + 1, ""))  # fmt: skip
    if p.found.startswith('"') and p.before == '""' and p.before_end == p.fault.start:
        start = p.before_end - 2
        return Hint("there are no triple-quoted strings", "not a string", start, p.fault.start + 1)
    return None


def _reserved_as_name(p: Place) -> Hint | None:
    if "NAME" not in p.fault.accepts or p.at_statement or p.at_declaration:
        return None
    words = RESERVED | {"for", "in", "if", "else", "and", "or", "not", "true", "false", "none"}
    if p.found not in words or "\n" in p.text[p.before_end : p.fault.start]:
        return None
    return p.here(f"`{p.found}` is a reserved word and cannot be a name", "reserved", help="choose another name")


def _keyword_typo(p: Place) -> Hint | None:
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


def _outside(p: Place) -> Hint | None:
    """A statement where only declarations may stand."""
    if not p.at_declaration:
        return None
    if p.found == "det":
        return p.here("`det 1` is the first line of a file", "too late here")
    if p.found in RESERVED or re.match(r"[A-Za-z_]\w*(\[[^\]\n]*\])?\s*=", p.rest):
        return p.here("a statement outside of a declaration", "not inside `{ }`",
                      help="put it into a component, model, data, train, target or run")  # fmt: skip
    return None


HINTS: tuple[Callable[[Place], Hint | None], ...] = (
    _odd_character,
    _fused_string,
    _else_if,
    _foreign_keyword,
    _comment,
    _operator,
    _apart,
    _unclosed_bracket,
    _colon_for_equals,
    _equals_for_colon,
    _comma_at_end,
    _missing_comma,
    _outside,
    _keyword_typo,
    _reserved_as_name,
)


def find_hint(source: Source, fault: Fault) -> Hint | None:
    """The first hint that applies to `fault`."""
    place = Place(source, fault)
    for hint in HINTS:
        found = hint(place)
        if found is not None:
            return found
    return None
