"""Every case of the corpus gives exactly the reports that it expects, on the lines that it expects them."""

from __future__ import annotations

from pathlib import Path

import pytest

from detc.compiler.check import check
from detc.dsl.codes import CODES, RUN_TIME
from detc.dsl.diagnostics import Diagnostic
from detc.dsl.render import render, render_all, to_json

from .reading import CASES, expectations


def reports(path: Path) -> list[Diagnostic]:
    return check(path).report.diagnostics


@pytest.mark.parametrize("path", CASES, ids=lambda p: p.stem)
def test_case(path: Path) -> None:
    left = reports(path)
    missing = []
    for wanted in expectations(path):
        hit = next((d for d in left if wanted.matches(d)), None)
        if hit is None:
            missing.append(wanted)
        else:
            left.remove(hit)
    assert not missing and not left, f"missing: {missing}\nunexpected:\n{render_all(left)}"


@pytest.mark.parametrize("path", CASES, ids=lambda p: p.stem)
def test_reports_are_fit_to_show(path: Path) -> None:
    for found in reports(path):
        text = render(found)
        first = text.split("\n")[1]
        assert first.startswith(" ") and "--> " in first
        assert "std/" not in first and "prelude" not in first, "the first place must be the user's"
        assert "<builtin>" not in text
        assert "_Poison" not in text and "object at 0x" not in text
        assert to_json(found)["labels"][0]["file"].endswith(".det")


@pytest.mark.parametrize("path", CASES, ids=lambda p: p.stem)
def test_fixes_mend_what_they_are_for(path: Path, tmp_path: Path) -> None:
    """Applied alone, a fix makes its own report go away and brings no syntax error."""
    text = path.read_text(encoding="utf-8")
    found = [d for d in reports(path) if d.fix is not None and Path(d.fix.span.source.name).name == path.name]
    before = len(reports(path))
    for d in found:
        assert d.fix is not None
        mended = tmp_path / path.name
        mended.write_text(text[: d.fix.span.start] + d.fix.text + text[d.fix.span.end :], encoding="utf-8")
        after = reports(mended)
        assert (d.code, d.message) not in [(a.code, a.message) for a in after]
        assert d.code.startswith("DET01") or len(after) <= before


def test_every_code_of_check_has_a_case() -> None:
    covered = {wanted.code for path in CASES for wanted in expectations(path)}
    assert set(CODES) - RUN_TIME - covered == set()
    assert covered - set(CODES) == set()


def test_case_names_begin_with_their_code() -> None:
    for path in CASES:
        codes = {wanted.code for wanted in expectations(path)}
        assert path.stem.startswith("clean_") or path.stem[:7] in codes


def test_the_corpus_is_large() -> None:
    assert len(CASES) >= 60
