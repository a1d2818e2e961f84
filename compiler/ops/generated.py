"""Convolution and linear layer whose weights a wire gives; `x -> node using k` turns into them."""

from __future__ import annotations

from dataclasses import replace

from pydantic import Field, NonNegativeInt, PositiveInt

from detc.compiler.dims import conv_size, dim
from detc.compiler.ops.base import Function, Op, Port
from detc.compiler.types import Map, Mismatch, Tensor, Type


class _Generated(Op):
    """weight_at, bias_at: where the op's shares begin in the last dimension of the weights."""

    module = "std.ops"
    channels_from = "out"

    out: PositiveInt
    bias: bool = True
    weight_at: NonNegativeInt = 0
    bias_at: NonNegativeInt = 0

    def _fits(self, weights: Tensor, elements: int) -> None:
        width = weights.shape[-1] if weights.shape else dim(0)
        needed = max(self.weight_at + elements, self.bias_at + self.out if self.bias else 0)
        if not width.is_const or int(width) < needed:
            raise Mismatch(
                f"{type(self).name} reads {needed} weights, and {width} are given",
                code="DET0302",
                inputs=((1, f"{width} come from here"),),
            )


class GeneratedConv2d(_Generated):
    """2-D convolution of each map with weights of its own (CondInst, Tian et al., ECCV 2020)."""

    inputs = (Port("x", Map), Port("weights", Tensor))

    kernel: PositiveInt = 1
    stride: PositiveInt = 1
    padding: int = Field(default=-1, ge=-1)
    dilation: PositiveInt = 1
    groups: PositiveInt = 1

    def pad(self) -> int:
        """Pixels added on each side."""
        return self.dilation * (self.kernel - 1) // 2 if self.padding < 0 else self.padding

    def infer(self, x: Map, weights: Tensor) -> Map:
        """[N, C, H, W] and [..., P] with N rows to [N, out, H', W']."""
        if x.channels % self.groups or self.out % self.groups:
            raise Mismatch(
                f"{self.groups} groups do not divide {x.channels} input and {self.out} output channels",
                code="DET0302",
                inputs=((0, f"{x.channels} channels come from here"),),
                param="groups",
            )
        self._fits(weights, self.out * (x.channels // self.groups) * self.kernel**2)
        size = (self.kernel, self.stride, self.pad(), self.dilation)
        return Map(self.out, x.stride * self.stride, conv_size(x.height, *size), conv_size(x.width, *size))

    def torch(self, *inputs: Type) -> Function:
        """One batched matrix product for each tap of the kernel."""
        return Function(
            "detc.compiler.functional.generated:conv2d",
            {
                "out": self.out, "kernel": self.kernel, "stride": self.stride, "padding": self.pad(),
                "dilation": self.dilation, "groups": self.groups, "weight_at": self.weight_at,
                "bias_at": self.bias_at if self.bias else None,
            },
        )  # fmt: skip


class GeneratedLinear(_Generated):
    """A linear layer over the last dimension, with weights of its own for each row of the weights."""

    inputs = (Port("x", Tensor), Port("weights", Tensor))

    def infer(self, x: Tensor, weights: Tensor) -> Tensor:
        """[N, ..., C] and [..., P] with N rows to [N, ..., out]."""
        if not x.shape or not x.shape[-1].is_const:
            raise Mismatch(
                f"a linear layer needs a last dimension of known size, not {x}",
                code="DET0303",
                inputs=((0, "this wire"),),
            )
        self._fits(weights, self.out * int(x.shape[-1]))
        return replace(x, shape=(*x.shape[:-1], dim(self.out)), kind="tensor")

    def torch(self, *inputs: Type) -> Function:
        """A batched matrix product."""
        assert isinstance(inputs[1], Tensor)
        kwargs = {
            "out": self.out,
            "weight_at": self.weight_at,
            "bias_at": self.bias_at if self.bias else None,
            "rows": len(inputs[1].shape) - 1,
        }
        return Function("detc.compiler.functional.generated:linear", kwargs)
