"""What an op is: schema, inference rule and torch lowering in one class (language.md D.3).

    class Conv2d(Op):
        '''2-D convolution.'''
        module = "std.ops"
        weighted = True
        out: PositiveInt                      # fields = arguments in a spec, in positional order
        kernel: PositiveInt = 1
        inputs = (Port("x", Map),)
        channels_from = "out"                 # which argument decides the output's channels (for blame)

        def infer(self, x): ...               # types in, type out; raises Mismatch
        def torch(self, x): ...               # (input types) -> nn.Module | Function

Rules:
- `infer` and the class body never import torch; `torch()` imports inside.
- A *weighted* op (`weighted = True`: parameters or buffers) must return an `nn.Module`; it has to be declared
  with `node` in a spec. It may be applied several times, which shares its weights.
- A stateless op returns `Function("detc.compiler.functional.boxes:decode_deltas", kwargs)`: a module-level
  function, called as `fn(*inputs, **kwargs)`, with kwargs that print (numbers, strings, lists, tuples, None).
- Inputs arrive at run time as `compiler.types` documents. Several outputs = a `Struct` (dict at run time).
- A loss is an `Op` of `module = "std.losses"` whose result is a scalar `tensor()`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from detc.compiler.primitives import Primitive
from detc.compiler.types import Image, Map, Pyramid, Struct, Tensor, Type

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Port:
    """An input of an op. `types` are accepted wire types; `kinds` narrows Tensor/Struct kinds.

    Conversions made for you: an `Image` given where a `Map` is wanted passes its pixels; a single `Map`
    where a `Pyramid` is wanted becomes a pyramid of one level. `variadic`: this last port takes all the
    remaining inputs.
    """

    name: str
    types: type | tuple[type, ...] = (Tensor, Map, Pyramid, Image, Struct)
    kinds: tuple[str, ...] = ()
    optional: bool = False
    variadic: bool = False


@dataclass(frozen=True)
class Function:
    """A reference to a torch function, `package.module:function`, and its keyword arguments."""

    path: str
    kwargs: dict[str, Any] = field(default_factory=dict)


class Op(Primitive):
    """Base class of ops; see the module docstring."""

    weighted: ClassVar[bool] = False
    inputs: ClassVar[tuple[Port, ...]] = (Port("x", (Map,)),)
    channels_from: ClassVar[str | None] = None
    random: ClassVar[bool] = False  # two applications to the same inputs differ in training
    phase: ClassVar[str | None] = None  # "train" for ops that make sense only there (assigners, samplers)
    initial: ClassVar[bool] = False  # makes the first value of a `state`, for the batch of its only input

    def infer(self, *inputs: Any) -> Type:
        """Types in, type out.

        Raises:
            Mismatch: if the inputs do not fit.
        """
        raise NotImplementedError

    def torch(self, *inputs: Type) -> nn.Module | Function:
        """The torch implementation for inputs of these types."""
        raise NotImplementedError

    def parameter_shapes(self, *inputs: Type) -> dict[str, tuple[int, ...]] | None:
        """The shapes of the learnable parameters of a weighted op, by name; None if only torch knows."""
        return None

    def generated(self, weight_at: int, bias_at: int) -> Op | None:
        """The stateless op that does the same with weights from a wire [..., P]: see `compiler.elaboration.generated`.

        The share of the weight begins at `weight_at`, that of the bias at `bias_at`. None if there is no such op.
        """
        return None
