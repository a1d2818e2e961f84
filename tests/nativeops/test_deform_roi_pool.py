"""deform_roi_pool: without offsets RoIAlign, with them the reference; gradients, edges and graphs."""

from __future__ import annotations

import pytest
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.autograd import gradcheck

from detc.nativeops import ops
from detc.nativeops.reference.deform_roi_pool import deform_roi_pool as reference
from tests.nativeops.checks import one_and_two_threads, relative_error, strided, trains_in_graphs
from tests.nativeops.op_checks import check_graph, check_op, random_boxes, require_native

BINS, SCALE = (2, 3), 0.25


def inputs(
    images: int = 2,
    channels: int = 4,
    size: tuple[int, int] = (12, 14),
    rois: int = 6,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(seed)
    x = torch.randn(images, channels, *size, dtype=torch.float64)
    index = torch.randint(0, max(images, 1), (rois, 1)).double()
    # boxes inside of the image: beyond it torchvision's adaptive sampling has no bound
    boxes = random_boxes(rois, high=20.0, largest=27.0, dtype=torch.float64)
    offset = torch.randn(rois, 2, *BINS, dtype=torch.float64)
    return x.to(dtype), torch.cat((index, boxes), 1).to(dtype), offset.to(dtype)


def run(x: Tensor, rois: Tensor, offset: Tensor | None, sampling: int = 0) -> Tensor:
    return ops.deform_roi_pool(x, rois, offset, output_size=BINS, spatial_scale=SCALE, sampling=sampling)


def run_reference(x: Tensor, rois: Tensor, offset: Tensor | None, sampling: int = 0) -> Tensor:
    return reference(x, rois, offset, BINS, SCALE, sampling)


def test_the_native_kernel_is_tested() -> None:
    require_native("deform_roi_pool", "deform_roi_pool_backward")


@settings(max_examples=50, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    images=st.integers(1, 3),
    channels=st.sampled_from([1, 5, 70]),
    rois=st.integers(0, 8),
    sampling=st.integers(0, 3),
    with_offset=st.booleans(),
)
def test_equals_the_reference(
    seed: int, images: int, channels: int, rois: int, sampling: int, with_offset: bool
) -> None:
    x, boxes, offset = inputs(images, channels, rois=rois, seed=seed)
    x.requires_grad_()
    offset.requires_grad_()
    given_offset = offset if with_offset else None
    got, wanted = run(x, boxes, given_offset, sampling), run_reference(x, boxes, given_offset, sampling)
    assert relative_error(got.detach(), wanted.detach()) < 1e-5
    leaves = [x, offset] if with_offset else [x]
    grad = torch.randn_like(got)
    ours = torch.autograd.grad(got, leaves, grad)
    if rois == 0:
        assert all((g == 0).all() for g in ours)
        return
    theirs = torch.autograd.grad(wanted, leaves, grad, materialize_grads=True, allow_unused=True)
    assert max(relative_error(a, b) for a, b in zip(ours, theirs, strict=True)) < 1e-4


@pytest.mark.parametrize("sampling", [0, 2])
def test_without_offsets_it_is_roi_align(sampling: int) -> None:
    x, boxes, _ = inputs(rois=30)
    wanted = torchvision.ops.roi_align(x, boxes, BINS, SCALE, sampling, aligned=True)
    assert relative_error(run(x, boxes, None, sampling), wanted) < 1e-5
    assert relative_error(run(x, boxes, torch.zeros(30, 2, *BINS), sampling), wanted) < 1e-5


def test_an_offset_moves_the_bins() -> None:
    x, boxes, offset = inputs(rois=1)
    offset.zero_()
    offset[:, 0], offset[:, 1] = 0.5, -0.25
    width, height = boxes[0, 3] - boxes[0, 1], boxes[0, 4] - boxes[0, 2]
    moved = boxes + torch.stack(
        [torch.zeros(()), *(s * 0.1 * n for s, n in zip((0.5, -0.25) * 2, (width, height) * 2, strict=True))]
    )
    torch.testing.assert_close(run(x, boxes, offset, 2), run(x, moved, None, 2), atol=1e-4, rtol=1e-4)


def test_gradcheck() -> None:
    x, boxes, offset = inputs(1, 2, (5, 6), 2, dtype=torch.float64)
    leaves = [x.requires_grad_(), offset.requires_grad_()]
    for sampling in (0, 2):
        assert gradcheck(lambda a, o, s=sampling: run(a, boxes, o, s), leaves)


def test_strange_rois_give_zeros_and_no_gradient() -> None:
    x, boxes, offset = inputs(rois=8)
    boxes[0, 0], boxes[1, 0], boxes[2, 1], boxes[3, 4] = -1, 2, torch.nan, torch.inf
    boxes[4, 3:] = boxes[4, 1:3]  # no area
    boxes[5, 0] = torch.nan
    offset[6] = torch.nan
    x.requires_grad_()
    offset.requires_grad_()
    got = run(x, boxes, offset)
    assert (got[:7] == 0).all()
    assert (got[7] != 0).any()
    for grad in torch.autograd.grad(got.sum(), (x, offset)):
        assert grad.isfinite().all()


def test_a_huge_roi_takes_bounded_work() -> None:
    x, boxes, _ = inputs(rois=1)
    boxes[0, 1:] = torch.tensor([-1e9, -1e9, 1e9, 1e9])
    assert run(x, boxes, None).isfinite().all()
    assert torch.equal(run(x, boxes, None), run_reference(x, boxes, None))


def test_inverted_rois_equal_torchvision() -> None:
    x, boxes, _ = inputs()
    boxes = boxes[:, [0, 3, 4, 1, 2]]
    for sampling in (0, 2):
        wanted = torchvision.ops.roi_align(x, boxes, BINS, SCALE, sampling, aligned=True)
        torch.testing.assert_close(run(x, boxes, None, sampling), wanted, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_sixteen_bits(dtype: torch.dtype) -> None:
    x, boxes, offset = inputs(dtype=dtype)
    got = run(x, boxes, offset, 2)
    assert got.dtype == dtype
    wanted = run_reference(x.float(), boxes.float(), offset.float(), 2)
    assert relative_error(got, wanted) < (2e-3 if dtype == torch.float16 else 2e-2)


def test_not_contiguous_and_threads() -> None:
    x, boxes, offset = inputs(channels=130)
    wanted = run(x, boxes, offset)
    assert torch.equal(run(strided(x), strided(boxes), strided(offset)), wanted)
    leaves = [x.requires_grad_(), offset.requires_grad_()]
    one_and_two_threads(lambda: torch.autograd.grad(run(x, boxes, offset).square().sum(), leaves))


def test_opcheck_and_graphs() -> None:
    x, boxes, offset = inputs()
    options = (list(BINS), SCALE, 0, 0.1)
    op, grad_op = torch.ops.detc.deform_roi_pool.default, torch.ops.detc.deform_roi_pool_backward.default
    check_op(op, (x, boxes, offset, *options), (x, boxes, None, *options), (x, boxes[:0], None, *options))
    grad = torch.randn(6, 4, *BINS)
    check_op(grad_op, (grad, x, boxes, offset, *options), (grad, x, boxes, None, *options))
    check_graph(run, (x, boxes, offset), "deform_roi_pool")
    trains_in_graphs(lambda a, o: run(a, boxes, o), (x, offset))


def test_wrong_shapes_are_the_users_error() -> None:
    x, boxes, offset = inputs()
    with pytest.raises(ValueError, match=r"rois must be \[N, 5\]"):
        run(x, boxes[:, 1:], None)
    with pytest.raises(ValueError, match="offset is"):
        run(x, boxes, offset[:2])
    with pytest.raises(ValueError, match="must be positive"):
        ops.deform_roi_pool(x, boxes, output_size=0)
