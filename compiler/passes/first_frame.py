"""A still image is the first frame of a video: put the initial values in place of the states."""

from __future__ import annotations

from detc.compiler.graph import Arg, DetGraph, Node
from detc.compiler.passes.manager import Context, contract
from detc.compiler.types import Image, Struct, Tensor
from detc.compiler.values import Wire


@contract(requires=["typed"])
def first_frame(graph: DetGraph, ctx: Context) -> bool:
    """`state.x` -> the op that makes its first value; what the next frame would need goes."""
    graph.nexts.clear()
    found = [s for s in ctx.model.states.values() if f"state.{s.name}" in graph]
    like = _batch(graph)
    for state in found:
        old = f"state.{state.name}"
        graph.add(Node(f"first.{state.name}", state.op, (like,), state.type, state.origin))
        graph.redirect(old, Wire(f"first.{state.name}", (), state.type))
        graph.remove(old)
    return bool(found)


def _batch(graph: DetGraph) -> Arg:
    """A tensor with the batch of the graph's inputs."""
    for node in graph.nodes():
        if node.op is not None:
            continue
        if isinstance(node.type, Image):
            return Wire(node.id, ("pixels",), node.type.pixels)
        if isinstance(node.type, Struct) and not node.id.startswith("state."):
            name, t = next((n, t) for n, t in node.type.fields if isinstance(t, Tensor))
            return Wire(node.id, (name,), t)
    return None
