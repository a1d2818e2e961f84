"""Inference graphs for the CPU: convolutions with reordered weights, and what follows them done in the same pass.

oneDNN reorders a convolution's weights on every call unless they are kept in its own layout, and an activation
or a sum behind a convolution reads and writes the whole map again. Both are a tenth of a ResNet detector's time.
Wide 3x3 convolutions take a quarter of the multiplications by Winograd's filtering (`winograd.py`).
Weights stay ordinary parameters: on another device, in training, in another precision and while a graph is
exported or compiled, a fused convolution does what the nodes that it stands for did.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from detc.compiler.backends import winograd
from detc.compiler.functional import arith
from detc.nativeops import ops

ACTIVATIONS: dict[Callable[..., Any], str] = {F.relu: "relu", torch.relu: "relu", F.silu: "swish"}
_PLAIN: dict[str, Callable[[Tensor], Tensor]] = {"none": lambda x: x, "relu": F.relu, "swish": F.silu}


class FusedConv(nn.Module):
    """`activation(conv(x) + other)`; the sum and the activation may be missing.

    filters: what Winograd's filtering multiplies with, shared by all places that apply `conv`.
    """

    def __init__(
        self, conv: nn.Conv2d, activation: str = "none", filters: winograd.WinogradFilters | None = None
    ) -> None:
        super().__init__()
        self.conv, self.activation = conv, activation
        self._filters = filters or winograd.WinogradFilters()
        self._packed: Tensor | None = None
        self._source: tuple[int, ...] | None = None

    def forward(self, x: Tensor, other: Tensor | None = None) -> Tensor:
        """x [B, C, H, W], other as the convolution's result."""
        if not self._fusable(x, other):
            y = self.conv(x)
            return _PLAIN[self.activation](y if other is None else y + other)
        conv = self.conv
        x = x.contiguous(memory_format=torch.channels_last)
        shape = (conv.padding, conv.stride, conv.dilation, conv.groups)
        if winograd.wins(conv, self._result(x)) and winograd.ready():
            return ops.winograd_conv2d(
                x,
                conv.weight,
                conv.bias,
                packed=self._filters.of(conv.weight),
                other=other,
                padding=(int(conv.padding[0]), int(conv.padding[1])),
                activation=winograd.ACTIVATIONS[self.activation],
            )
        if other is None:
            return torch.ops.mkldnn._convolution_pointwise(
                x, self._weight(x), conv.bias, *shape, self.activation, [], ""
            )
        other = other.contiguous(memory_format=torch.channels_last)
        unary = None if self.activation == "none" else self.activation
        return torch.ops.mkldnn._convolution_pointwise(
            x, other, self._weight(x), conv.bias, *shape, "add", 1.0, unary, [], ""
        )

    def _fusable(self, x: Tensor, other: Tensor | None) -> bool:
        if torch.compiler.is_compiling() or torch.is_grad_enabled() or self.training:
            return False
        weight = self.conv.weight
        if (
            x.device.type != "cpu"
            or x.dtype != torch.float32
            or weight.dtype != torch.float32
            or x.numel() == 0
        ):
            return False
        if torch.is_autocast_enabled("cpu"):
            return False
        return other is None or other.shape == self._result(x)

    def _result(self, x: Tensor) -> torch.Size:
        conv = self.conv
        sides = [
            (x.shape[i + 2] + 2 * int(conv.padding[i]) - conv.dilation[i] * (conv.kernel_size[i] - 1) - 1)
            // conv.stride[i]
            + 1
            for i in (0, 1)
        ]
        return torch.Size([x.shape[0], conv.out_channels, *sides])

    def _weight(self, x: Tensor) -> Tensor:
        """The weights in the layout that oneDNN likes for an input like `x`; made anew for another.

        A layout that was chosen for another size computes the same, at half the speed where maps are small.
        """
        weight = self.conv.weight.detach()
        source = (weight.data_ptr(), weight._version, *x.shape)
        if self._packed is None or self._source != source:
            conv = self.conv
            self._packed = torch.ops.aten.mkldnn_reorder_conv2d_weight(
                weight.to_mkldnn(), conv.padding, conv.stride, conv.dilation, conv.groups, list(x.shape)
            )
            self._source = source
        return self._packed

    def __getstate__(self) -> dict[str, Any]:
        return {
            **self.__dict__,
            "_packed": None,
            "_source": None,
        }  # an opaque layout can be neither copied nor saved


def fuse(graph: fx.GraphModule) -> fx.GraphModule:
    """The same graph with fused convolutions, in place; as it was where torch has no oneDNN."""
    if not torch.backends.mkldnn.is_available():
        return graph
    modules = dict(graph.named_modules())
    filters: dict[nn.Conv2d, winograd.WinogradFilters] = {}
    for node in list(graph.graph.nodes):
        conv = modules.get(str(node.target)) if node.op == "call_module" else None
        if type(conv) is not nn.Conv2d or conv.padding_mode != "zeros" or isinstance(conv.padding, str):
            continue
        chain, inputs, activation = [node], [node.args[0]], "none"
        follower = _only_user(node)
        if follower is not None and (other := _summand(follower, node)) is not None:
            chain, inputs = [*chain, follower], [*inputs, other]
            follower = _only_user(follower)
        if follower is not None and follower.target in ACTIVATIONS and not any(follower.kwargs.values()):
            chain, activation = [*chain, follower], ACTIVATIONS[follower.target]  # type: ignore[index]
        name, shared = f"fused_{node.name}", filters.setdefault(conv, winograd.WinogradFilters())
        graph.add_submodule(name, FusedConv(conv, activation, shared).train(graph.training))
        with graph.graph.inserting_after(chain[-1]):
            made = graph.graph.call_module(name, tuple(inputs))
        made.stack_trace = node.stack_trace
        chain[-1].replace_all_uses_with(made)
        for dead in reversed(chain):
            graph.graph.erase_node(dead)
    graph.graph.lint()
    graph.delete_all_unused_submodules()
    graph.recompile()
    return graph


def _only_user(node: fx.Node) -> fx.Node | None:
    return next(iter(node.users)) if len(node.users) == 1 else None


def _summand(node: fx.Node, conv: fx.Node) -> fx.Node | None:
    """What a sum adds to the convolution, if the node is a sum of two maps."""
    if node.target is not arith.add or len(node.args) != 2 or node.kwargs.get("scalar", 0):
        return None
    a, b = node.args
    if not isinstance(a, fx.Node) or not isinstance(b, fx.Node) or a is b:
        return None
    return b if a is conv else a
