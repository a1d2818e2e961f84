"""The TextMate grammar colours the words of the real grammar, and no others."""

from __future__ import annotations

import json
import re

from .texts import ROOT, SAMPLE, det_files

TEXTMATE = json.loads((ROOT / "docs/editors/det.tmLanguage.json").read_text(encoding="utf-8"))
WORDS = re.compile(r"\(([a-z|]+)\)")


def patterns(node: object) -> list[str]:
    if isinstance(node, dict):
        own = [node[key] for key in ("match", "begin", "end") if isinstance(node.get(key), str)]
        return own + [p for value in node.values() for p in patterns(value)]
    return [p for item in node for p in patterns(item)] if isinstance(node, list) else []


def test_the_words_are_those_of_the_grammar() -> None:
    grammar = (ROOT / "grammar.lark").read_text(encoding="utf-8")
    wanted = set(re.findall(r"^_?[A-Z]+\.2: /([a-z]+)\(\?", grammar, re.MULTILINE))
    wanted |= {"component", "model", "data", "train", "target"}
    colored = {
        word
        for part in ("keywords", "declarations")
        for pattern in patterns(TEXTMATE["repository"][part])
        for group in WORDS.findall(pattern)
        for word in group.split("|")
    }
    assert colored == wanted


def test_the_units_are_those_of_the_grammar() -> None:
    grammar = (ROOT / "grammar.lark").read_text(encoding="utf-8")
    (units,) = re.findall(r"^QUANTITY.*\(\(([A-Za-z|]+)\)", grammar, re.MULTILINE)
    assert any(f"({units})" in p for p in patterns(TEXTMATE["repository"]["numbers"]))


def test_the_patterns_are_regular_expressions() -> None:
    texts = [SAMPLE, 'let s = "a\\n"', *(p.read_text(encoding="utf-8") for p in det_files())]
    for pattern in patterns(TEXTMATE):
        # Look-behind of alternatives of different width is fine for editors and not for Python.
        compiled = re.compile(pattern.replace("(?<=[(,{]|^)", "(?:[(,{]|^)"), re.MULTILINE)
        assert pattern == '"' or any(compiled.search(text) for text in texts), pattern
