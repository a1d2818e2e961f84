"""Every `det` block of the documents parses; whole files among them pass the check."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from detc.compiler.check import check
from detc.dsl.parser import parse
from detc.dsl.source import Source

from .texts import ROOT

_BLOCK = re.compile(r"^```(det)?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_DECLARATION = re.compile(
    r"\s*(det 1|import|##|component|model|data|train|target|interface|patch|run|test)\b[^{]*\{"
)
PLACES = sorted([*ROOT.glob("docs/**/*.md"), *ROOT.glob("*.md")])
BLOCKS = [
    pytest.param(path, body, id=f"{path.stem}-{text[: match.start()].count(chr(10)) + 1}")
    for path in PLACES
    for text in [path.read_text(encoding="utf-8")]
    for match in _BLOCK.finditer(text)
    for kind, body in [match.groups()]
    if kind == "det" or body.startswith("det 1\n")
]


@pytest.mark.parametrize(("path", "body"), BLOCKS)
def test_block(path: Path, body: str) -> None:
    whole = body.startswith("det 1") or (_DECLARATION.match(body) and not body.startswith("train {"))
    text = body if whole else f"component Example {{\n{body}\n}}\n"
    assert parse(Source(path.name, text))[1] == []
    if body.startswith("det 1") and '"./' not in body:
        report = check(body, name=path.name).report
        assert [d.message for d in report.errors] == []


def test_there_are_blocks() -> None:
    assert len(BLOCKS) >= 15
