"""What is compared when nothing is detected: the tensors that boxes are selected from.

With random weights, or on images without objects, both sides agree that there is nothing, whatever the network
computes. Then the inputs of every selection (the logits and deltas before the proposals, the scores and boxes before
the final NMS) are made outputs, the graph is exported once more the same way, and these are compared.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import Tensor, fx, nn

from detc.compiler.backends.verify import Comparison

PREFIX = "source:"  # of the outputs' names, before those of the nodes
# A tensor's entries may lie this share of its standard deviation apart, and this share of its largest entry.
SPREAD, REST = 0.02, 1e-5
HALF_SPREAD, HALF_REST = 0.2, 4e-3
# Proposals of near-equal scores may change places: the rows of a few of them may differ.
ALONE, HALF_ALONE = 0.05, 0.3


class _Selections(fx.Interpreter):
    """Runs a graph and notes which of its nodes give rows with a `valid` mask, and which tensors they choose from."""

    def __init__(self, graph: fx.GraphModule) -> None:
        super().__init__(graph)
        self.numbers: set[fx.Node] = set()
        self.sources: dict[fx.Node, None] = {}

    def run_node(self, n: fx.Node) -> Any:
        """See `fx.Interpreter`."""
        value = super().run_node(n)
        if isinstance(value, Tensor) and value.is_floating_point():
            self.numbers.add(n)
        elif isinstance(value, Mapping) and "valid" in value:
            self.sources.update(dict.fromkeys(a for a in n.all_input_nodes if a in self.numbers))
        return value


def witnessed(inner: fx.GraphModule, deploy: nn.Module, *inputs: Any) -> fx.GraphModule | None:
    """`inner`, the graph inside `deploy`, with the float tensors that enter its selections as its only outputs.

    None where there is no selection. `inputs` are those of `deploy`, for one run that finds them.
    """
    watcher = _Selections(inner)
    inner.forward = watcher.run  # type: ignore[method-assign]
    try:
        deploy(*inputs)
    finally:
        del inner.forward
    if not watcher.sources:
        return None
    graph, copies = fx.Graph(), dict[fx.Node, fx.Node]()
    graph.graph_copy(inner.graph, copies)
    graph.output({PREFIX + n.name: copies[n] for n in watcher.sources})
    result = fx.GraphModule(inner, graph)
    result.graph.eliminate_dead_code()
    result.recompile()
    return result


def agree(expected: Mapping[str, Any], found: Mapping[str, Any], name: str, half: bool = False) -> Comparison:
    """Compare witnesses, entry by entry; `values` counts them."""
    spread, rest, alone = (HALF_SPREAD, HALF_REST, HALF_ALONE) if half else (SPREAD, REST, ALONE)
    result = Comparison()
    for key, tensor in expected.items():
        here = f"{name}: `{key.removeprefix(PREFIX)}`"
        if key not in found:
            result.problem = f"{here} is missing"
            return result
        a, b = np.asarray(tensor, np.float64), np.asarray(found[key], np.float64)
        if a.shape != b.shape:
            result.problem = f"{here} is {list(b.shape)} instead of {list(a.shape)}"
            return result
        limit = spread * a.std() + rest * np.abs(a).max(initial=0.0)
        same = (np.abs(a - b) <= limit) | (a == b) | (np.isnan(a) & np.isnan(b))
        share = 1 - float(same.mean()) if same.size else 0.0
        result.values += a.size
        if share > alone:
            result.problem = f"{here}, from which boxes are selected, differs in {share:.0%} of its entries"
            return result
    return result
