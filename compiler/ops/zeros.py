"""The first value of a state that is a tensor."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, PositiveInt

from detc.compiler.ops.base import Function, Op, Port
from detc.compiler.types import Tensor, Type, tensor


class Zeros(Op):
    """Zeros [B, *shape], as what `state memory: tensor[64, 8] = Zeros()` begins with."""

    module = "std.ops"
    inputs = (Port("like", (Tensor,), optional=True),)
    initial = True

    shape: tuple[PositiveInt, ...] = Field(min_length=1)
    dtype: Literal["float32", "int64", "bool"] = "float32"

    def infer(self, like: Type | None = None) -> Tensor:
        """A tensor [B, *shape]."""
        return tensor("B", *self.shape, dtype=self.dtype)

    def torch(self, *like: Type) -> Function:
        """`torch.zeros` for the batch of `like`."""
        return Function(
            "detc.compiler.functional.tensor:zeros", {"shape": list(self.shape), "dtype": self.dtype}
        )
