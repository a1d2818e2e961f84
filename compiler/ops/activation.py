"""Activations and other elementwise functions. All are in the prelude: `x -> relu()` or `relu(x)`."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar

from pydantic import Field

from detc.compiler.ops.base import Function, Op, Port
from detc.compiler.types import Map, Mismatch, Pyramid, Tensor


class _Elementwise(Op):
    """One torch function on a map, a tensor, or each level of a pyramid."""

    inputs = (Port("x", (Map, Tensor, Pyramid)),)
    function: ClassVar[str] = ""

    def _kwargs(self) -> dict[str, Any]:
        return {}

    def infer(self, x: Map | Tensor | Pyramid) -> Map | Tensor | Pyramid:
        """The shape stays."""
        return replace(x, kind="tensor") if isinstance(x, Tensor) else x

    def torch(self, x: Map | Tensor | Pyramid) -> Function:  # type: ignore[override]
        """The torch function of this name."""
        if isinstance(x, Pyramid):
            name = self.function.rpartition(":")[2]
            return Function(
                "detc.compiler.functional.activation:levels", {"function": name, **self._kwargs()}
            )
        return Function(self.function, self._kwargs())


class ReLU(_Elementwise):
    """max(x, 0)."""

    module = ""
    name = "relu"
    function = "torch.nn.functional:relu"


class SiLU(_Elementwise):
    """x sigmoid(x), also called swish (Elfwing et al., 2018)."""

    module = ""
    name = "silu"
    function = "torch.nn.functional:silu"


class Sigmoid(_Elementwise):
    """1 / (1 + exp(-x))."""

    module = ""
    name = "sigmoid"
    function = "torch:sigmoid"


class HardSigmoid(_Elementwise):
    """min(max(x + 3, 0), 6) / 6 (Howard et al., 2019)."""

    module = ""
    name = "hardsigmoid"
    function = "torch.nn.functional:hardsigmoid"


class HardSwish(_Elementwise):
    """x hardsigmoid(x) (Howard et al., 2019)."""

    module = ""
    name = "hardswish"
    function = "torch.nn.functional:hardswish"


class LeakyReLU(_Elementwise):
    """x where positive, else `slope` x."""

    module = ""
    name = "leaky_relu"
    function = "torch.nn.functional:leaky_relu"
    slope: float = 0.01

    def _kwargs(self) -> dict[str, Any]:
        return {"negative_slope": self.slope}


class GELU(_Elementwise):
    """x times the normal distribution's cumulative probability at x (Hendrycks & Gimpel, 2016)."""

    module = ""
    name = "gelu"
    function = "torch.nn.functional:gelu"


class Tanh(_Elementwise):
    """The hyperbolic tangent."""

    module = ""
    name = "tanh"
    function = "torch:tanh"


class Exp(_Elementwise):
    """e to the power x."""

    module = ""
    name = "exp"
    function = "torch:exp"


class Sqrt(_Elementwise):
    """The square root."""

    module = ""
    name = "sqrt"
    function = "torch:sqrt"


class Power(_Elementwise):
    """x to the power `exponent`; for exponents that are not whole numbers, x must not be negative."""

    module = ""
    name = "pow"
    function = "torch:pow"
    exponent: float

    def _kwargs(self) -> dict[str, Any]:
        return {"exponent": self.exponent}


class Log(_Elementwise):
    """The natural logarithm."""

    module = ""
    name = "log"
    function = "torch:log"


class Abs(_Elementwise):
    """The absolute value."""

    module = ""
    name = "abs"
    function = "torch:abs"


class Clamp(_Elementwise):
    """x limited to [`low`, `high`]; either may be left out."""

    module = ""
    name = "clamp"
    function = "torch:clamp"
    low: float | None = None
    high: float | None = None

    def infer(self, x: Map | Tensor | Pyramid) -> Map | Tensor | Pyramid:
        """The shape stays."""
        if self.low is None and self.high is None:
            raise Mismatch("`clamp` needs `low` or `high`", param="low")
        return super().infer(x)

    def _kwargs(self) -> dict[str, Any]:
        limits = {"min": self.low, "max": self.high}
        return {k: v for k, v in limits.items() if v is not None}


class Softmax(_Elementwise):
    """exp(x) over its sum along `dim`. For a map or pyramid the channels are `dim = 1`."""

    module = ""
    name = "softmax"
    function = "torch.nn.functional:softmax"
    dim: int = Field(default=-1)

    def infer(self, x: Map | Tensor | Pyramid) -> Map | Tensor | Pyramid:
        """The shape stays."""
        rank = len(x.shape) if isinstance(x, Tensor) else 4
        if not -rank <= self.dim < rank:
            raise Mismatch(f"there is no dimension {self.dim} in {x}", code="DET0303", param="dim")
        return super().infer(x)

    def _kwargs(self) -> dict[str, Any]:
        return {"dim": self.dim}
