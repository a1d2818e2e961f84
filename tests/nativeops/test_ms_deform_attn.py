"""ms_deform_attn: kernel against the grid_sample reference, gradients, edges and graphs."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.autograd import gradcheck

from detc.nativeops import ops
from detc.nativeops.reference.ms_deform_attn import ms_deform_attn as reference
from tests.nativeops.checks import one_and_two_threads, relative_error, strided, trains_in_graphs
from tests.nativeops.op_checks import check_graph, check_op, require_native

OP = torch.ops.detc.ms_deform_attn.default
SHAPES = [(6, 7), (3, 4), (1, 2)]
FLAT = [n for pair in SHAPES for n in pair]
POSITIONS = sum(h * w for h, w in SHAPES)


def inputs(
    images: int = 2,
    queries: int = 5,
    heads: int = 2,
    channels: int = 8,
    points: int = 3,
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
) -> tuple[Tensor, Tensor, Tensor]:
    g = torch.Generator().manual_seed(seed)
    value = torch.randn(images, POSITIONS, heads, channels, generator=g, dtype=torch.float64)
    places = torch.rand(images, queries, heads, len(SHAPES), points, 2, generator=g, dtype=torch.float64)
    weights = torch.rand(images, queries, heads, len(SHAPES), points, generator=g, dtype=torch.float64)
    return value.to(dtype), (places * 1.5 - 0.25).to(dtype), weights.to(dtype)


def test_the_native_kernel_is_tested() -> None:
    require_native("ms_deform_attn", "ms_deform_attn_backward")


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    images=st.integers(0, 3),
    queries=st.integers(0, 9),
    heads=st.integers(1, 4),
    channels=st.sampled_from([1, 3, 8, 16, 32, 33, 64]),
    points=st.integers(1, 5),
)
def test_equals_the_reference(
    seed: int, images: int, queries: int, heads: int, channels: int, points: int
) -> None:
    value, places, weights = inputs(images, queries, heads, channels, points, seed=seed)
    got = ops.ms_deform_attn(value, SHAPES, places, weights)
    wanted = reference(value, FLAT, places, weights)
    assert got.shape == wanted.shape == (images, queries, heads * channels)
    torch.testing.assert_close(got, wanted, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("channels", [5, 32])
def test_gradients_equal_the_reference(channels: int) -> None:
    leaves = [t.requires_grad_() for t in inputs(channels=channels)]
    grad = torch.randn(2, 5, 2 * channels)
    got = torch.autograd.grad(ops.ms_deform_attn(leaves[0], SHAPES, *leaves[1:]), leaves, grad)
    wanted = torch.autograd.grad(reference(leaves[0], FLAT, *leaves[1:]), leaves, grad)
    assert max(relative_error(a, b) for a, b in zip(got, wanted, strict=True)) < 1e-4


def test_gradcheck() -> None:
    leaves = [t.requires_grad_() for t in inputs(1, 2, 2, 3, 2, dtype=torch.float64)]
    assert gradcheck(lambda v, p, w: ops.ms_deform_attn(v, SHAPES, p, w), leaves)


def test_opcheck() -> None:
    value, places, weights = inputs()
    check_op(OP, (value.requires_grad_(), FLAT, places.requires_grad_(), weights))
    grad = torch.randn(2, 5, 16)
    op = torch.ops.detc.ms_deform_attn_backward.default
    check_op(op, (grad, value.detach(), FLAT, places.detach(), weights))


def test_graphs() -> None:
    check_graph(lambda v, p, w: ops.ms_deform_attn(v, SHAPES, p, w), inputs(), "ms_deform_attn")
    trains_in_graphs(lambda v, p, w: ops.ms_deform_attn(v, SHAPES, p, w), inputs())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_sixteen_bits(dtype: torch.dtype) -> None:
    value, places, weights = inputs(dtype=dtype)
    got = ops.ms_deform_attn(value.requires_grad_(), SHAPES, places, weights)
    assert got.dtype == dtype
    wanted = reference(value.detach().float(), FLAT, places.float(), weights.float())
    assert relative_error(got.detach(), wanted) < (2e-3 if dtype == torch.float16 else 2e-2)
    got.float().sum().backward()
    assert value.grad is not None
    assert value.grad.dtype == dtype


def test_autocast_mixes_dtypes() -> None:
    value, places, weights = inputs()
    got = ops.ms_deform_attn(value.bfloat16(), SHAPES, places, weights)
    assert got.dtype == torch.bfloat16
    # the locations keep their precision: only the value was rounded
    wanted = reference(value.bfloat16().float(), FLAT, places, weights).bfloat16()
    torch.testing.assert_close(got, wanted)


def test_strange_locations_read_zero() -> None:
    value, places, weights = inputs()
    places[0, 0, 0, :, 0, 0] = torch.nan
    places[0, 1, 0, :, 1, 1] = torch.inf
    places[0, 2, 0, :, :, 0] = -torch.inf
    places[1, 0] = 1e30
    got = ops.ms_deform_attn(value, SHAPES, places.requires_grad_(), weights)
    assert got.isfinite().all()
    assert (got[1, 0] == 0).all()
    torch.testing.assert_close(got, reference(value, FLAT, places, weights), atol=1e-5, rtol=1e-5)
    (grad,) = torch.autograd.grad(got.sum(), places)
    assert grad.isfinite().all()
    assert (grad[1, 0] == 0).all()


def test_not_contiguous() -> None:
    plain = inputs()
    value, places, weights = (strided(t) for t in plain)
    assert torch.equal(
        ops.ms_deform_attn(value, SHAPES, places, weights),
        ops.ms_deform_attn(plain[0], SHAPES, *plain[1:]),
    )


def test_an_empty_level_adds_nothing() -> None:
    value, places, weights = inputs()
    more = [(0, 5), *SHAPES]
    places = torch.cat((places[:, :, :, :1], places), 3)
    weights = torch.cat((weights[:, :, :, :1], weights), 3)
    got = ops.ms_deform_attn(value, more, places, weights)
    torch.testing.assert_close(got, reference(value, FLAT, places[:, :, :, 1:], weights[:, :, :, 1:]))


def test_threads_do_not_change_the_result() -> None:
    leaves = [t.requires_grad_() for t in inputs(queries=60)]
    grad = torch.randn(2, 60, 16)
    one_and_two_threads(
        lambda: torch.autograd.grad(ops.ms_deform_attn(leaves[0], SHAPES, *leaves[1:]), leaves, grad)
    )


def test_wrong_shapes_are_the_users_error() -> None:
    value, places, weights = inputs()
    with pytest.raises(ValueError, match="cover 42 positions, value has 56"):
        ops.ms_deform_attn(value, [(6, 7)], places, weights)
    with pytest.raises(ValueError, match="H, W pairs"):
        ops.ms_deform_attn(value, [6, 7, 3], places, weights)
    with pytest.raises(ValueError, match="do not fit"):
        ops.ms_deform_attn(value, SHAPES, places[:, :3], weights)
