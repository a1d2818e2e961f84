"""Each elementary op: what `infer` says is what torch does, and misfits name both numbers."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from detc.compiler.dims import dim
from detc.compiler.ops.activation import Abs, Clamp, LeakyReLU, Sigmoid, SiLU, Softmax
from detc.compiler.ops.arith import Add, Concat, Div, Maximum, Mean, Minimum, Mul, Neg, Sub, Sum
from detc.compiler.ops.conv import Conv, Conv2d, ConvTranspose2d, Linear
from detc.compiler.ops.norm import BatchNorm, GroupNorm, LayerNorm, Parameter, Scale
from detc.compiler.ops.pool import AvgPool, GlobalAvgPool, MaxPool
from detc.compiler.ops.resize import Upsample, UpsampleLike
from detc.compiler.ops.tensor import Detach, Flatten, FlattenPoints
from detc.compiler.types import Map, Mismatch, Pyramid, Tensor, tensor

from .running import example, run

H, W = 24, 40


def feature_map(channels: int = 8, stride: int = 1, h: int = H, w: int = W) -> Map:
    return Map(channels, Fraction(stride), dim(h), dim(w))


OPS: list[tuple[Any, tuple[Any, ...]]] = [
    (Conv2d(out=5, kernel=3, stride=2), (feature_map(),)),
    (Conv2d(out=8, kernel=5, groups=8, bias=False, dilation=2), (feature_map(),)),
    (Conv2d(out=6, kernel=4, stride=3, padding=0), (feature_map(),)),
    (Conv(out=5, kernel=1, init="kaiming", frozen=True), (feature_map(),)),
    (ConvTranspose2d(out=4), (feature_map(),)),
    (ConvTranspose2d(out=4, kernel=5, stride=3, padding=1), (feature_map(),)),
    (Linear(out=7), (tensor(2, 9, 6),)),
    (BatchNorm(frozen=True), (feature_map(),)),
    (GroupNorm(groups=4), (feature_map(),)),
    (LayerNorm(), (feature_map(),)),
    (LayerNorm(), (tensor(2, 6),)),
    (Scale(init=2.0), (feature_map(),)),
    (Parameter(shape=[3, 4]), ()),
    (MaxPool(kernel=3, stride=2, padding=1), (feature_map(),)),
    (MaxPool(kernel=1, stride=2), (feature_map(h=23),)),
    (AvgPool(kernel=2), (feature_map(h=23),)),
    (AvgPool(kernel=2, ceil=True), (feature_map(h=23),)),
    (GlobalAvgPool(), (feature_map(),)),
    (Upsample(factor=3), (feature_map(),)),
    (Upsample(mode="bilinear"), (feature_map(),)),
    (UpsampleLike(), (feature_map(4, 2, H // 2, W // 2), feature_map(6))),
    (Add(), (feature_map(), feature_map())),
    (Add(), (feature_map(), feature_map(8, 4, 1, 1))),
    (Mul(), (feature_map(), feature_map(1))),
    (Mul(), (tensor(2, 5, 4), tensor(5, 1))),
    (Sub(scalar=1.0, reverse=True), (feature_map(),)),
    (Div(scalar=2.5), (Pyramid((feature_map(), feature_map(8, 2, 12, 20))),)),
    (Neg(), (Pyramid((feature_map(), feature_map(8, 2, 12, 20))),)),
    (Mean(), (feature_map(), feature_map(), feature_map())),
    (Sum(), (tensor(2, 3), tensor(2, 3))),
    (Minimum(), (feature_map(), feature_map())),
    (Maximum(), (Pyramid((feature_map(),)), Pyramid((feature_map(),)))),
    (Abs(), (feature_map(),)),
    (Concat(), (feature_map(3), feature_map(5))),
    (Concat(dim=1), (tensor(2, 3, 4), tensor(2, 5, 4))),
    (SiLU(), (feature_map(),)),
    (Sigmoid(), (Pyramid((feature_map(), feature_map(8, 2, 12, 20))),)),
    (LeakyReLU(slope=0.1), (feature_map(),)),
    (Clamp(low=0.0), (tensor(2, 3),)),
    (Softmax(), (tensor(2, 3),)),
    (Flatten(), (feature_map(),)),
    (Flatten(start=2), (tensor(2, 3, 4, 5),)),
    (FlattenPoints(width=4), (Pyramid((feature_map(), feature_map(8, 2, 12, 20))),)),
    (Detach(), (feature_map(),)),
]


@pytest.mark.parametrize(
    ("op", "inputs"), OPS, ids=lambda x: type(x).__name__ if not isinstance(x, tuple) else ""
)
def test_infer_says_what_torch_does(op: Any, inputs: tuple[Any, ...]) -> None:
    said = op.infer(*inputs)
    done = run(op, *inputs)
    assert_fits(said, done)


def assert_fits(said: Any, done: Any) -> None:
    if isinstance(said, Pyramid):
        assert len(said.maps) == len(done)
        for m, x in zip(said.maps, done, strict=True):
            assert_fits(m, x)
    elif isinstance(said, Map):
        assert tuple(done.shape[1:]) == (said.channels, int(said.height), int(said.width))
    else:
        assert isinstance(said, Tensor)
        assert tuple(done.shape) == tuple(d.evaluate({"B": 2}) for d in said.shape)
        assert str(done.dtype) == f"torch.{said.dtype}"


@settings(max_examples=60, deadline=None)
@given(
    size=st.integers(8, 33),
    kernel=st.integers(1, 7),
    stride=st.integers(1, 4),
    padding=st.integers(-1, 3),
    dilation=st.integers(1, 3),
)
def test_conv_sizes(size: int, kernel: int, stride: int, padding: int, dilation: int) -> None:
    op = Conv2d(out=2, kernel=kernel, stride=stride, padding=padding, dilation=dilation)
    x = feature_map(3, h=size, w=40)
    if size + 2 * op.pad() < dilation * (kernel - 1) + 1:
        return
    assert_fits(op.infer(x), run(op, x))


def test_values_of_arithmetic() -> None:
    x = torch.tensor([[1.0, -2.0]])
    t = tensor(1, 2)
    assert run(Sub(scalar=3.0, reverse=True), t, given=[x]).tolist() == [[2.0, 5.0]]
    assert run(Div(scalar=2.0, reverse=True), t, given=[x]).tolist() == [[2.0, -1.0]]
    assert run(Mean(), t, t, given=[x, 3 * x]).tolist() == [[2.0, -4.0]]
    assert run(Minimum(), t, t, given=[x, -x]).tolist() == [[-1.0, -2.0]]
    assert run(Maximum(), t, t, given=[x, -x]).tolist() == [[1.0, 2.0]]
    assert run(Neg(), t, given=[x]).tolist() == [[-1.0, 2.0]]


def test_frozen_batch_norm_stays_in_evaluation_mode() -> None:
    layer = BatchNorm(frozen=True).torch(feature_map())
    layer.train()
    before = layer.running_mean.clone()
    layer(torch.randn(2, 8, 4, 4) + 3)
    assert not layer.training
    assert torch.equal(layer.running_mean, before)
    assert not any(p.requires_grad for p in layer.parameters())
    assert sorted(layer.state_dict()) == [
        "bias",
        "num_batches_tracked",
        "running_mean",
        "running_var",
        "weight",
    ]


def test_prior_sets_the_bias() -> None:
    layer = Conv2d(out=3, prior=0.01, init="normal").torch(feature_map())
    assert torch.allclose(layer.bias.sigmoid(), torch.full((3,), 0.01))
    assert 0.005 < float(layer.weight.detach().std()) < 0.02


def test_levels_flatten_by_row_column_anchor() -> None:
    level = torch.arange(2 * 3 * 2 * 2).view(1, 6, 2, 2).float()  # 2 anchors of 3 values on a 2 x 2 grid
    flat = run(FlattenPoints(width=3), Pyramid((feature_map(6, h=2, w=2),)), given=[[level]])
    assert flat.shape == (1, 8, 3)
    assert flat[0, 1].tolist() == level[0, 3:, 0, 0].tolist()
    assert flat[0, 2].tolist() == level[0, :3, 0, 1].tolist()


MISFITS: list[tuple[Any, tuple[Any, ...], str, tuple[int, ...]]] = [
    (Add(), (feature_map(8), feature_map(5)), r"add .* 8 and 5 channels", (0, 1)),
    (Add(), (feature_map(8), feature_map(8, 2)), r"stride 1 and stride 2", (0, 1)),
    (Add(), (feature_map(8), feature_map(8, h=23)), r"height 24 and 23", (0, 1)),
    (Mul(), (feature_map(8), tensor("B", 5)), r"multiply a map\[8 ch, stride 1\] and a tensor", (0, 1)),
    (Concat(), (feature_map(8), feature_map(8), feature_map(3, 2)), r"stride 1 and stride 2", (0, 2)),
    (Mean(), (feature_map(8), feature_map(8), feature_map(3)), r"8 and 3 channels", (0, 2)),
    (Conv2d(out=8, **{"in": 4}), (feature_map(8),), r"in = 4\) is fed 8", (0,)),
    (Conv2d(out=8, groups=3), (feature_map(8),), r"3 groups do not divide 8 input", (0,)),
    (GroupNorm(groups=3), (feature_map(8),), r"3 groups do not divide 8", (0,)),
    (Linear(out=2), (tensor("B", "N"),), r"known size", (0,)),
    (
        FlattenPoints(width=3),
        (Pyramid((feature_map(8),)),),
        r"8 channels are not a multiple of width 3",
        (0,),
    ),
    (MaxPool(kernel=2, padding=2), (feature_map(),), r"padding 2 is more than half of a window of 2", ()),
    (Add(), (feature_map(),), r"second wire or a `scalar`", ()),
    (Add(), (Pyramid((feature_map(),)), Pyramid((feature_map(), feature_map()))), r"1 and 2 levels", (0, 1)),
]


@pytest.mark.parametrize(("op", "inputs", "message", "blamed"), MISFITS)
def test_misfits_name_both_sides(
    op: Any, inputs: tuple[Any, ...], message: str, blamed: tuple[int, ...]
) -> None:
    with pytest.raises(Mismatch, match=message) as caught:
        op.infer(*inputs)
    assert tuple(i for i, _ in caught.value.inputs) == blamed


def test_examples_are_not_all_zero() -> None:
    assert float(example(feature_map()).abs().sum()) > 0
