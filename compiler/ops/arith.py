"""Arithmetic on wires. The language's `a + b`, `2 * a`, `-a` become these ops.

With one wire the other operand is the field `scalar`; `reverse` puts it on the left (`1 - a`).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar

from detc.compiler.dims import Dim
from detc.compiler.ops._match import joined
from detc.compiler.ops.base import Function, Op, Port
from detc.compiler.types import CLOCK, Image, Map, Mismatch, Pyramid, Tensor, Type

OPERAND = (Map, Tensor, Pyramid)


def _loosened(x: Type) -> Type:
    """A tensor's meaning (boxes, labels) does not survive arithmetic."""
    return replace(x, kind="tensor") if isinstance(x, Tensor) else x


class _Binary(Op):
    inputs = (Port("a", OPERAND), Port("b", OPERAND, optional=True))
    verb: ClassVar[str] = ""
    broadcast_channels: ClassVar[bool] = False
    function: ClassVar[str] = ""
    keeps_unit: ClassVar[bool] = False  # a time plus a time is one

    scalar: float | None = None
    reverse: bool = False

    def infer(self, a: Type, b: Type | None = None) -> Type:
        """The elementwise result's type."""
        if (b is None) == (self.scalar is None):
            raise Mismatch(f"`{type(self).name}` needs either a second wire or a `scalar`", param="scalar")
        if b is None:
            if isinstance(a, Tensor) and a.dtype != "float32" and not float(self.scalar or 0).is_integer():
                return replace(a, dtype="float32", kind="tensor")
            return a if self.keeps_unit and getattr(a, "kind", "") in CLOCK else _loosened(a)
        units = [CLOCK.get(getattr(x, "kind", ""), "") for x in (a, b)]
        if self.keeps_unit and units[0] != units[1]:
            sides = tuple((i, f"in `{u}`" if u else "a plain number") for i, u in enumerate(units))
            raise Mismatch("cannot combine times of different units", code="DET0701", inputs=sides)
        if self.keeps_unit and units[0]:
            return a
        return _loosened(joined(self.verb, a, b, broadcast_channels=self.broadcast_channels))

    def torch(self, a: Type, b: Type | None = None) -> Function:  # type: ignore[override]
        """The operator, level by level if there is a pyramid."""
        listed = isinstance(a, Pyramid) or isinstance(b, Pyramid)
        name = f"detc.compiler.functional.arith:{self.function}{'_levels' if listed else ''}"
        if b is not None:
            return Function(name, {})
        assert self.scalar is not None
        scalar: float | int = (
            int(self.scalar) if self.scalar.is_integer() and abs(self.scalar) < 2**53 else self.scalar
        )
        return Function(name, {"scalar": scalar, **({"reverse": True} if self.reverse else {})})


class Add(_Binary):
    """`a + b`."""

    module = "std.ops"
    verb = "add"
    function = "add"
    keeps_unit = True


class Sub(_Binary):
    """`a - b`."""

    module = "std.ops"
    verb = "subtract"
    function = "sub"
    keeps_unit = True


class Mul(_Binary):
    """`a * b`. A map of one channel multiplies every channel (a mask)."""

    module = "std.ops"
    verb = "multiply"
    broadcast_channels = True
    function = "mul"


class Div(_Binary):
    """`a / b`."""

    module = "std.ops"
    verb = "divide"
    broadcast_channels = True
    function = "div"


class Neg(Op):
    """`-a`."""

    module = "std.ops"
    inputs = (Port("a", OPERAND),)

    def infer(self, a: Type) -> Type:
        """The shape stays."""
        return _loosened(a)

    def torch(self, a: Type) -> Function:  # type: ignore[override]
        """The sign change."""
        return Function(f"detc.compiler.functional.arith:neg{'_levels' if isinstance(a, Pyramid) else ''}")


