"""Remove nodes that no output and no loss depends on."""

from __future__ import annotations

from detc.compiler.graph import DetGraph, arg_wires
from detc.compiler.passes.manager import Context, contract


@contract(requires=["typed"], ensures=["pruned"])
def prune_dead(graph: DetGraph, ctx: Context) -> bool:
    """`a -> b -> (nothing)` goes; graph inputs stay."""
    alive: set[str] = set()
    todo = [w.node for w in graph.roots()]
    while todo:
        id = todo.pop()
        if id in alive:
            continue
        alive.add(id)
        todo += [w.node for a in graph.node(id).args for w in arg_wires(a)]
    dead = [n.id for n in graph.nodes() if n.id not in alive and n.op is not None]
    for id in reversed(dead):
        graph.remove(id)
    return bool(dead)
