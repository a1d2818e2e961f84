"""The shapes of parameters that ops state without torch are those of their modules."""

from __future__ import annotations

from fractions import Fraction

import pytest

from detc.compiler.dims import dim
from detc.compiler.ops.base import Op
from detc.compiler.ops.conv import Conv2d, ConvTranspose2d, ConvWS, DeformConv2d, Linear
from detc.compiler.ops.norm import BatchNorm, GroupNorm, LayerNorm, Parameter, Scale
from detc.compiler.types import Map, Type, tensor

MAP = Map(12, Fraction(8), dim("h"), dim("w"))
ROWS = tensor("B", 5, 12)


@pytest.mark.parametrize(
    ("op", "inputs"),
    [
        (Conv2d(out=8, kernel=3), (MAP,)),
        (Conv2d(out=8, groups=4, bias=False), (MAP,)),
        (ConvWS(out=6, kernel=3), (MAP,)),
        (DeformConv2d(out=8), (MAP,)),
        (DeformConv2d(out=8, modulated=False, offset_groups=2, bias=False), (MAP,)),
        (ConvTranspose2d(out=6, kernel=2, groups=3), (MAP,)),
        (Linear(out=7), (ROWS,)),
        (Linear(out=7, bias=False), (ROWS,)),
        (BatchNorm(), (MAP,)),
        (GroupNorm(groups=4), (MAP,)),
        (LayerNorm(), (MAP,)),
        (LayerNorm(), (ROWS,)),
        (Scale(), (MAP,)),
        (Parameter(shape=[3, 4]), ()),
    ],
    ids=lambda x: type(x).__name__ if isinstance(x, Op) else "",
)
def test_stated_shapes_are_those_of_the_module(op: Op, inputs: tuple[Type, ...]) -> None:
    op.infer(*inputs)
    module = op.torch(*inputs)
    assert op.parameter_shapes(*inputs) == {n: tuple(p.shape) for n, p in module.named_parameters()}  # type: ignore[union-attr]
