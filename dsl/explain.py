"""`detc explain`: the page of a diagnostic code, with a failing and a mended example."""

from __future__ import annotations

from pathlib import Path

from detc.dsl.codes import CODES
from detc.dsl.diagnostics import closest, error

PAGES = Path(__file__).resolve().parent / "pages"


def titles() -> dict[str, str]:
    """All codes with their titles, in order."""
    return dict(sorted(CODES.items()))


def normalise(code: str) -> str:
    """`302`, `0302` and `det0302` -> `DET0302`."""
    text = code.strip().upper().removeprefix("DET")
    return f"DET{int(text):04d}" if text.isascii() and text.isdigit() else code.strip().upper()


def page(code: str) -> str:
    """The page of `code` as Markdown. Raises DetError (DET0906) for a code that there is not."""
    known = normalise(code)
    if known not in CODES:
        near = closest(known, CODES)
        hint = f"did you mean {near} ({CODES[near]})? " if near else ""
        raise error(
            "DET0906", f"there is no diagnostic `{code}`", help=f"{hint}`detc explain` lists all codes"
        )
    return (PAGES / f"{known}.md").read_text(encoding="utf-8")


def explain(code: str) -> str:
    """The same as `page`."""
    return page(code)
