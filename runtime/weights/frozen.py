"""Nodes that never learn: what they do not find in their file they would lack for ever."""

from __future__ import annotations

from typing import Any

from detc.compiler.values import Labels
from detc.dsl.diagnostics import error
from detc.dsl.source import Origin
from detc.runtime.weights.report import LoadReport, shorten


def never_learns(program: Any, path: str) -> bool:
    """True if all weights of the node `path` are frozen."""
    spec = getattr(program, "spec", None)
    weights = spec.weights if spec is not None else {}
    own = [w for p, w in weights.items() if p == path or p.startswith(f"{path}.")]
    return bool(own) and all(w.frozen for w in own)


def check_whole(program: Any, report: LoadReport, origin: Origin | None) -> None:
    """A frozen node takes every weight from its file, and a detc checkpoint has to know the same classes.

    Raises:
        DetError: DET0902 if weights are missing or of another shape; DET0605 if the classes differ.
    """
    wrong = {k: r for k, r in report.skipped.items() if r.startswith("another shape")}
    if report.missing or wrong:
        notes = [f"not in the file: {shorten(report.missing, 8)}"] if report.missing else []
        notes += [f"{k}: {r}" for k, r in list(wrong.items())[:8]]
        count = len(report.missing) + len(wrong)
        raise error(
            "DET0902",
            f"`{report.path}` never learns, and {report.source} lacks {count} of its weights",
            origin,
            "asked for here",
            notes=notes,
            help="build the node as the spec did that the weights were made with",
        )
    decision = program.spec.decisions.get(f"{report.path}.classes")
    if decision is None or not isinstance(decision.value, Labels) or not report.classes:
        return
    own = decision.value.names
    if tuple(report.classes) != own:
        there, here = shorten(list(report.classes), 6), shorten(list(own), 6)
        raise error(
            "DET0605",
            f"`{report.path}` is built for the classes {here}, and {report.source} was trained for {there}",
            origin,
            "these weights",
            help="its scores would mean other classes: give it its own list, in the order of its training",
        )
