"""Passes over a `DetGraph`: plain functions, listed once, verified after each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from detc.compiler.graph import DetGraph, Model, arg_wires
from detc.compiler.values import Wire


@dataclass
class Context:
    """What a pass may read beside the graph, and say."""

    model: Model
    notes: list[str] = field(default_factory=list)

    def note(self, text: str) -> None:
        """Say why something was or was not rewritten."""
        self.notes.append(text)


class Pass(Protocol):
    """A pass changes a graph in place and says whether it did.

    Attributes (with defaults for a plain function): `requires` and `ensures` are names of properties: "typed",
    "pruned", "folded".
    """

    __name__: str

    def __call__(self, graph: DetGraph, ctx: Context) -> bool: ...


def contract(requires: Sequence[str] = (), ensures: Sequence[str] = ()) -> Callable[[Pass], Pass]:
    """State what a pass needs and what it gives."""

    def mark(fn: Pass) -> Pass:
        fn.requires, fn.ensures = tuple(requires), tuple(ensures)  # type: ignore[attr-defined]
        return fn

    return mark


class PassError(Exception):
    """A pass broke the graph or was run without what it requires; the graph's text is attached."""


def verify(graph: DetGraph) -> None:
    """Check that every wire leads to a node that exists, at a part that its type has, without cycles.

    Raises:
        PassError: with the first fault.
    """
    from detc.compiler.text import part_type

    for node in graph.nodes():
        for arg in node.args:
            for wire in arg_wires(arg):
                _check_wire(graph, wire, node.id, part_type)
    for wire in graph.roots():
        _check_wire(graph, wire, "the outputs", part_type)


def _check_wire(graph: DetGraph, wire: Wire, reader: str, part_type: Callable[..., object]) -> None:
    if wire.node not in graph:
        raise PassError(f"{reader} reads {wire}, and there is no node {wire.node}")
    try:
        part_type(graph.node(wire.node).type, wire.path)
    except (KeyError, IndexError, TypeError) as problem:
        raise PassError(f"{reader} reads {wire}, and {wire.node} has no such part") from problem


def run(
    graph: DetGraph,
    passes: Sequence[Pass],
    ctx: Context,
    after: Callable[[str, DetGraph], None] | None = None,
) -> None:
    """Run passes in order; verify the graph after each and hand it to `after` (for `--print-after`).

    Raises:
        PassError: if a pass breaks the graph, claims no change but made one, or its requirements are not met.
    """
    from detc.compiler.text import graph_text

    have = {"typed"}
    done: list[str] = []
    for p in passes:
        lacking = [r for r in getattr(p, "requires", ()) if r not in have]
        if lacking:
            raise PassError(
                f"{p.__name__} requires {', '.join(lacking)}; run so far: {', '.join(done) or 'none'}"
            )
        before = graph_text(graph)
        changed = p(graph, ctx)
        try:
            verify(graph)
        except PassError as problem:
            problem.add_note(
                f"after the pass {p.__name__} (before it: {', '.join(done) or 'none'})\n{graph_text(graph)}"
            )
            raise
        if not changed and graph_text(graph) != before:
            raise PassError(f"{p.__name__} changed the graph and says that it did not")
        have |= set(getattr(p, "ensures", ()))
        done.append(p.__name__)
        if after is not None:
            after(p.__name__, graph)
