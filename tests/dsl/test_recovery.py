"""Syntax errors: all are reported, each once, at the right place, with words that help."""

from __future__ import annotations

import random
import re
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detc.dsl.diagnostics import Diagnostic
from detc.dsl.parser import parse
from detc.dsl.source import Source

from .texts import SAMPLE

EIGHT = """\
det 1
import std.ops { Conv MaxPool }

component One(width int, levels: int = 5) : Neck {
  input feats: pyramid
  let n =
  node lateral = Conv(width kernel = 1)
  lat = feats -> lateral
  repeat l in { p[l] = q[l] }
}

component Two {
  input x: map
  y = x -> ;
  set a.b == 3
  for i in 0 .. 3 { z[i] = x }
  output y: map = 'y'
}
"""


def found(text: str) -> list[Diagnostic]:
    return parse(Source("t.det", text))[1]


def apply(text: str, diagnostics: list[Diagnostic]) -> str:
    """Apply all fixes, from the back."""
    for d in sorted((d for d in diagnostics if d.fix), key=lambda d: -d.fix.span.start):  # type: ignore[union-attr]
        assert d.fix is not None
        text = text[: d.fix.span.start] + d.fix.text + text[d.fix.span.end :]
    return text


def test_eight_errors_eight_reports() -> None:
    reports = found(EIGHT)
    lines = [EIGHT[: d.primary.start].count("\n") + 1 for d in reports if d.primary]
    assert lines == [2, 4, 6, 7, 9, 14, 15, 16, 17]
    file, _ = parse(Source("t.det", EIGHT))
    assert [d.name for d in file.decls] == ["One", "Two"]


def test_the_good_statements_survive() -> None:
    file, _ = parse(Source("t.det", EIGHT))
    assert [type(s).__name__ for s in file.decls[0].body] == ["InPort", "NodeStmt", "WireStmt"]


@pytest.mark.parametrize(
    ("broken", "message", "fixed"),
    [
        ("node x = Conv(3 kernel = 1)", "`,` is missing", "node x = Conv(3, kernel = 1)"),
        ("let a = [1 2]", "`,` is missing", "let a = [1, 2]"),
        ("node x = Conv(kernel: 1)", "`name = value`", "node x = Conv(kernel = 1)"),
        ("node x: Conv(1)", "only an interface", "node x = Conv(1)"),
        ('let a = {"b": 1}', "fields of a record", "let a = {b = 1}"),
        ("let a = True", "written `true`", "let a = true"),
        ("let a = None", "written `none`", "let a = none"),
        ("for i in 0 .. 3 { }", "not a statement", "repeat i in 0 .. 3 { }"),
        ("if a { }", "not a statement", "when a { }"),
        ("when a { } else if b { }", "`else when`", "when a { } else when b { }"),
        ("when a { } elif b { }", "`else when`", "when a { } else when b { }"),
        ("var a = 3", "not a statement", "let a = 3"),
        ("return x", "not a statement", None),
        ("def f(x) { }", "not a statement", None),
        ("let a = 'x'", "double quotes", 'let a = "x"'),
        ("let a = “x”", "straight double quotes", 'let a = "x"'),
        ('let a = "x', "no closing quote", 'let a = "x"'),
        ('let a = f"x"', "no prefix", 'let a = "x"'),
        ('let a = """x"""', "triple-quoted", None),
        ("// note", "start with `#`", "# note"),
        ("/* note */", "start with `#`", None),
        ("let a = 3;", "no `;`", "let a = 3"),
        ("let a = 3,\nlet b = 4", "not separated by `,`", "let a = 3\nlet b = 4"),
        ("let a = b && c", "written `and`", "let a = b and c"),
        ("let a = b || c", "written `or`", "let a = b or c"),
        ("let a = !b", "written `not`", "let a = not b"),
        ("a += 1", "assigned twice", None),
        ("a := 1", "written `=`", "a = 1"),
        ("let a == 1", "is bound with `=`", "let a = 1"),
        ('where a = 1 else "m"', "compared with `==`", 'where a == 1 else "m"'),
        ("let a = b ** 2", "no power", None),
        ("y = x => f", "written `->`", "y = x -> f"),
        ("y = x |> f", "written `->`", "y = x -> f"),
        ("y = x -> f + z", "binds less tightly", None),
        ("let a = .5", "starts with a digit", "let a = 0.5"),
        ("let a = 1.", "ends with a digit", "let a = 1.0"),
        ("let a = 12epochs", "unknown unit", "let a = 12ep"),
        ("let a = 12 epochs", "right behind its number", "let a = 12ep"),
        ("let a = 1_000", "without `_`", "let a = 1000"),
        ("nodde x = Conv(3)", "unknown statement", "node x = Conv(3)"),
        ("let node = 3", "reserved word", None),
        ("let a = (1 + 2", "never closed", "let a = (1 + 2)"),
        ("let a = [1, 2)", "closed by `)`", "let a = [1, 2]"),
        ("let a = naïve", "unexpected character", None),
        ("let a =\u00a03", "no-break space", "let a = 3"),
        ("let a = b @ c", "no decorators", None),
        ("let a =", "expected an expression after `=`", None),
        ("y = a ->", "expected an expression after `->`", None),
        ("loss = 3", "expected a name after `loss`", None),
    ],
)
def test_hints(broken: str, message: str, fixed: str | None) -> None:
    text = f"component A {{\n  let first = 1\n  {broken}\n  let last = 2\n}}\n"
    reports = found(text)
    assert len(reports) == 1
    assert message in reports[0].message
    mended = apply(text, reports)
    if fixed is None:
        assert reports[0].fix is None or found(mended) == []
    else:
        assert mended == text.replace(broken, fixed)
        assert found(mended) == []
    file, _ = parse(Source("t.det", text))
    names = [getattr(s, "name", None) for s in file.decls[0].body]
    assert names[0] == "first"
    assert names[-1] == "last" or broken == "let a = 1."  # `1.` reaches over the line end: `1.let`


