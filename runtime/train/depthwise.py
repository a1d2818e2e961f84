"""Depthwise convolutions of a train graph whose weights' gradient is computed natively on a CPU.

torch computes a depthwise convolution's result and its gradient in the input at the speed of memory, and the
gradient in the weights ten to twenty times slower, most of all in bf16.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.autograd.function import once_differentiable

from detc.nativeops import loader, ops
from detc.nativeops.registry import has_native_kernel
from detc.runtime.train.norms import duplicate


class _Convolve(torch.autograd.Function):
    """A depthwise convolution of `x` by weights that may be wider than it; so is their gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, conv: nn.Conv2d) -> Tensor:
        ctx.conv = conv
        ctx.save_for_backward(x, weight)
        with torch.autocast("cpu", enabled=False):
            return torch.conv2d(
                x, weight.to(x.dtype), None, conv.stride, conv.padding, conv.dilation, conv.groups
            )

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        (x, weight), conv = ctx.saved_tensors, ctx.conv
        grad_x = grad_weight = None
        if ctx.needs_input_grad[0]:
            grad_x = torch.ops.aten.convolution_backward(
                grad,
                x,
                weight.to(x.dtype),
                None,
                conv.stride,
                conv.padding,
                conv.dilation,
                False,
                [0, 0],
                conv.groups,
                [True, False, False],
            )[0]
        if ctx.needs_input_grad[1]:
            grad_weight = ops.depthwise_weight_grad(
                grad,
                x,
                kernel=conv.kernel_size,
                stride=conv.stride,
                padding=conv.padding,
                dilation=conv.dilation,
            )
        return grad_x, grad_weight, None


class DepthwiseConv(nn.Module):
    """The convolution, with the native gradient where it trains on a CPU."""

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.conv = conv

    def forward(self, x: Tensor) -> Tensor:
        """x [B, C, H, W]."""
        weight = self.conv.weight
        if not (torch.is_grad_enabled() and weight.requires_grad and x.is_cpu and x.numel() > 0):
            return self.conv(x)
        if torch.is_autocast_enabled("cpu"):
            x = x.to(torch.get_autocast_dtype("cpu"))
        if weight.dtype != (torch.float64 if x.dtype == torch.float64 else torch.float32):
            return self.conv(x)
        out: Tensor = _Convolve.apply(x, weight, self.conv)
        return out


def native_depthwise(graph: Any) -> Any:
    """A graph over the same modules with such convolutions; the graph itself where there is nothing to gain."""
    if not isinstance(graph, fx.GraphModule):
        return graph
    found = [n for n in graph.graph.nodes if n.op == "call_module" and _depthwise(graph, n)]
    if not found or not (loader.ensure_loaded("cpu") and has_native_kernel("depthwise_weight_grad", "cpu")):
        return graph
    native, copied = duplicate(graph)
    for node in found:
        conv = graph.get_submodule(str(node.target))
        assert isinstance(conv, nn.Conv2d)
        copied[node].target = f"native_{node.name}"
        native.add_submodule(f"native_{node.name}", DepthwiseConv(conv))
    native.delete_all_unused_submodules()
    native.graph.lint()
    native.recompile()
    return native


def _depthwise(graph: fx.GraphModule, node: fx.Node) -> bool:
    conv = graph.get_submodule(str(node.target))
    return (
        type(conv) is nn.Conv2d
        and "forward" not in vars(conv)  # that of a prediction layer, which stays in fp32
        and conv.groups == conv.in_channels == conv.out_channels > 1
        and conv.bias is None
        and conv.padding_mode == "zeros"
        and not isinstance(conv.padding, str)
        and len(node.args) == 1
        and not node.kwargs
    )
