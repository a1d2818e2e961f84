"""Reading of corpus files: `# expect-error DET0302 "128 and 256"` on the line that the report must point at.

`expect-error@-1` means the line above, for lines that cannot carry a comment of their own. The quoted text
must occur in the message or in a label. Expectations in `support/` files that a case imports count too.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from detc.dsl.diagnostics import Diagnostic

HERE = Path(__file__).resolve().parent
CASES = sorted(HERE.glob("*.det"))
_EXPECT = re.compile(r'expect-(error|warning)(@[+-]\d+)? (DET\d{4}) "((?:[^"\\]|\\.)*)"')
_SUPPORT = re.compile(r'"\./support/(\w+\.det)"')


@dataclass(frozen=True)
class Expectation:
    """One expected report."""

    file: str
    line: int
    severity: str
    code: str
    text: str

    def matches(self, found: Diagnostic) -> bool:
        """Whether `found` is this report."""
        place = found.primary
        if place is None or (found.code, found.severity) != (self.code, self.severity):
            return False
        if (Path(place.source.name).name, place.source.position(place.start)[0]) != (self.file, self.line):
            return False
        return any(self.text in words for words in (found.message, *(label.text for label in found.labels)))


def expectations(path: Path) -> list[Expectation]:
    """All expectations of a case."""
    text = path.read_text(encoding="utf-8")
    found = []
    for number, line in enumerate(text.split("\n"), 1):
        for severity, offset, code, words in _EXPECT.findall(line):
            shift = int(offset[1:]) if offset else 0
            found.append(Expectation(path.name, number + shift, severity, code, words))
    for name in _SUPPORT.findall(text):
        found += expectations(path.parent / "support" / name)
    return found
