"""Winograd's 3x3 convolution: a float64 convolution to rounding, every fusion, edges, gradients and graphs."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.autograd import gradcheck
from torch.nn import functional as F

from detc.nativeops import ops
from detc.nativeops.reference import winograd as reference
from tests.nativeops.checks import one_and_two_threads, relative_error, strided, trains_in_graphs
from tests.nativeops.op_checks import check_graph, check_op, require_native

PLAIN = {"none": lambda y: y, "relu": F.relu, "silu": F.silu}


@pytest.fixture(autouse=True)
def native() -> None:
    require_native("winograd_conv2d", "winograd_pack")


def inputs(
    images: int = 2,
    channels: int = 5,
    filters: int = 6,
    size: tuple[int, int] = (7, 9),
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
) -> tuple[Tensor, Tensor, Tensor]:
    """x, weight and bias; sums are of about the size of x."""
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(images, channels, *size, generator=g, dtype=torch.float64)
    weight = torch.randn(filters, channels, 3, 3, generator=g, dtype=torch.float64) / (9 * channels) ** 0.5
    return x.to(dtype), weight.to(dtype), torch.randn(filters, generator=g, dtype=torch.float64).to(dtype)


def exact(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    other: Tensor | None = None,
    padding: tuple[int, int] = (1, 1),
    activation: str = "none",
) -> Tensor:
    """By float64."""
    y = F.conv2d(x.double(), weight.double(), None if bias is None else bias.double(), padding=padding)
    return PLAIN[activation](y if other is None else y + other.double())


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    images=st.integers(0, 3),
    channels=st.sampled_from([1, 3, 16, 37, 64, 160]),
    filters=st.sampled_from([1, 8, 31, 64, 100]),
    size=st.tuples(st.integers(1, 19), st.integers(1, 19)),
    padding=st.tuples(st.integers(0, 2), st.integers(0, 2)),
    activation=st.sampled_from(sorted(PLAIN)),
    with_bias=st.booleans(),
    with_other=st.booleans(),
    as_is=st.booleans(),
)
def test_equals_a_convolution_in_float64(
    seed: int,
    images: int,
    channels: int,
    filters: int,
    size: tuple[int, int],
    padding: tuple[int, int],
    activation: str,
    with_bias: bool,
    with_other: bool,
    as_is: bool,
) -> None:
    x, weight, bias = inputs(images, channels, filters, size, seed)
    bias_or_none = bias if with_bias else None
    if min(n + 2 * p for n, p in zip(size, padding, strict=True)) < 3:
        with pytest.raises(ValueError, match="no output"):
            ops.winograd_conv2d(x, weight, padding=padding)
        return
    shape = exact(x, weight, None, None, padding).shape
    other = torch.randn(shape, generator=torch.Generator().manual_seed(seed)) if with_other else None
    wanted = exact(x, weight, bias_or_none, other, padding, activation)
    if not as_is:
        x = x.contiguous(memory_format=torch.channels_last)
    got = ops.winograd_conv2d(x, weight, bias_or_none, other=other, padding=padding, activation=activation)
    assert got.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(got.double(), wanted, atol=1e-5, rtol=0)  # of 4, at most


@pytest.mark.parametrize("channels", [64, 256, 512])
def test_the_error_of_many_channels(channels: int) -> None:
    """Largest and typical, against the scale of the output. The points 1 and 2 would make both twice as large, and
    single sums over all channels of 512 three times."""
    x, weight, bias = inputs(1, channels, 96, (29, 30))
    x = F.relu(x)  # as behind an activation
    for filters in (weight, weight.abs()):
        got, wanted = ops.winograd_conv2d(x, filters, bias).double(), exact(x, filters, bias)
        assert relative_error(got, wanted) < 1.2e-6
        assert (got - wanted).square().mean().sqrt() < 4e-7 * wanted.square().mean().sqrt()


def test_maps_of_many_blocks() -> None:
    """More tiles than a block, more filters than a pass, batches across blocks."""
    for images, size in ((1, (70, 61)), (5, (14, 15))):
        x, weight, bias = inputs(images, 24, 200, size)
        assert relative_error(ops.winograd_conv2d(x, weight, bias), exact(x, weight, bias)) < 1e-5


def test_zeros_give_the_bias() -> None:
    _, weight, bias = inputs(channels=64, filters=40)
    got = ops.winograd_conv2d(torch.zeros(2, 64, 13, 6), weight, bias)
    assert torch.equal(got, bias[:, None, None].expand(2, 40, 13, 6))


def test_what_is_not_finite_stays_in_its_tiles() -> None:
    x, weight, bias = inputs(2, 17, 33, (20, 21))
    wanted = exact(x, weight, bias)
    x[0, 3, 9, 9] = torch.nan
    for activation in PLAIN:
        got = ops.winograd_conv2d(x, weight, bias, activation=activation)
        assert got[0, :, 8:11, 8:11].isnan().all()  # as of any convolution
        near = torch.zeros(20, 21, dtype=torch.bool)
        near[8:12, 8:12] = True  # outputs of the tile that reads it
        assert got[1].isfinite().all() and got[0][:, ~near].isfinite().all()
        expected = PLAIN[activation](wanted)
        torch.testing.assert_close(got[0][:, ~near].double(), expected[0][:, ~near], atol=2e-5, rtol=1e-5)


def test_wide_silu() -> None:
    """Where exp overflows and where it vanishes."""
    weight = torch.zeros(1, 1, 3, 3)
    weight[0, 0, 1, 1] = 1
    values = [-1e4, -100, -88, -50, -20, -1, -1e-3, 0, 1e-3, 1, 30, 90, 1e4]
    x = torch.tensor(values).reshape(-1, 1, 1, 1)
    torch.testing.assert_close(
        ops.winograd_conv2d(x, weight, activation="silu"), F.silu(x), atol=1e-6, rtol=2e-6
    )


def test_packed_filters() -> None:
    _, weight, _ = inputs(channels=21, filters=40)
    packed = ops.winograd_pack(weight)
    assert packed.shape == (2, 36, 32, 32)
    torch.testing.assert_close(packed, reference.winograd_pack(weight), atol=1e-7, rtol=1e-6)
    x, weight, bias = inputs()
    kept = ops.winograd_conv2d(x, weight, bias, packed=ops.winograd_pack(weight))
    assert torch.equal(kept, ops.winograd_conv2d(x, weight, bias))
    doubled = ops.winograd_conv2d(x, weight, None, packed=ops.winograd_pack(2 * weight))
    assert relative_error(doubled, 2 * exact(x, weight, None)) < 1e-5  # it is what is multiplied with


def test_gradients() -> None:
    x, weight, bias = inputs(1, 2, 3, (5, 4), dtype=torch.float64)
    other = torch.randn(1, 3, 5, 4, dtype=torch.float64)
    leaves = [t.requires_grad_() for t in (x, weight, bias, other)]
    for activation in PLAIN:
        assert gradcheck(
            lambda x, w, b, o, a=activation: ops.winograd_conv2d(x, w, b, other=o, activation=a),
            leaves,
            fast_mode=True,
        )
    assert gradcheck(lambda x, w: ops.winograd_conv2d(x, w, padding=(0, 1)), leaves[:2], fast_mode=True)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_sixteen_bits(dtype: torch.dtype) -> None:
    x, weight, bias = inputs(channels=64, dtype=dtype)
    got = ops.winograd_conv2d(x, weight, bias, activation="relu")
    assert got.dtype == dtype
    wanted = exact(x, weight, bias, activation="relu")
    assert relative_error(got, wanted) < (1e-3 if dtype == torch.float16 else 8e-3)


def test_not_contiguous_and_threads() -> None:
    x, weight, bias = inputs(2, 40, 150, (30, 31))
    other = torch.randn(2, 150, 30, 31)
    wanted = ops.winograd_conv2d(x, weight, bias, other=other, activation="silu")
    views = [strided(t) for t in (x, weight, bias, other)]
    got = ops.winograd_conv2d(views[0], views[1], views[2], other=views[3], activation="silu")
    assert torch.equal(got, wanted)
    one_and_two_threads(lambda: [ops.winograd_conv2d(x, weight, bias, other=other, activation="relu")])
    alone = ops.winograd_conv2d(x[1:], weight, bias, other=other[1:], activation="silu")
    assert torch.equal(alone, wanted[1:])  # nor does it matter which tiles share a block


def test_opcheck_and_graphs() -> None:
    x, weight, bias = inputs()
    packed, x_last = ops.winograd_pack(weight), x.permute(0, 2, 3, 1)
    op = torch.ops.detc.winograd_conv2d.default
    other = torch.randn(2, 7, 9, 6)
    check_op(
        op,
        (x_last, weight, packed, bias, other, [1, 1], 2),
        (x_last[:0], weight, packed, None, None, [0, 1], 0),
    )
    check_op(torch.ops.detc.winograd_pack.default, (weight,), (weight.double(),), (weight.half(),))
    check_graph(ops.winograd_conv2d, (x, weight, bias), "winograd_conv2d")
    trains_in_graphs(lambda a, w, b: ops.winograd_conv2d(a, w, b, activation="silu"), (x, weight, bias))


def test_wrong_shapes_are_the_users_error() -> None:
    x, weight, bias = inputs()
    with pytest.raises(ValueError, match=r"expected \[O, C, 3, 3\]"):
        ops.winograd_conv2d(x, weight[..., :2])
    with pytest.raises(ValueError, match="does not fit"):
        ops.winograd_conv2d(x[:, :2], weight)
    with pytest.raises(ValueError, match="other is"):
        ops.winograd_conv2d(x, weight, other=x)
    with pytest.raises(ValueError, match="activation"):
        ops.winograd_conv2d(x, weight, activation="gelu")
    with pytest.raises(ValueError, match="bias is"):
        ops.winograd_conv2d(x, weight, bias[:2])
    with pytest.raises(RuntimeError, match="packed is not"):
        ops.winograd_conv2d(x, weight, packed=ops.winograd_pack(weight)[:, 1:])
