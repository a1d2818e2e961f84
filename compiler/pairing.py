"""Which applications of the two phases are the same: what a resolved spec writes once, outside of the phases."""

from __future__ import annotations

from dataclasses import replace

from detc.compiler.graph import DetGraph, arg_wires, map_wires
from detc.compiler.text import arg_text
from detc.compiler.values import Wire


def paired(infer: DetGraph, train: DetGraph) -> tuple[DetGraph, set[str]]:
    """The training graph with the inference graph's ids for the applications that both have, and those ids.

    Two applications are the same if they have the same op, the same weights and the same inputs, all of which are
    shared too; of several equal ones the first goes with the first. Ids depend on where things are written, so
    they do not decide. All other nodes of the training graph get ids that the inference graph does not have.
    """
    waiting: dict[tuple[object, ...], list[str]] = {}
    for node in infer.nodes():
        if node.op is not None:
            key = (repr(node.op), node.weights, tuple(arg_text(a) for a in node.args))
            waiting.setdefault(key, []).append(node.id)
    names = {n.id: n.id for n in train.nodes() if n.op is None}
    inputs = {id for id in names if id in infer}
    shared: set[str] = set()

    def rename(wire: Wire) -> Wire:
        return Wire(names[wire.node], wire.path, wire.type)

    made = DetGraph(train.phase)
    for node in train.nodes():
        if node.op is None:
            made.add(node)
            continue
        args = tuple(map_wires(a, rename) for a in node.args)
        sources = {w.node for a in args for w in arg_wires(a)}
        candidates: list[str] = []
        if sources <= shared | inputs:
            candidates = waiting.get((repr(node.op), node.weights, tuple(arg_text(a) for a in args)), [])
        if candidates:
            names[node.id] = candidates.pop(0)
            shared.add(names[node.id])
        else:
            names[node.id] = f"{node.id} in {train.phase}"
        made.add(replace(node, id=names[node.id], args=args))
    made.outputs = {k: map_wires(a, rename) for k, a in train.outputs.items()}
    made.losses = [replace(x, wire=rename(x.wire)) for x in train.losses]
    return made, shared
