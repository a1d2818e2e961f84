"""Resizing of feature maps."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from typing import Literal

from pydantic import PositiveInt

from detc.compiler.ops.base import Function, Op, Port
from detc.compiler.types import Map


class Upsample(Op):
    """Enlarges a map by a whole factor.

    "bilinear" samples at pixel centres (half-pixel rule). "aligned" (AdelaiDet's) takes a pixel for its corner:
    output j lies at (j - factor // 2) / factor.
    """

    module = "std.ops"
    inputs = (Port("x", Map),)

    factor: PositiveInt = 2
    mode: Literal["nearest", "bilinear", "aligned"] = "nearest"

    def infer(self, x: Map) -> Map:
        """[B, C, H, W] to [B, C, factor H, factor W]."""
        stride = x.stride * Fraction(1, self.factor)
        return replace(x, stride=stride, height=x.height * self.factor, width=x.width * self.factor)

    def torch(self, x: Map) -> Function:  # type: ignore[override]
        """`interpolate` by a factor."""
        if self.mode == "aligned":
            return Function("detc.compiler.functional.tensor:aligned_upsample", {"factor": self.factor})
        kwargs: dict[str, object] = {"scale_factor": float(self.factor), "mode": self.mode}
        if self.mode == "bilinear":
            kwargs["align_corners"] = False
        return Function("torch.nn.functional:interpolate", kwargs)


class UpsampleLike(Op):
    """Resizes its first input to the height and width of its second one."""

    module = "std.ops"
    inputs = (Port("x", Map), Port("like", Map))

    mode: Literal["nearest", "bilinear"] = "nearest"

    def infer(self, x: Map, like: Map) -> Map:
        """[B, C, h, w] and [B, D, H, W] to [B, C, H, W]; the stride is the second input's."""
        return replace(x, stride=like.stride, height=like.height, width=like.width)

    def torch(self, x: Map, like: Map) -> Function:  # type: ignore[override]
        """`interpolate` to a size."""
        return Function("detc.compiler.functional.tensor:resize_like", {"mode": self.mode})
