"""Batch norms of a train graph, each with the activation behind it, as one native op on a CPU.

On a CPU a norm and an activation are bound by memory: torch reads and writes the map five times forward and
eight times backward where `nativeops.ops.batch_norm_act` does three and six, and keeps one map where torch
keeps two. The graph that is trained is a copy; modules, and so parameters, statistics and their names, are
the program's own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from detc.nativeops import loader, ops
from detc.nativeops.reference.batch_norm_act import activate
from detc.nativeops.registry import has_native_kernel

ACTIVATIONS: dict[Callable[..., Any], str] = {
    F.relu: "relu",
    torch.relu: "relu",
    F.silu: "silu",
    F.leaky_relu: "leaky_relu",
    F.hardswish: "hardswish",
}


class NormAct(nn.Module):
    """`activation(norm(x))`: natively where the norm learns on a CPU, else by the norm itself."""

    def __init__(self, norm: nn.BatchNorm2d, activation: str, slope: float) -> None:
        super().__init__()
        self.norm, self.activation, self.slope = norm, activation, slope

    def forward(self, x: Tensor) -> Tensor:
        """x [B, C, H, W]. Moves the running statistics as the norm does."""
        norm = self.norm
        weight = norm.weight
        # A norm that is frozen or evaluated has nothing to gain, and torch has words for a batch without a variance.
        wide = torch.float64 if x.dtype == torch.float64 else torch.float32
        if not (
            norm.training and x.is_cpu and weight.dtype == wide and x.dim() == 4 and x.numel() > len(weight)
        ):
            return activate(norm(x), self.activation, self.slope)
        out, mean, var = ops.batch_norm_act(
            x, weight, norm.bias, eps=norm.eps, activation=self.activation, slope=self.slope
        )
        tracked, momentum = norm.num_batches_tracked, norm.momentum
        assert norm.running_mean is not None and norm.running_var is not None
        assert tracked is not None and momentum is not None
        tracked.add_(1)
        norm.running_mean.lerp_(mean, momentum)
        norm.running_var.lerp_(var, momentum)
        return out


def native_norms(graph: Any) -> Any:
    """A graph over the same modules with native norms; the graph itself where there is nothing to gain.

    That is where a graph is no fx graph, where there is no native library (no compiler, or `DETC_NATIVE=0`),
    and where no norm is one that the op can stand for.
    """
    if not isinstance(graph, fx.GraphModule):
        return graph
    found = [match for node in graph.graph.nodes if (match := _match(graph, node)) is not None]
    if not found or not (loader.ensure_loaded("cpu") and has_native_kernel("batch_norm_act", "cpu")):
        return graph
    fused, copied = duplicate(graph)
    for match in found:
        _replace(fused, copied, match)
    fused.delete_all_unused_submodules()
    fused.graph.lint()
    fused.recompile()
    return fused


def duplicate(graph: fx.GraphModule) -> tuple[fx.GraphModule, dict[fx.Node, fx.Node]]:
    """A graph of the same modules that can be edited, and its node for each node of the given one."""
    inner = fx.Graph()
    copied: dict[fx.Node, fx.Node] = {}
    inner.output(inner.graph_copy(graph.graph, copied))
    return fx.GraphModule(graph, inner, class_name=type(graph).__name__), copied


class _Match(NamedTuple):
    node: fx.Node  # the norm's
    norm: nn.BatchNorm2d
    follower: fx.Node | None  # the activation's
    activation: str
    slope: float


def _match(graph: fx.GraphModule, node: fx.Node) -> _Match | None:
    if node.op != "call_module" or len(node.args) != 1 or node.kwargs:
        return None
    norm = graph.get_submodule(str(node.target))
    # Frozen norms are of another class. A forward of its own is a prediction layer's, which stays in fp32.
    if type(norm) is not nn.BatchNorm2d or "forward" in vars(norm):
        return None
    if not (norm.affine and norm.track_running_stats) or norm.momentum is None:
        return None
    user = next(iter(node.users)) if len(node.users) == 1 else None
    name = ACTIVATIONS.get(user.target) if user is not None and user.op == "call_function" else None  # type: ignore[arg-type]
    if user is None or name is None or user.args != (node,):
        return _Match(node, norm, None, "identity", 0.0)
    options = dict(user.kwargs)
    slope = options.pop("negative_slope", 0.01)
    if any(options.values()) or not isinstance(slope, (int, float)):  # in place, say
        return _Match(node, norm, None, "identity", 0.0)
    return _Match(node, norm, user, name, float(slope))


def _replace(graph: fx.GraphModule, copied: dict[fx.Node, fx.Node], match: _Match) -> None:
    node = copied[match.node]
    last = node if match.follower is None else copied[match.follower]
    name = f"native_{node.name}"
    graph.add_submodule(name, NormAct(match.norm, match.activation, match.slope))
    with graph.graph.inserting_after(last):
        made = graph.graph.call_module(name, node.args)
    made.stack_trace = match.node.stack_trace
    last.replace_all_uses_with(made)
    for dead in (last, node) if last is not node else (node,):
        graph.graph.erase_node(dead)
