"""Reshaping between maps, pyramids and tensors."""

from __future__ import annotations

from pydantic import PositiveInt

from detc.compiler.dims import Dim
from detc.compiler.ops.base import Function, Op, Port
from detc.compiler.types import BATCH, Map, Mismatch, Pyramid, Tensor, tensor


def points_in(levels: Pyramid) -> Dim:
    """How many positions a pyramid has, all levels together."""
    return sum((m.height * m.width for m in levels.maps), Dim())


class FlattenPoints(Op):
    """A pyramid of predictions as one tensor: by level, row, column, then anchor.

    `width` values belong together (classes, or 4 coordinates): a map of A * width channels holds A
    predictions at each position. By default A is 1.
    """

    module = "std.dense"
    inputs = (Port("levels", Pyramid),)

    width: PositiveInt | None = None

    def _width(self, levels: Pyramid) -> int:
        first = levels.maps[0].channels
        width = self.width or first
        for m in levels.maps:
            if m.channels != first:
                raise Mismatch(
                    f"the levels have {first} and {m.channels} channels",
                    code="DET0302",
                    inputs=((0, f"{levels}"),),
                )
        if first % width:
            raise Mismatch(
                f"{first} channels are not a multiple of width {width}",
                code="DET0302",
                inputs=((0, f"{first} channels come from here"),),
                param="width",
            )
        return width

    def infer(self, levels: Pyramid) -> Tensor:
        """Maps [B, A * width, H, W] to [B, N, width]."""
        width = self._width(levels)
        return tensor(BATCH, points_in(levels) * (levels.maps[0].channels // width), width)

    def torch(self, levels: Pyramid) -> Function:  # type: ignore[override]
        """Permute, reshape, concatenate."""
        return Function("detc.compiler.functional.points:flat", {"width": self._width(levels)})


class Flatten(Op):
    """A map as [B, C H W]; a tensor with all dimensions from `start` on joined."""

    module = "std.ops"
    inputs = (Port("x", (Map, Tensor)),)

    start: PositiveInt = 1

    def infer(self, x: Map | Tensor) -> Tensor:
        """[B, C, H, W] to [B, C H W]."""
        shape = (BATCH, Dim(x.channels), x.height, x.width) if isinstance(x, Map) else x.shape
        if self.start >= len(shape):
            raise Mismatch(f"there is no dimension {self.start} in {x}", code="DET0303", param="start")
        joined = Dim(1)
        for d in shape[self.start :]:
            joined = joined * d
        dtype = x.dtype if isinstance(x, Tensor) else "float32"
        return Tensor((*shape[: self.start], joined), dtype)

    def torch(self, x: Map | Tensor) -> Function:  # type: ignore[override]
        """`torch.flatten`."""
        return Function("torch:flatten", {"start_dim": self.start})


class Detach(Op):
    """Lets no gradient through."""

    module = "std.ops"
    inputs = (Port("x", (Map, Tensor, Pyramid)),)

    def infer(self, x: Map | Tensor | Pyramid) -> Map | Tensor | Pyramid:
        """The same wire."""
        return x

    def torch(self, x: Map | Tensor | Pyramid) -> Function:  # type: ignore[override]
        """`detach`, level by level."""
        return Function("detc.compiler.functional.tensor:detach")
