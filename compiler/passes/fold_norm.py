"""Fold batch norm into the convolution before it, for inference graphs.

    norm(conv(x)) = (w * s) x + (b - mean) * s + beta,   s = gamma / sqrt(var + eps)

The folded convolution is a node of its own, with weights made from the pair: where one convolution stands under
two norms (RTMDet's head), each application gets its own, so sharing cannot give wrong numbers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import ConfigDict

from detc.compiler.graph import DetGraph
from detc.compiler.ops.base import Op
from detc.compiler.passes.manager import Context, contract
from detc.compiler.types import Type
from detc.compiler.values import Wire

if TYPE_CHECKING:
    from torch import nn

    from detc.compiler.backends.tree import Tree

CONVS = ("Conv2d",)
NORMS = ("BatchNorm",)


class FoldedConv(Op):
    """A convolution with a norm folded in. Made by this pass; no spec can name it."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    module: ClassVar[str | None] = None
    weighted: ClassVar[bool] = True
    conv: str
    norm: str

    def infer(self, *inputs: Type) -> Type:
        """Folding changes no types."""
        raise TypeError("a folded convolution is made from a typed one")

    def materialise(self, tree: Tree) -> nn.Module:
        """The folded module from the current weights of the pair, in eval mode, without gradients."""
        import torch

        from detc.compiler.backends.tree import module_path

        conv: Any = tree.get_submodule(module_path(self.conv))
        norm: Any = tree.get_submodule(module_path(self.norm))
        scale = norm.weight.detach() / torch.sqrt(norm.running_var + norm.eps)
        folded = torch.nn.Conv2d(
            conv.in_channels,
            conv.out_channels,
            conv.kernel_size,
            conv.stride,
            conv.padding,
            conv.dilation,
            conv.groups,
        ).to(device=conv.weight.device, dtype=conv.weight.dtype)
        bias = torch.zeros_like(norm.running_mean) if conv.bias is None else conv.bias.detach()
        with torch.no_grad():
            folded.weight.copy_(conv.weight * scale[:, None, None, None])
            assert folded.bias is not None
            folded.bias.copy_((bias - norm.running_mean) * scale + norm.bias)
        return folded.eval().requires_grad_(False)


@contract(requires=["pruned"], ensures=["folded"])
def fold_norm(graph: DetGraph, ctx: Context) -> bool:
    """1. conv -> norm, the norm the conv's only reader: fold. 2. conv read by others too: leave."""
    if graph.phase != "infer":
        return False
    changed = False
    for node in graph.nodes():
        if node.op is None or type(node.op).name not in NORMS or node.weights is None:
            continue
        norm = graph.node(node.id)
        source = norm.args[0]
        if not isinstance(source, Wire) or source.path:
            continue
        conv = graph.node(source.node)
        if conv.op is None or type(conv.op).name not in CONVS or conv.weights is None:
            continue
        readers = graph.users(conv.id)
        if len(readers) != 1 or any(w.node == conv.id for w in graph.roots()):
            ctx.note(f"{conv.id} is not folded into {norm.id}: {len(readers)} nodes read it")
            continue
        assert norm.weights is not None
        op = FoldedConv(conv=conv.weights, norm=norm.weights)
        graph.replace(conv.id, op=op, weights=f"folded.{conv.id}", type=norm.type)
        graph.redirect(norm.id, Wire(conv.id, (), norm.type))
        graph.remove(norm.id)
        changed = True
    return changed
