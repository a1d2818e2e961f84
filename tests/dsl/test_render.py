"""Diagnostics as text and JSON."""

from __future__ import annotations

import io
import json

from detc.dsl.diagnostics import Edit, error
from detc.dsl.render import ordered, render, render_all, report, summary, to_json, use_color
from detc.dsl.source import BUILTIN, Origin, Source, Span

LIB = Source(
    "std/necks/fpn.det",
    "det 1\ncomponent FPN(\n  width: int\n) {\n  td[l - 1] = lat[l - 1] + up\n}\n",
    library=True,
)
USER = Source(
    "cascade.det",
    "det 1\nmodel C {\n\tnode neck = FPN(256, levels = 5)\n  set neck.out = 128 # 日本 x\n}\n"
    + "\n" * 95
    + "x\n",
    path="specs/cascade.det",
)


def at(source: Source, text: str) -> Span:
    start = source.text.index(text)
    return Span(source, start, start + len(text))


CALL = at(USER, "FPN(256, levels = 5)")


def test_user_lines_come_first() -> None:
    (d,) = error(
        "DET0302",
        "cannot add feature maps with 128 and 256 channels",
        Origin(at(LIB, "lat[l - 1] + up"), (CALL,)),
        "added here",
        secondary=[(at(USER, "128"), "128 channels come from here"), (at(USER, "256"), "256 come from here")],
        notes=["first\nsecond"],
        help="both sides of `+` need the same channels",
        fix=Edit(at(USER, "128"), "256"),
    ).diagnostics
    assert (
        render(d)
        == """\
error[DET0302]: cannot add feature maps with 128 and 256 channels
  --> cascade.det:4:18
   |
  4|   set neck.out = 128 # 日本 x
   |                  ^^^ 128 channels come from here
  ::: cascade.det:3:18
   |
  3|     node neck = FPN(256, levels = 5)
   |                     --- 256 come from here
  ::: std/necks/fpn.det:5:15
   |
  5|   td[l - 1] = lat[l - 1] + up
   |               --------------- added here
   = note: first
           second
   = help: both sides of `+` need the same channels
   = fix: write `256` for `128`
"""
    )


def test_library_only_labels_are_promoted() -> None:
    (d,) = error("DET0305", "no", Origin(at(LIB, "width: int"), (CALL,)), "required here").diagnostics
    assert (
        render(d)
        == """\
error[DET0305]: no
  --> cascade.det:3:14
   |
  3|     node neck = FPN(256, levels = 5)
   |                 ^^^^^^^^^^^^^^^^^^^^ reached from here
  ::: std/necks/fpn.det:3:3
   |
  3|   width: int
   |   ---------- required here
"""
    )
    assert d.primary == CALL


def test_via_lines_name_call_sites_that_are_not_quoted() -> None:
    (d,) = error(
        "DET0302", "no", at(USER, "128"), "here", secondary=[(Origin(at(LIB, "width"), (CALL,)), "there")]
    ).diagnostics
    assert render(d).endswith("   = via cascade.det:3:14  node neck = FPN(256, levels = 5)\n")


def test_builtin_places_are_not_quoted() -> None:
    (d,) = error("DET0311", "no", Origin(BUILTIN, (CALL,)), "too large").diagnostics
    text = render(d)
    assert "<builtin>" not in text and "^^^ too large" in text
    (d,) = error("DET0906", "no such flag").diagnostics
    assert render(d) == "error[DET0906]: no such flag\n"


def test_labels_on_one_line_share_a_frame() -> None:
    (d,) = error(
        "DET0302", "no", at(USER, "256"), "a", secondary=[(at(USER, "5"), "b"), (at(USER, "neck"), "c")]
    ).diagnostics
    text = render(d)
    assert text.count("cascade.det:3") == 1
    assert text.count("   |") == 4


def test_wide_characters_and_line_numbers() -> None:
    (d,) = error("DET0102", "no", at(USER, "x\n}"), "here").diagnostics
    line, mark = render(d).split("\n")[3:5]
    assert line.endswith("# 日本 x") and len(mark) == len(line) + 2 + len(" here")
    last = USER.text.rindex("x")
    (d,) = error("DET0102", "no", Span(USER, last, last + 1)).diagnostics
    assert "\n 101| x\n    | ^\n" in render(d)


def test_empty_span_at_the_end() -> None:
    source = Source("t", "model A {")
    (d,) = error("DET0104", "no", Span(source, 9, 9), "here").diagnostics
    assert "  1| model A {\n   |          ^ here\n" in render(d)


def test_color_only_on_a_terminal(monkeypatch) -> None:  # type: ignore[no-untyped-def]
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    (d,) = error("DET0302", "no", at(USER, "128"), "here").diagnostics
    plain, colored = io.StringIO(), Terminal()
    report([d], plain)
    report([d], colored)
    assert "\033[" not in plain.getvalue() and "\033[1;31merror[DET0302]" in colored.getvalue()
    monkeypatch.setenv("NO_COLOR", "1")
    assert not use_color(Terminal())


def test_many() -> None:
    (first,) = error("DET0302", "first", at(USER, "128")).diagnostics
    (second,) = error("DET0209", "second", at(USER, "256"), severity="warning").diagnostics
    (nowhere,) = error("DET0906", "nowhere").diagnostics
    assert ordered([nowhere, first, second]) == [second, first, nowhere]
    assert render_all([first, second]).endswith("\n\n1 error, 1 warning\n")
    assert render_all([]) == "" and summary([]) == "no errors"
    assert summary([first, first, second, second]) == "2 errors, 2 warnings"


def test_json() -> None:
    (d,) = error(
        "DET0302",
        "no",
        Origin(at(LIB, "width"), (CALL,)),
        "there",
        help="h",
        fix=Edit(at(USER, "128"), "256"),
    ).diagnostics
    data = json.loads(json.dumps(to_json(d)))
    assert data["labels"][0]["file"] == "specs/cascade.det" and data["labels"][0]["primary"]
    assert (data["labels"][0]["line"], data["labels"][0]["column"]) == (3, 14)
    assert data["labels"][1]["file"] == "std/necks/fpn.det"
    assert data["labels"][1]["via"][0]["line"] == 3
    assert data["fix"]["text"] == "256" and data["fix"]["start"] == at(USER, "128").start
    assert (data["code"], data["severity"], data["help"], data["notes"]) == ("DET0302", "error", "h", [])
