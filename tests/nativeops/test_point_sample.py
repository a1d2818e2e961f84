"""point_sample: kernel against grid_sample, gradients, edges and graphs."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.autograd import gradcheck
from torch.nn import functional

from detc.nativeops import ops
from detc.nativeops.reference.point_sample import point_sample as reference
from tests.nativeops.checks import one_and_two_threads, relative_error, strided, trains_in_graphs
from tests.nativeops.op_checks import check_graph, check_op, require_native


def inputs(
    images: int = 2,
    channels: int = 3,
    size: tuple[int, int] = (5, 6),
    points: int = 9,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(images, channels, *size, generator=g, dtype=torch.float64)
    places = torch.rand(images, points, 2, generator=g, dtype=torch.float64) * 1.4 - 0.2
    return x.to(dtype), places.to(dtype)


def by_grid_sample(x: Tensor, points: Tensor, align_corners: bool) -> Tensor:
    return functional.grid_sample(x, (2 * points - 1)[:, :, None], align_corners=align_corners)[..., 0]


def test_the_native_kernel_is_tested() -> None:
    require_native("point_sample", "point_sample_backward")


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    images=st.integers(0, 3),
    channels=st.sampled_from([0, 1, 17, 40]),
    size=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    points=st.integers(0, 20),
    align_corners=st.booleans(),
)
def test_equals_grid_sample(
    seed: int, images: int, channels: int, size: tuple[int, int], points: int, align_corners: bool
) -> None:
    x, places = inputs(images, channels, size, points, seed)
    got = ops.point_sample(x, places, align_corners=align_corners)
    torch.testing.assert_close(got, reference(x, places, align_corners), atol=1e-5, rtol=1e-5)
    if images and channels and points:
        torch.testing.assert_close(got, by_grid_sample(x, places, align_corners), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("align_corners", [False, True])
def test_gradients(align_corners: bool) -> None:
    x, places = (t.requires_grad_() for t in inputs(channels=20))
    got = ops.point_sample(x, places, align_corners=align_corners)
    grad = torch.randn_like(got)
    ours = torch.autograd.grad(got, (x, places), grad)
    theirs = torch.autograd.grad(by_grid_sample(x, places, align_corners), (x, places), grad)
    assert max(relative_error(a, b) for a, b in zip(ours, theirs, strict=True)) < 1e-4
    leaves = [t.requires_grad_() for t in inputs(1, 2, (3, 4), 3, dtype=torch.float64)]
    assert gradcheck(lambda a, p: ops.point_sample(a, p, align_corners=align_corners), leaves)


def test_strange_points_read_zero() -> None:
    x, places = inputs()
    places[0, 0, 0], places[0, 1, 1], places[0, 2, 0], places[1, 3] = torch.nan, torch.inf, -torch.inf, 1e30
    got = ops.point_sample(x, places.requires_grad_())
    for image, point in ((0, 0), (0, 1), (0, 2), (1, 3)):
        assert (got[image, :, point] == 0).all()
    (grad,) = torch.autograd.grad(got.sum(), places)
    assert grad.isfinite().all()


def test_a_map_without_pixels_reads_zero() -> None:
    got = ops.point_sample(torch.ones(1, 2, 0, 4), torch.rand(1, 5, 2))
    assert got.shape == (1, 2, 5)
    assert (got == 0).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_sixteen_bits(dtype: torch.dtype) -> None:
    x, places = inputs(dtype=dtype)
    got = ops.point_sample(x, places)
    assert got.dtype == dtype
    assert relative_error(got, reference(x.float(), places.float())) < (
        2e-3 if dtype == torch.float16 else 2e-2
    )
    assert ops.point_sample(x, places.float()).dtype == dtype


def test_not_contiguous_and_threads() -> None:
    x, places = inputs(channels=40)
    wanted = ops.point_sample(x, places)
    assert torch.equal(ops.point_sample(strided(x), strided(places)), wanted)
    assert torch.equal(ops.point_sample(x.contiguous(memory_format=torch.channels_last), places), wanted)
    one_and_two_threads(lambda: [ops.point_sample(x, places)])


def test_opcheck_and_graphs() -> None:
    x, places = inputs()
    check_op(torch.ops.detc.point_sample.default, (x, places, False), (x[:0], places[:0], True))
    grad = torch.randn(2, 3, 9)
    check_op(torch.ops.detc.point_sample_backward.default, (grad, x, places, False))
    check_graph(lambda a, p: ops.point_sample(a, p), (x, places), "point_sample")
    trains_in_graphs(ops.point_sample, (x, places))


def test_wrong_shapes_are_the_users_error() -> None:
    x, places = inputs()
    with pytest.raises(ValueError, match="points must be"):
        ops.point_sample(x, places[0])
    with pytest.raises(ValueError, match="points must be"):
        ops.point_sample(x, places[:1])
