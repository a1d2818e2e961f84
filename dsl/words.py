"""Terminal names of the grammar as words for people."""

from __future__ import annotations

from collections.abc import Collection

WORDS = {
    "$END": "the end of the file",
    "NAME": "a name",
    "WORD": "a name",
    "STRING": "a string",
    "INT": "a whole number",
    "FLOAT": "a number",
    "QUANTITY": "a number with a unit",
    "SIZE": "a size",
    "EQUAL": "`=`",
    "COLON": "`:`",
    "COMMA": "`,`",
    "DOT": "`.`",
    "LPAR": "`(`",
    "RPAR": "`)`",
    "LSQB": "`[`",
    "RSQB": "`]`",
    "LBRACE": "`{`",
    "RBRACE": "`}`",
    "VBAR": "`|`",
    "STAR": "`*`",
    "MINUS": "`-`",
    "OPTIONAL": "`?`",
    "KIND": "`component`, `model`, `data`, `train` or `target`",
    "CMP": "a comparison",
    "ADDOP": "`+` or `-`",
    "MULOP": "`*`, `/`, `//` or `%`",
}
EXPRESSION = frozenset({"NAME", "STRING", "INT", "LPAR", "LSQB"})
STATEMENT = frozenset({"_LET", "_NODE", "_WHEN", "_REPEAT"})
DECLARATION = frozenset({"KIND", "_INTERFACE", "_PATCH", "_RUN", "_TEST"})
OPERATORS = frozenset({"ADDOP", "MULOP", "CMP"})
# What each group swallows when it is named as a whole.
_IN_EXPRESSION = frozenset(
    {"NAME", "STRING", "INT", "FLOAT", "QUANTITY", "SIZE", "LPAR", "LSQB", "LBRACE", "TRUE", "FALSE", "NONE"}
    | {"MINUS", "_NOT"}
)
_IN_STATEMENT = frozenset(
    {
        "_INPUT",
        "_OUTPUT",
        "_NODE",
        "FROZEN",
        "SHADOW",
        "_STATE",
        "_NEXT",
        "_LET",
        "_LOSS",
        "_WHERE",
        "_REPEAT",
    }
    | {"_WHEN", "_AT", "_EXPECT", "_SET", "_REPLACE", "_REMOVE", "_INSERT", "_TIE", "NAME"}
)
_IN_OPERATOR = frozenset(
    {
        "ADDOP",
        "MULOP",
        "CMP",
        "_IN",
        "_AND",
        "_OR",
        "_IF",
        "_PER",
        "_STEP",
        "__ANON_0",
        "__ANON_1",
        "DOT",
        "LPAR",
    }
    | {"LSQB", "_USING", "MINUS", "_NOT"}
)


def word(terminal: str) -> str:
    """One terminal as a word: `_LET` -> "`let`"."""
    return WORDS.get(terminal) or f"`{terminal.strip('_').lower()}`"


def expected(accepts: Collection[str], anonymous: dict[str, str]) -> list[str]:
    """The accepted terminals as a short list of words; `anonymous` maps `__ANON_0` to its text."""
    left = set(accepts)
    found: list[str] = []
    if left >= OPERATORS:
        left -= _IN_OPERATOR | {name for name in left if name in anonymous}
        found.append("an operator")
    if left >= STATEMENT:
        left -= _IN_STATEMENT | DECLARATION
        found.append("a statement")
    if left >= DECLARATION and "NAME" in left:  # where a name is good, these words are names too
        left -= DECLARATION
    if left >= DECLARATION:
        left -= DECLARATION
        found.append("a declaration")
    if left >= EXPRESSION:
        left -= _IN_EXPRESSION
        found.append("an expression")
    if {"_INPUT", "_NODE", "NAME"} <= left:  # the names of arguments, where reserved words count as names
        left -= _IN_STATEMENT | {"_IN", "_IF"}
        found.append("a name")
    if "COMMA" in left and left & {"RPAR", "RSQB", "RBRACE"}:
        left -= {"COMMA"}
        found.append("`,`")
    for name in sorted(left, key=lambda n: (n not in WORDS, n)):
        text = f"`{anonymous[name]}`" if name in anonymous else word(name)
        if text not in found:
            found.append(text)
    return found


def join_or(items: list[str]) -> str:
    """`a`, `b` or `c`."""
    if len(items) < 2:
        return "".join(items)
    return ", ".join(items[:-1]) + " or " + items[-1]
