"""Convolutions and linear layers."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from typing import TYPE_CHECKING, Literal

from pydantic import Field, NonNegativeInt, PositiveInt

from detc.compiler.dims import conv_size, dim
from detc.compiler.ops.base import Op, Port
from detc.compiler.ops.generated import GeneratedConv2d, GeneratedLinear
from detc.compiler.types import Map, Mismatch, Tensor, Type

if TYPE_CHECKING:
    from torch import nn

Init = Literal["default", "kaiming", "normal", "xavier", "caffe2", "zeros"]


class _Weighted(Op):
    """Shared by layers with a weight and a bias: how they begin, and whether they learn.

    init: "default" is torch's own (uniform, He with a = sqrt 5); "kaiming" normal with fan out (He et al.,
        2015); "caffe2" uniform with fan in, a = 1; "xavier" uniform (Glorot & Bengio, 2010); "normal" has
        standard deviation `std`. All but "default" start the bias at `bias_init`.
    prior: starts the bias at -log((1 - prior) / prior), so that a sigmoid begins at `prior`.
    """

    weighted = True

    def _blame_in(self, channels: int, stated: int | None) -> None:
        if stated is not None and stated != channels:
            raise Mismatch(
                f"{type(self).name}(in = {stated}) is fed {channels} channels",
                code="DET0302",
                inputs=((0, f"{channels} channels come from here"),),
                param="in",
                help="`in` is a check; leave it out and the compiler infers it",
            )


class Conv2d(_Weighted):
    """2-D convolution. `padding = -1` keeps the size at stride 1: `dilation * (kernel - 1) / 2`."""

    module = "std.ops"
    channels_from = "out"
    inputs = (Port("x", Map),)

    out: PositiveInt
    kernel: PositiveInt = 1
    stride: PositiveInt = 1
    padding: int = Field(default=-1, ge=-1)
    dilation: PositiveInt = 1
    groups: PositiveInt = 1
    bias: bool = True
    in_: PositiveInt | None = Field(default=None, alias="in")
    init: Init = "default"
    std: float = Field(default=0.01, gt=0)
    bias_init: float = 0.0
    prior: float | None = Field(default=None, gt=0, lt=1)
    frozen: bool = False

    def pad(self) -> int:
        """Pixels added on each side."""
        return self.dilation * (self.kernel - 1) // 2 if self.padding < 0 else self.padding

    def infer(self, x: Map) -> Map:
        """[B, C, H, W] to [B, out, H', W']."""
        self._blame_in(x.channels, self.in_)
        for what, channels in (("input", x.channels), ("output", self.out)):
            if channels % self.groups:
                raise Mismatch(
                    f"{self.groups} groups do not divide {channels} {what} channels",
                    code="DET0302",
                    inputs=((0, f"{x.channels} channels come from here"),),
                    param="groups",
                )
        size = (self.kernel, self.stride, self.pad(), self.dilation)
        return Map(self.out, x.stride * self.stride, conv_size(x.height, *size), conv_size(x.width, *size))

    def parameter_shapes(self, *inputs: Type) -> dict[str, tuple[int, ...]] | None:
        """weight [out, C / groups, k, k] and bias [out]."""
        (x,) = inputs
        assert isinstance(x, Map)
        shape = (self.out, x.channels // self.groups, self.kernel, self.kernel)
        return {"weight": shape, **({"bias": (self.out,)} if self.bias else {})}

    def generated(self, weight_at: int, bias_at: int) -> Op | None:
        """The convolution with weights from a wire."""
        if type(self).torch is not Conv2d.torch:
            return None
        return GeneratedConv2d(
            out=self.out, kernel=self.kernel, stride=self.stride, padding=self.pad(), dilation=self.dilation,
            groups=self.groups, bias=self.bias, weight_at=weight_at, bias_at=bias_at if self.bias else 0,
        )  # fmt: skip

    def torch(self, x: Map) -> nn.Module:  # type: ignore[override]
        """An `nn.Conv2d`."""
        from torch import nn

        from detc.compiler.functional.initialise import initialise

        layer = nn.Conv2d(
            x.channels, self.out, self.kernel, self.stride, self.pad(), self.dilation, self.groups, self.bias
        )
        initialise(layer, self.init, self.std, self.bias_init, self.prior)
        return layer.requires_grad_(not self.frozen)


class Conv(Conv2d):
    """Another name of `Conv2d`."""

    module = "std.ops"


class ConvWS(Conv2d):
    """A convolution whose weights are standardised for each output channel (Qiao et al., 2019), for group norm.

    eps: added to the standard deviation of the weights.
    """

    module = "std.ops"

    eps: float = Field(default=1e-5, gt=0)

    def torch(self, x: Map) -> nn.Module:  # type: ignore[override]
        """A module with the parameters of `nn.Conv2d`."""
        from detc.compiler.functional.initialise import initialise
        from detc.compiler.functional.layers import StandardisedConv2d

        layer = StandardisedConv2d(
            x.channels, self.out, self.kernel, self.stride, self.pad(), self.dilation, self.groups, self.bias
        )
        layer.eps = self.eps
        initialise(layer, self.init, self.std, self.bias_init, self.prior)
        return layer.requires_grad_(not self.frozen)


class DeformConv2d(Conv2d):
    """Deformable convolution: a second convolution says where each tap reads.

    It also weighs the taps with `modulated` (version 2, Zhu et al., CVPR 2019); without, it is version 1
    (Dai et al., ICCV 2017). It starts without any offset. offset_groups: groups of input channels that have
    offsets of their own.
    """

    module = "std.ops"
    kernel: PositiveInt = 3
    modulated: bool = True
    offset_groups: PositiveInt = 1

    def parameter_shapes(self, *inputs: Type) -> dict[str, tuple[int, ...]] | None:
        """Those of a convolution, and of the convolution `offset`."""
        (x,) = inputs
        assert isinstance(x, Map)
        offsets = (3 if self.modulated else 2) * self.offset_groups * self.kernel**2
        own = super().parameter_shapes(x) or {}
        shape = (offsets, x.channels, self.kernel, self.kernel)
        return {**own, "offset.weight": shape, "offset.bias": (offsets,)}

    def infer(self, x: Map) -> Map:
        """[B, C, H, W] to [B, out, H', W']."""
        if x.channels % self.offset_groups:
            raise Mismatch(
                f"{self.offset_groups} groups of offsets do not divide {x.channels} channels",
                code="DET0302",
                inputs=((0, f"{x.channels} channels come from here"),),
                param="offset_groups",
            )
        return super().infer(x)

    def torch(self, x: Map) -> nn.Module:  # type: ignore[override]
        """A module with `weight`, `bias` and the convolution `offset`, over the native op."""
        from detc.compiler.functional.deform import DeformConv2d as Layer
        from detc.compiler.functional.initialise import initialise

        layer = Layer(
            x.channels, self.out, self.kernel, self.stride, self.pad(), self.dilation, self.groups, self.bias,
            modulated=self.modulated, offset_groups=self.offset_groups,
        )  # fmt: skip
        initialise(layer, self.init, self.std, self.bias_init, self.prior)
        return layer.requires_grad_(not self.frozen)


class DeformConv(DeformConv2d):
    """Another name of `DeformConv2d`."""

    module = "std.ops"


class ConvTranspose2d(_Weighted):
    """2-D transposed convolution (learned upsampling): size' = (size - 1) stride - 2 padding + kernel."""

    module = "std.ops"
    channels_from = "out"
    inputs = (Port("x", Map),)

    out: PositiveInt
    kernel: PositiveInt = 2
    stride: PositiveInt = 2
    padding: NonNegativeInt = 0
    groups: PositiveInt = 1
    bias: bool = True
    in_: PositiveInt | None = Field(default=None, alias="in")
    init: Init = "default"
    std: float = Field(default=0.01, gt=0)
    bias_init: float = 0.0
    prior: float | None = Field(default=None, gt=0, lt=1)
    frozen: bool = False

    def infer(self, x: Map) -> Map:
        """[B, C, H, W] to [B, out, H', W']; the stride shrinks."""
        self._blame_in(x.channels, self.in_)
        if x.channels % self.groups or self.out % self.groups:
            raise Mismatch(
                f"{self.groups} groups do not divide {x.channels} input and {self.out} output channels",
                code="DET0302",
                inputs=((0, f"{x.channels} channels come from here"),),
                param="groups",
            )
        grow = self.kernel - 2 * self.padding
        height, width = ((size - 1) * self.stride + grow for size in (x.height, x.width))
        return Map(self.out, x.stride * Fraction(1, self.stride), height, width)

    def parameter_shapes(self, *inputs: Type) -> dict[str, tuple[int, ...]] | None:
        """weight [C, out / groups, k, k] and bias [out]."""
        (x,) = inputs
        assert isinstance(x, Map)
        shape = (x.channels, self.out // self.groups, self.kernel, self.kernel)
        return {"weight": shape, **({"bias": (self.out,)} if self.bias else {})}

    def torch(self, x: Map) -> nn.Module:  # type: ignore[override]
        """An `nn.ConvTranspose2d`."""
        from torch import nn

        from detc.compiler.functional.initialise import initialise

        layer = nn.ConvTranspose2d(
            x.channels, self.out, self.kernel, self.stride, self.padding, groups=self.groups, bias=self.bias
        )
        initialise(layer, self.init, self.std, self.bias_init, self.prior)
        return layer.requires_grad_(not self.frozen)


class Linear(_Weighted):
    """A linear layer over the last dimension."""

    module = "std.ops"
    channels_from = "out"
    inputs = (Port("x", Tensor),)

    out: PositiveInt
    bias: bool = True
    in_: PositiveInt | None = Field(default=None, alias="in")
    init: Init = "default"
    std: float = Field(default=0.01, gt=0)
    bias_init: float = 0.0
    prior: float | None = Field(default=None, gt=0, lt=1)
    frozen: bool = False

    def infer(self, x: Tensor) -> Tensor:
        """[..., C] to [..., out]."""
        self._blame_in(self._width(x), self.in_)
        return replace(x, shape=(*x.shape[:-1], dim(self.out)), kind="tensor")

    def parameter_shapes(self, *inputs: Type) -> dict[str, tuple[int, ...]] | None:
        """weight [out, C] and bias [out]."""
        (x,) = inputs
        assert isinstance(x, Tensor)
        return {"weight": (self.out, self._width(x)), **({"bias": (self.out,)} if self.bias else {})}

    def generated(self, weight_at: int, bias_at: int) -> Op | None:
        """The linear layer with weights from a wire."""
        return GeneratedLinear(
            out=self.out, bias=self.bias, weight_at=weight_at, bias_at=bias_at if self.bias else 0
        )

    def torch(self, x: Tensor) -> nn.Module:  # type: ignore[override]
        """An `nn.Linear`."""
        from torch import nn

        from detc.compiler.functional.initialise import initialise

        layer = nn.Linear(self._width(x), self.out, self.bias)
        initialise(layer, self.init, self.std, self.bias_init, self.prior)
        return layer.requires_grad_(not self.frozen)

    def _width(self, x: Tensor) -> int:
        if not x.shape or not x.shape[-1].is_const:
            raise Mismatch(
                f"a linear layer needs a last dimension of known size, not {x}",
                code="DET0303",
                inputs=((0, "this wire"),),
            )
        return int(x.shape[-1])
