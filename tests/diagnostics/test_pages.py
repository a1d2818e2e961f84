"""Every code that the program can report has a page, and what the pages say about the compiler is true."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from detc.compiler.check import check
from detc.dsl.codes import CODES, RUN_TIME
from detc.dsl.diagnostics import DetError
from detc.dsl.explain import PAGES, explain, normalise, page, titles
from detc.dsl.format import format_text

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ("cli", "compiler", "dsl", "nativeops", "runtime")
_BLOCK = re.compile(r"^```(det(?: fails)?)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def test_every_reported_code_is_registered_and_every_registered_code_is_reported() -> None:
    used = set()
    for room in ROOMS:
        for path in (ROOT / room).rglob("*.py"):
            if path.name != "codes.py":
                used |= set(re.findall(r'"(DET\d{4})"', path.read_text(encoding="utf-8")))
    assert used - set(CODES) == set()
    assert set(CODES) - used == set()


@pytest.mark.parametrize("code", sorted(CODES))
def test_page(code: str) -> None:
    text = page(code)
    assert text.startswith(f"# {code}: {CODES[code]}\n\n")
    assert "\n## Wrong\n" in text and "\n## Right\n" in text
    assert max(len(line) for line in text.split("\n")) <= 120
    blocks = _BLOCK.findall(text)
    for kind, body in blocks:
        found = [d.code for d in check(body, name="example.det").report.diagnostics]
        assert set(found) == ({code} if kind == "det fails" else set()), (kind, found)
        if kind == "det":
            assert format_text(body) == body or code == "DET0105"
    # An import cycle takes two files, so its page shows them as plain text.
    assert code in RUN_TIME or code == "DET0204" or {kind for kind, _ in blocks} == {"det", "det fails"}


def test_there_are_no_other_pages() -> None:
    assert {path.stem for path in PAGES.iterdir()} == set(CODES)


def test_codes_are_found_as_people_write_them() -> None:
    assert {normalise(text) for text in ("302", "0302", "det0302", " DET0302 ")} == {"DET0302"}
    assert explain("302") == page("DET0302")
    assert list(titles()) == sorted(CODES)
    with pytest.raises(DetError) as caught:
        page("DET0399")
    assert "DET039" in (caught.value.diagnostics[0].help or "") or "detc explain" in str(
        caught.value.diagnostics[0].help
    )
