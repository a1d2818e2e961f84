"""Normalisation layers, learnable scalars and free parameters."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from pydantic import Field, PositiveInt

from detc.compiler.ops.base import Op, Port
from detc.compiler.types import Map, Mismatch, Tensor, Type, tensor

if TYPE_CHECKING:
    from torch import nn


class BatchNorm(Op):
    """Batch normalisation over a map's channels (Ioffe & Szegedy, 2015).

    With `frozen` it always uses its running statistics and does not learn. `init` is what its scale begins
    with: 0 on the last norm of a residual block makes the block the identity at first (Goyal et al., 2017).
    """

    module = "std.ops"
    weighted = True
    inputs = (Port("x", Map),)

    eps: float = Field(default=1e-5, ge=0)
    momentum: float = Field(default=0.1, gt=0, le=1)
    frozen: bool = False
    init: float = 1.0

    def infer(self, x: Map) -> Map:
        """The shape stays."""
        if self.eps == 0 and not self.frozen:
            raise Mismatch(
                "a batch norm that learns needs an `eps` above 0: it divides by the deviation of a batch",
                code="DET0311",
                param="eps",
                help="eps = 1e-5, or frozen = true",
            )
        return x

    def parameter_shapes(self, *inputs: Type) -> dict[str, tuple[int, ...]] | None:
        """weight and bias [C]."""
        (x,) = inputs
        assert isinstance(x, Map)
        return {"weight": (x.channels,), "bias": (x.channels,)}

    def torch(self, x: Map) -> nn.Module:  # type: ignore[override]
        """An `nn.BatchNorm2d`."""
        from torch import nn

        from detc.compiler.functional.layers import FrozenBatchNorm2d

        kind = FrozenBatchNorm2d if self.frozen else nn.BatchNorm2d
        layer = kind(x.channels, eps=self.eps, momentum=self.momentum)
        if self.init != 1.0:
            nn.init.constant_(layer.weight, self.init)
        return layer


class GroupNorm(Op):
    """Group normalisation (Wu & He, 2018)."""

    module = "std.ops"
    weighted = True
    inputs = (Port("x", Map),)

    groups: PositiveInt = 32
    eps: float = Field(default=1e-5, gt=0)
    frozen: bool = False

    def infer(self, x: Map) -> Map:
        """The shape stays."""
        if x.channels % self.groups:
            raise Mismatch(
                f"{self.groups} groups do not divide {x.channels} channels",
                code="DET0302",
                inputs=((0, f"{x.channels} channels come from here"),),
                param="groups",
            )
        return x

    def parameter_shapes(self, *inputs: Type) -> dict[str, tuple[int, ...]] | None:
        """weight and bias [C]."""
        (x,) = inputs
        assert isinstance(x, Map)
        return {"weight": (x.channels,), "bias": (x.channels,)}

    def torch(self, x: Map) -> nn.Module:  # type: ignore[override]
        """An `nn.GroupNorm`."""
        from torch import nn

        return nn.GroupNorm(self.groups, x.channels, eps=self.eps).requires_grad_(not self.frozen)


class LayerNorm(Op):
    """Layer normalisation over the last dimension of a tensor, or the channels of a map (Ba et al., 2016)."""

    module = "std.ops"
    weighted = True
    inputs = (Port("x", (Tensor, Map)),)

    eps: float = Field(default=1e-5, gt=0)
    frozen: bool = False

    def infer(self, x: Tensor | Map) -> Tensor | Map:
        """The shape stays."""
        self._width(x)
        return x

    def parameter_shapes(self, *inputs: Type) -> dict[str, tuple[int, ...]] | None:
        """weight and bias [C]."""
        (x,) = inputs
        assert isinstance(x, (Map, Tensor))
        return {"weight": (self._width(x),), "bias": (self._width(x),)}

    def torch(self, x: Tensor | Map) -> nn.Module:  # type: ignore[override]
        """An `nn.LayerNorm`, with the channels moved last and back for a map."""
        from torch import nn

        from detc.compiler.functional.layers import LayerNorm2d

        kind = LayerNorm2d if isinstance(x, Map) else nn.LayerNorm
        return kind(self._width(x), eps=self.eps).requires_grad_(not self.frozen)

    @staticmethod
    def _width(x: Tensor | Map) -> int:
        if isinstance(x, Map):
            return x.channels
        if not x.shape or not x.shape[-1].is_const:
            raise Mismatch(
                f"layer norm needs a last dimension of known size, not {x}",
                code="DET0303",
                inputs=((0, "this wire"),),
            )
        return int(x.shape[-1])


class Scale(Op):
    """Multiplies by one learnable number, as each level of FCOS's regression does (Tian et al., 2019)."""

    module = "std.ops"
    weighted = True
    inputs = (Port("x", (Map, Tensor)),)

    init: float = 1.0
    frozen: bool = False

    def infer(self, x: Map | Tensor) -> Map | Tensor:
        """The shape stays."""
        return replace(x, kind="tensor") if isinstance(x, Tensor) else x

    def parameter_shapes(self, *inputs: Type) -> dict[str, tuple[int, ...]] | None:
        """One number."""
        return {"scale": ()}

    def torch(self, x: Map | Tensor) -> nn.Module:  # type: ignore[override]
        """A module whose `scale` is the number."""
        from detc.compiler.functional.layers import Scale as ScaleModule

        return ScaleModule(self.init).requires_grad_(not self.frozen)


class Parameter(Op):
    """A free parameter of a given shape (queries, prototypes, embeddings); applied to nothing: `() -> p`."""

    module = "std.ops"
    weighted = True
    inputs = ()

    shape: list[PositiveInt] = Field(min_length=1)
    init: Literal["normal", "zeros", "ones", "uniform"] = "normal"
    std: float = Field(default=1.0, gt=0)
    frozen: bool = False

    def infer(self) -> Type:
        """A tensor of `shape`, without a batch dimension."""
        return tensor(*self.shape)

    def parameter_shapes(self, *inputs: Type) -> dict[str, tuple[int, ...]] | None:
        """The shape that is asked for."""
        return {"value": tuple(self.shape)}

    def torch(self, *inputs: Type) -> nn.Module:
        """A module whose `value` is the parameter."""
        from detc.compiler.functional.layers import FreeParameter

        return FreeParameter(list(self.shape), self.init, self.std).requires_grad_(not self.frozen)
