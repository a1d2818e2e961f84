"""Diagnostics as plain data. Rendering lives in `dsl.render`, the pages in `docs/diagnostics`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from difflib import get_close_matches

from detc.dsl.source import Origin, Span

ERROR, WARNING = "error", "warning"


@dataclass(frozen=True)
class Label:
    """A place with a text. The primary label is where the user has to look first."""

    origin: Origin
    text: str = ""
    primary: bool = False


@dataclass(frozen=True)
class Edit:
    """A replacement of `span` by `text` that mends the fault."""

    span: Span
    text: str


@dataclass(frozen=True)
class Diagnostic:
    """One finding: what was found, what was expected, where, and the way out."""

    code: str
    severity: str
    message: str
    labels: tuple[Label, ...] = ()
    notes: tuple[str, ...] = ()
    help: str | None = None
    fix: Edit | None = None

    @property
    def primary(self) -> Span | None:
        """The span of the primary label's user frame (the first label's if none is primary)."""
        for label in self.labels:
            if label.primary:
                return label.origin.user()
        return self.labels[0].origin.user() if self.labels else None


class DetError(Exception):
    """Raised to abandon the current evaluation; carries the diagnostics to report."""

    def __init__(self, *diagnostics: Diagnostic) -> None:
        super().__init__("; ".join(f"{d.code}: {d.message}" for d in diagnostics))
        self.diagnostics = diagnostics


def error(
    code: str,
    message: str,
    origin: Origin | Span | None = None,
    label: str = "",
    *,
    secondary: Iterable[tuple[Origin | Span | None, str]] = (),
    notes: Iterable[str] = (),
    help: str | None = None,
    fix: Edit | None = None,
    severity: str = ERROR,
) -> DetError:
    """Build a `DetError` with one primary label and any number of secondary ones."""
    labels = [] if origin is None else [Label(as_origin(origin), label, True)]
    labels += [Label(as_origin(o), text) for o, text in secondary if o is not None]
    return DetError(Diagnostic(code, severity, message, tuple(labels), tuple(notes), help, fix))


def as_origin(place: Origin | Span) -> Origin:
    """Accept a bare span where an origin is wanted."""
    return place if isinstance(place, Origin) else Origin(place)


def closest(name: str, candidates: Iterable[str]) -> str | None:
    """The candidate the user most likely meant, or None."""
    pool = list(dict.fromkeys(candidates))
    for candidate in pool:
        if candidate.lower() == name.lower() and candidate != name:
            return candidate
    found = get_close_matches(name, pool, n=4, cutoff=0.6)
    return min(found, key=lambda candidate: _typos(name, candidate)) if found else None


def _typos(a: str, b: str) -> int:
    """How many letters were missed, added, changed or swapped with their neighbour (Damerau, 1964)."""
    before: list[int] = []
    last = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        row = [i]
        for j, y in enumerate(b, 1):
            cost = min(last[j] + 1, row[j - 1] + 1, last[j - 1] + (x != y))
            if i > 1 and j > 1 and x == b[j - 2] and a[i - 2] == y:
                cost = min(cost, before[j - 2] + 1)
            row.append(cost)
        before, last = last, row
    return last[-1]


def did_you_mean(name: str, candidates: Iterable[str]) -> str:
    """`; did you mean `x`?` or an empty string."""
    found = closest(name, candidates)
    return f"; did you mean `{found}`?" if found else ""


@dataclass
class Report:
    """Collects diagnostics, at most one for a place and code."""

    diagnostics: list[Diagnostic] = field(default_factory=list)
    _seen: set[tuple[object, ...]] = field(default_factory=set)

    def add(self, *diagnostics: Diagnostic) -> None:
        """Add diagnostics that are not there yet."""
        for d in diagnostics:
            spans = tuple((str(x.origin.span), x.origin.span.end) for x in d.labels[:1])
            key = (d.code, d.message, spans)
            if key not in self._seen:
                self._seen.add(key)
                self.diagnostics.append(d)

    @property
    def errors(self) -> list[Diagnostic]:
        """Those that stop a compilation."""
        return [d for d in self.diagnostics if d.severity == ERROR]

    @property
    def warnings(self) -> list[Diagnostic]:
        """Those that do not."""
        return [d for d in self.diagnostics if d.severity == WARNING]
