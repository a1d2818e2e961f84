"""Cutting, turning and splitting the dimensions of tensors."""

from __future__ import annotations

from dataclasses import replace

from pydantic import NonNegativeInt, PositiveInt

from detc.compiler.dims import Dim, dim
from detc.compiler.ops.base import Function, Op, Port
from detc.compiler.types import Map, Mismatch, Tensor


def size_along(x: Tensor, axis: int) -> Dim:
    """The size of `x` along `axis`.

    Raises:
        Mismatch: if there is no such dimension.
    """
    if not -len(x.shape) <= axis < len(x.shape):
        raise Mismatch(f"there is no dimension {axis} in {x}", code="DET0303", param="dim")
    return x.shape[axis]


def with_size(x: Tensor, axis: int, size: Dim) -> Tensor:
    """`x` with another size along `axis`."""
    shape = list(x.shape)
    shape[axis] = size
    return replace(x, shape=tuple(shape))


class Unflatten(Op):
    """The last dimension in groups of `width`: [..., n * width] to [..., n, width]."""

    module = "std.ops"
    inputs = (Port("x", Tensor),)

    width: PositiveInt

    def infer(self, x: Tensor) -> Tensor:
        """The last dimension becomes two."""
        size = size_along(x, -1)
        if not size.divides_by(self.width):
            raise Mismatch(
                f"a last dimension of {size} does not come in groups of {self.width}",
                code="DET0303",
                inputs=((0, f"{x}"),),
                param="width",
            )
        return replace(x, shape=(*x.shape[:-1], size // self.width, dim(self.width)))

    def torch(self, x: Tensor) -> Function:  # type: ignore[override]
        """`unflatten`."""
        return Function("torch:unflatten", {"dim": -1, "sizes": [-1, self.width]})


class Slice(Op):
    """Elements `start` to `stop` (not included, to the end by default) along `dim`."""

    module = "std.ops"
    inputs = (Port("x", Tensor),)

    start: int = 0
    stop: int | None = None
    dim: int = -1

    def infer(self, x: Tensor) -> Tensor:
        """The dimension shrinks; negative positions count from its end."""
        size = size_along(x, self.dim)
        start = self.start if self.start >= 0 else size + self.start
        stop = size if self.stop is None else (dim(self.stop) if self.stop >= 0 else size + self.stop)
        length = stop - start
        if length.is_const and int(length) <= 0:
            raise Mismatch(f"nothing is left of {size}", code="DET0303", inputs=((0, f"{x}"),), param="stop")
        return with_size(x, self.dim, length)

    def torch(self, x: Tensor) -> Function:  # type: ignore[override]
        """A slice."""
        return Function(
            "detc.compiler.functional.reshape:cut", {"start": self.start, "stop": self.stop, "dim": self.dim}
        )


class Roll(Op):
    """Elements along `dim` moved `shift` places up; those that fall off the end come in at the start."""

    module = "std.ops"
    inputs = (Port("x", Tensor),)

    shift: int
    dim: int = -1

    def infer(self, x: Tensor) -> Tensor:
        """The shape stays."""
        size_along(x, self.dim)
        return x

    def torch(self, x: Tensor) -> Function:  # type: ignore[override]
        """`roll`."""
        return Function("torch:roll", {"shifts": self.shift, "dims": self.dim})


class Channels(Op):
    """Channels `start` to `stop` (not included, to the end by default) of a map, every `step`-th of them.

    `Channels(step = 2)` and `Channels(1, step = 2)` are the halves of ShuffleNet's channel shuffle.
    """

    module = "std.ops"
    channels_from = "stop"
    inputs = (Port("x", Map),)

    start: NonNegativeInt = 0
    stop: PositiveInt | None = None
    step: PositiveInt = 1

    def infer(self, x: Map) -> Map:
        """[B, C, H, W] to [B, C', H, W]."""
        stop = x.channels if self.stop is None else self.stop
        if stop > x.channels or self.start >= stop:
            raise Mismatch(
                f"there are no channels {self.start} .. {stop} among {x.channels}",
                code="DET0302",
                inputs=((0, f"{x.channels} channels come from here"),),
                param="stop" if self.stop is not None and stop > x.channels else "start",
            )
        return x.with_channels(len(range(self.start, stop, self.step)))

    def torch(self, x: Map) -> Function:  # type: ignore[override]
        """A slice."""
        kwargs = {"start": self.start, "stop": self.stop, "dim": 1, "step": self.step}
        return Function("detc.compiler.functional.reshape:cut", kwargs)
