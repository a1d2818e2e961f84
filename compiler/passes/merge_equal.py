"""Merge stateless applications that compute the same thing."""

from __future__ import annotations

from detc.compiler.graph import DetGraph, Node
from detc.compiler.passes.manager import Context, contract
from detc.compiler.text import arg_text
from detc.compiler.types import Image, Map
from detc.compiler.values import Wire


@contract(requires=["pruned"])
def merge_equal(graph: DetGraph, ctx: Context) -> bool:
    """Two equal stateless (or shared-weight) nodes on the same inputs become one.

    In training only applications that give feature maps: there two applications of a random op (a sampler, a
    dropout) differ. What is applied to one image twice, with other truth each time, runs its network once.
    """
    seen: dict[tuple[object, ...], str] = {}
    changed = False
    for node in graph.nodes():
        if node.op is None or (graph.phase == "train" and not _repeatable(node)):
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


def _repeatable(node: Node) -> bool:
    return isinstance(node.type, (Map, Image)) and not getattr(node.op, "random", False)