@pytest.mark.parametrize(
    ("text", "code", "message"),
    [
        ("component A {\n  let a = 3\n\ncomponent B {\n}\n", "DET0104", "never closed"),
        (
            "component A {\n  repeat i in 0 .. 3 {\n    let a = 3\n}\n\nmodel B { }\n",
            "DET0104",
            "never closed",
        ),
        ("component A {\n  repeat i in 0 .. 3 {\n    let a = 3\n  }\n", "DET0104", "never closed"),
        ("component A { }\n}\n", "DET0104", "closes nothing"),
        ("model A {\n  let a = 3 # note\ndata B(x: int) { }", "DET0104", "never closed"),
        ("class A { }", "DET0101", "not a statement"),
        ("modle A { }", "DET0101", "unknown declaration"),
        ("let a = 3\n", "DET0101", "outside of a declaration"),
        ("component A { }\nimport std.ops { Conv }\n", "DET0101", "wrong place"),
        ("from std.ops import Conv\ncomponent A { }\n", "DET0101", "not a statement"),
        ("component A(a = 3) { }", "DET0101", "needs a type"),
        ("component A(a, b: int) { }", "DET0101", "needs a type"),
        ("component A {\n  input x = 3\n}", "DET0101", ""),
        ("component { }", "DET0101", "expected a name after `component`"),
        ("component A : { }", "DET0101", "expected a name after `:`"),
        ("test A { }", "DET0101", "expected a string after `test`"),
        ("component A { patch }", "DET0101", ""),
        ("\x00", "DET0102", "U+0000"),
    ],
)
def test_declarations(text: str, code: str, message: str) -> None:
    reports = found(text)
    assert [d.code for d in reports] == [code]
    assert message in reports[0].message


def test_a_missing_brace_blames_the_inner_block() -> None:
    text = "component A {\n  repeat i in 0 .. 3 {\n    let a = 3\n}\n\nmodel B {\n}\n"
    (report,) = found(text)
    assert report.primary is not None
    assert text[: report.primary.start].count("\n") == 1


def test_one_fault_one_message_when_a_line_is_cut() -> None:
    """Deleting one character of a good file gives few messages, on the line of the deletion or near it."""
    rng = random.Random(7)
    worst = 0
    for _ in range(150):
        at = rng.randrange(len(SAMPLE))
        text = SAMPLE[:at] + SAMPLE[at + 1 :]
        worst = max(worst, len(found(text)))
    assert worst <= 3


PIECES = re.findall(r'"[^"\n]*"|\w+|[^\w\s]|\s+', SAMPLE)


@settings(max_examples=120, deadline=None)
@given(st.lists(st.sampled_from(PIECES), max_size=60))
def test_token_soup_never_raises(pieces: list[str]) -> None:
    parse(Source("t", "".join(pieces)))
    parse(Source("t", "component A { " + " ".join(pieces)))


@settings(max_examples=80, deadline=None)
@given(st.text(max_size=80))
def test_any_text_never_raises(text: str) -> None:
    parse(Source("t", text))
    parse(Source("t", "component A { let x = " + text + " }"))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, len(SAMPLE)), st.integers(0, 40), st.sampled_from([*PIECES, "", "\x00", "é"]))
def test_mutations_never_raise_and_spans_stay_inside(at: int, length: int, put: str) -> None:
    text = SAMPLE[:at] + put + SAMPLE[at + length :]
    for report in found(text):
        for label in report.labels:
            span = label.origin.span
            assert 0 <= span.start <= span.end <= len(text)


def test_recovery_is_fast() -> None:
    started = time.perf_counter()
    found(EIGHT)
    assert time.perf_counter() - started < 1.0


def test_at_most_twenty() -> None:
    text = "component A {\n" + "  let a = \n" * 50 + "}\n"
    assert len(found(text)) <= 20
