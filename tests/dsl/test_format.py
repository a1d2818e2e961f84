"""`detc fmt`: same meaning, same comments, and formatting twice changes nothing."""

from __future__ import annotations

import re
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detc.dsl.diagnostics import DetError
from detc.dsl.doc import WIDTH
from detc.dsl.format import format_file, format_text
from detc.dsl.parser import parse
from detc.dsl.scan import comments, marks
from detc.dsl.source import Source

from .texts import SAMPLE, det_files


def tree(text: str):  # type: ignore[no-untyped-def]
    file, found = parse(Source("t", text))
    assert found == []
    return file


def comment_texts(text: str) -> Counter[str]:
    return Counter(c.text.lstrip("#").strip() for c in comments(text))


def check(text: str) -> str:
    once = format_text(text)
    assert format_text(once) == once
    assert tree(once) == tree(text)
    assert comment_texts(once) == comment_texts(text)
    assert "\n\n\n" not in once
    return once


def test_sample() -> None:
    check(SAMPLE)


@pytest.mark.parametrize("path", det_files(), ids=lambda p: p.stem)
def test_shipped_files_are_formatted(path) -> None:  # type: ignore[no-untyped-def]
    text = path.read_text(encoding="utf-8")
    once = check(text)
    assert once == text, "run `detc fmt specs stdlib`"
    assert max(len(line) for line in once.split("\n") if "#" not in line) <= WIDTH


GAPS = [m.end() for m in re.finditer(r'"[^"\n]*"|[\w.]+(?:%)?|->|\.\.|==|//|[^\w\s]', SAMPLE)]
IN_COMMENT = [(c.start, c.end) for c in comments(SAMPLE)]
# Comments may stand between any two tokens, but not inside one.
SAFE = [g for g in GAPS if not any(s < g <= e for s, e in IN_COMMENT)]


@settings(max_examples=120, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(SAFE),
            st.sampled_from(
                [" # c{}\n", "\n# c{}\n", "\n\n  ## c{}\n", " ## c{}\n", "\n\n\n", "\n# c{}\n\n# d{}\n\n"]
            ),
        ),
        max_size=6,
    )
)
def test_comments_anywhere(inserts: list[tuple[int, str]]) -> None:
    text = SAMPLE
    for number, (at, comment) in enumerate(sorted(inserts, reverse=True)):
        text = text[:at] + comment.format(number, number) + text[at:]
    if parse(Source("t", text))[1]:
        return  # the comment has split something that must not be split
    check(text)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32))
def test_blanks_do_not_matter(seed: int) -> None:
    """All layouts of one token sequence give the same text, but for the author's choices in blocks."""
    import random

    rng = random.Random(seed)
    pieces = re.split(r'("[^"\n]*"|==|<=|>=)', SAMPLE)
    for index in range(0, len(pieces), 2):
        pieces[index] = re.sub(r"([,()\[\]{}+=])", lambda m: m[1] + " " * rng.randrange(3), pieces[index])
    text = "".join(pieces)
    assert format_text(text) == format_text(SAMPLE)


def test_style() -> None:
    text = """
# about this file


det   1
import std.ops{B,A as C}
model  M( a:int=3,b :str?=none) extends  N (1)with P{


  input image:image # the picture
  let x=[1,2,  3]
  y=(a,b)->f( k=1 , )->g

  # last
}
"""
    assert (
        format_text(text)
        == """\
# about this file

det 1
import std.ops { B, A as C }
model M(a: int = 3, b: str? = none) extends N(1) with P {
  input image: image # the picture
  let x = [1, 2, 3]
  y = (a, b) -> f(k = 1) -> g

  # last
}
"""
    )


def test_long_lines_break() -> None:
    args = ", ".join(f"argument{i} = value{i}" for i in range(12))
    text = check(f"component A {{\n  node x = Some({args})\n}}\n")
    assert text.count("\n") == 16 and "    argument11 = value11,\n  )\n" in text
    args = ", ".join(f"argument{i} = value{i}" for i in range(4))
    text = check(f"component A {{\n  node x = SomeLongName({args}, a = 1)\n}}\n")
    assert (
        text == f"component A {{\n  node x = SomeLongName(\n    {args}, a = 1\n  )\n}}\n" or len(text) < 110
    )
    chain = " -> ".join(f"longer_name{i}" for i in range(9))
    text = check(f"component A {{\n  y = {chain}\n}}\n")
    assert "\n    -> longer_name1\n" in text
    numbers = ", ".join(str(i) for i in range(80))
    assert check(f"component A {{\n  let x = [{numbers}]\n}}\n").count("\n") < 12


def test_blocks_stay_as_written() -> None:
    assert check("run { a = b  c = d }\n") == "run { a = b  c = d }\n"
    assert check("run {\n  a = b c = d }\n") == "run {\n  a = b\n  c = d\n}\n"
    assert check("component A { when a { x = b } else when c { x = d } else { x = e } }\n").count("\n") == 1
    long = f"component A {{\n  when {'a' * 30} {{ x = {'b' * 30} }} else {{ x = {'c' * 30} }}\n}}\n"
    assert check(long).count("\n") == 7


def test_comments_in_lists() -> None:
    text = "component A {\n  let x = [ # first\n    1, # one\n    # before two\n    2\n    # end\n  ]\n}\n"
    assert check(text) == text.replace("    2\n", "    2,\n")


def test_docs_do_not_appear_by_moving_comments() -> None:
    text = "component A {\n  let x = 1 +\n    ## not a doc\n    2\n}\n"
    assert tree(check(text)).decls[0].body[0].doc == ""


def test_spelling_of_numbers_is_kept() -> None:
    assert "1e-5" in format_text("component A { let x = 1e-5 }") and "0.10" in format_text(
        "component A { let x = 0.10 }"
    )


def test_strings_with_hashes_are_no_comments() -> None:
    text = 'component A {\n  let x = "a # b" # c\n}\n'
    assert [m.text for m in marks(text) if m.text[0] in '"#'] == ['"a # b"', "# c"]
    assert check(text) == text


def test_syntax_errors_are_raised() -> None:
    with pytest.raises(DetError) as caught:
        format_text("component A { let x = }", "name.det")
    assert str(caught.value.diagnostics[0].primary).startswith("name.det:1:")


def test_empty_and_comment_only() -> None:
    assert format_text("") == "" and format_text("\n\n") == ""
    assert format_text("\n# a\n\n\n# b\n") == "# a\n\n# b\n"


def test_crlf_and_bom() -> None:
    assert format_text("\ufeffdet 1\r\nrun { # c\r\n a = b }\r\n") == "det 1\nrun { # c\n  a = b\n}\n"


def test_bare_trees_print() -> None:
    text = format_file(tree(SAMPLE))
    assert tree(text) == tree(SAMPLE)
    assert format_text(text) == text
