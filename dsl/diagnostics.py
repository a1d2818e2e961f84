"""Diagnostics as plain data. Rendering lives in `dsl.render`, the pages in `docs/diagnostics`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from difflib import get_close_matches

from detc.dsl.source import BUILTIN, Origin, Span

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
        """The place that is shown first: on the user's own line if there is any way to one."""
        shown = ordered_labels(self)
        return shown[0].origin.span if shown else None


def ordered_labels(diagnostic: Diagnostic) -> list[Label]:
    """The labels in the order to show them; the first is on the user's line if there is any way to one.

    What an edit decided comes before all, then the user's own lines, then what lies in the library.
    """
    shown = [label for label in diagnostic.labels if label.origin.span is not BUILTIN or label.origin.via]
    shown.sort(key=lambda label: not label.primary)
    causes = [_cause(label) for label in shown]
    edits = [c for c in causes if c is not None and c.origin.edited]
    mine = [label for label in shown if not label.origin.span.source.library]
    others = [c for c in causes if c is not None and not c.origin.edited and not c.origin.span.source.library]
    if edits and not edits[0].primary and mine and mine[0].primary:
        mine = _distinct(
            [mine[0], *edits, *mine[1:], *others]
        )  # the edit decided only the other side of a conflict
    elif others and others[0].primary:
        mine = _distinct([*edits, *others, *mine])
    else:
        mine = _distinct([*edits, *mine, *others])
    rest = [label for label in shown if label.origin.span.source.library]
    if not mine and rest and not rest[0].origin.user().source.library:
        # Nothing of this lies in the user's files, so begin with the line that led to it.
        mine = [Label(Origin(rest[0].origin.user()), "reached from here", True)]
        first = rest[0]
        if first.origin.span is BUILTIN:
            mine = [Label(mine[0].origin, first.text, True)]
            rest = rest[1:]
        elif not first.text:
            rest[0] = Label(first.origin, "here")
    return mine + [label for label in rest if label.origin.span is not BUILTIN]


def _cause(label: Label) -> Label | None:
    because = label.origin.because
    if because is None or because.span.source.library:
        return None
    return Label(because, "this comes from here", label.primary)


def _distinct(labels: list[Label]) -> list[Label]:
    """Of labels at one place the one that is the report's own, at the place of the first."""
    found: dict[Span, Label] = {}
    for label in labels:
        if label.origin.span not in found or found[label.origin.span].text == "this comes from here":
            found[label.origin.span] = label
    return list(found.values())


class DetError(Exception):
    """Raised to abandon the current evaluation; carries the diagnostics to report."""

    def __init__(self, *diagnostics: Diagnostic) -> None:
        super().__init__("; ".join(f"{d.code}: {d.message}" for d in diagnostics))
        self.diagnostics = diagnostics

    def at(self, origin: Origin | None, label: str) -> DetError:
        """The same with a place for those diagnostics that have none."""
        if origin is None:
            return self
        place = (Label(origin, label, True),)
        return DetError(*(d if d.labels else replace(d, labels=place) for d in self.diagnostics))


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
    pool = [c for c in dict.fromkeys(candidates) if c != name]
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
    failures: int = 0  # errors that were added, those too that were there already
    _seen: set[tuple[object, ...]] = field(default_factory=set)

    def add(self, *diagnostics: Diagnostic) -> None:
        """Add diagnostics that are not there yet."""
        for d in diagnostics:
            self.failures += d.severity == ERROR
            first = [x.origin.span for x in d.labels[:1]] + [p for p in (d.primary,) if p is not None]
            spans = tuple((str(span), span.end) for span in first)
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
