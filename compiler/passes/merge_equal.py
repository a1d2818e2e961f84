"""Merge stateless applications that compute the same thing."""

from __future__ import annotations

from detc.compiler.graph import DetGraph
from detc.compiler.passes.manager import Context, contract
from detc.compiler.text import arg_text
from detc.compiler.values import Wire


@contract(requires=["pruned"])
def merge_equal(graph: DetGraph, ctx: Context) -> bool:
    """Two equal stateless (or shared-weight) nodes on the same inputs become one.

    Only in inference graphs: in training two applications of a random op (a sampler) differ.
    """
    if graph.phase != "infer":
        return False
    seen: dict[tuple[object, ...], str] = {}
    changed = False
    for node in graph.nodes():
        if node.op is None:
            continue
        current = graph.node(node.id)
        key = (repr(current.op), current.weights, tuple(arg_text(a) for a in current.args))
        first = seen.setdefault(key, node.id)
        if first == node.id:
            continue
        graph.redirect(node.id, Wire(first, (), graph.node(first).type))
        graph.remove(node.id)
        ctx.note(f"merged {node.id} into {first}")
        changed = True
    return changed
