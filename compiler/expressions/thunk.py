"""Late binding: a value that is computed once, when something first asks for it."""

from __future__ import annotations

from collections.abc import Callable

from detc.compiler.values import POISON, Poisoned, Value
from detc.dsl.diagnostics import DetError, Report, error
from detc.dsl.source import Origin, Span


class Thunk:
    """A value that is computed once, when first asked for."""

    _active: list[Thunk] = []

    def __init__(self, name: str, compute: Callable[[], Value], span: Span, report: Report) -> None:
        self.name, self.compute, self.span, self.report = name, compute, span, report
        self._value: Value | None = None

    @property
    def asked(self) -> bool:
        """Whether something has asked for it."""
        return self._value is not None

    def get(self) -> Value:
        """The value.

        Raises:
            Poisoned: if computing it failed (the failure is reported once).
        """
        if self._value is None:
            if self in Thunk._active:
                names = [t.name for t in Thunk._active[Thunk._active.index(self) :]] + [self.name]
                raise error(
                    "DET0210",
                    "values depend on each other: " + " -> ".join(names),
                    self.span,
                    "in this cycle",
                )
            Thunk._active.append(self)
            try:
                self._value = self.compute()
            except DetError as problem:
                self.report.add(*problem.diagnostics)
                self._value = Value(POISON, Origin(self.span))
            except Poisoned:
                self._value = Value(POISON, Origin(self.span))
            finally:
                Thunk._active.pop()
        if self._value.data is POISON:
            raise Poisoned
        return self._value