class _Reduce(Op):
    """Over a list of wires of one type, elementwise."""

    inputs = (Port("inputs", OPERAND, variadic=True),)
    verb: ClassVar[str] = ""
    function: ClassVar[str] = ""

    def infer(self, *inputs: Type) -> Type:
        """All inputs must have one shape."""
        if not inputs:
            raise Mismatch(f"`{type(self).name}` of no wires", code="DET0303")
        result = inputs[0]
        if isinstance(result, Image):
            raise Mismatch(f"cannot {self.verb} images", code="DET0303", inputs=((0, "this wire"),))
        for i, other in enumerate(inputs[1:], 1):
            try:
                result = joined(self.verb, result, other)
            except Mismatch as e:
                blamed = tuple((i if k else 0, text) for k, text in e.inputs)
                raise Mismatch(e.message, code=e.code, inputs=blamed, help=e.help) from e
        return _loosened(result)

    def torch(self, *inputs: Type) -> Function:
        """A chain of one binary function."""
        if any(isinstance(x, Pyramid) for x in inputs):
            return Function(f"detc.compiler.functional.arith:{self.function}_levels")
        return Function(f"detc.compiler.functional.arith:{self.function}")


class Mean(_Reduce):
    """The mean of several wires: `mean([a, b, c])`."""

    module = ""
    name = "mean"
    verb = "average"
    function = "mean_of"


class Sum(_Reduce):
    """The sum of several wires: `sum([a, b, c])`."""

    module = ""
    name = "sum"
    verb = "add"
    function = "sum_of"


class Minimum(_Reduce):
    """The least of several wires, elementwise: `min([a, b])`."""

    module = ""
    name = "minimum"
    verb = "compare"
    function = "min_of"


class Maximum(_Reduce):
    """The largest of several wires, elementwise: `max([a, b])`."""

    module = ""
    name = "maximum"
    verb = "compare"
    function = "max_of"


class Concat(Op):
    """Maps joined along their channels, or tensors along `dim`."""

    module = "std.ops"
    inputs = (Port("inputs", (Map, Tensor), variadic=True),)

    dim: int = -1

    def infer(self, *inputs: Any) -> Map | Tensor:
        """Maps of one size: channels add up. Tensors: dimension `dim` adds up, the others agree."""
        from detc.compiler.ops._match import same_place

        if not inputs:
            raise Mismatch("`Concat` of no wires", code="DET0303")
        first = inputs[0]
        if all(isinstance(x, Map) for x in inputs):
            same_place("concatenate", inputs)
            if self.dim not in (-1, 1):
                message = f"maps are joined along their channels, not along dimension {self.dim}"
                raise Mismatch(message, code="DET0303", param="dim", help="leave `dim` out")
            return replace(first, channels=sum(m.channels for m in inputs), origin=None)
        for i, x in enumerate(inputs):
            if not isinstance(x, Tensor) or not isinstance(first, Tensor) or len(x.shape) != len(first.shape):
                raise Mismatch(
                    f"cannot concatenate a {first} and a {x}",
                    code="DET0303",
                    inputs=((0, f"{first} comes from here"), (i, f"{x} comes from here")),
                )
        rank = len(first.shape)
        if not -rank <= self.dim < rank:
            raise Mismatch(f"there is no dimension {self.dim} in {first}", code="DET0303", param="dim")
        axis = self.dim % rank
        for i, x in enumerate(inputs[1:], 1):
            for k in range(rank):
                apart = first.shape[k] - x.shape[k]
                if k != axis and apart.is_const and int(apart):
                    raise Mismatch(
                        f"cannot concatenate {first} and {x}, which differ in dimension {k}",
                        inputs=((0, f"{first} comes from here"), (i, f"{x} comes from here")),
                    )
        total: Dim = sum((x.shape[axis] for x in inputs), Dim())
        return replace(first, shape=(*first.shape[:axis], total, *first.shape[axis + 1 :]))

    def torch(self, *inputs: Map | Tensor) -> Function:  # type: ignore[override]
        """`torch.cat`."""
        axis = 1 if isinstance(inputs[0], Map) else self.dim
        return Function("detc.compiler.functional.tensor:concat", {"dim": axis})
