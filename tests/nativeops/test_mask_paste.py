"""mask_paste: kernel against the reference and against grid_sample, edges and graphs."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from detc.nativeops import ops
from detc.nativeops.reference.mask_paste import mask_paste as reference
from tests.nativeops.checks import one_and_two_threads, strided
from tests.nativeops.op_checks import check_graph, check_op, random_boxes, require_native

OP = torch.ops.detc.mask_paste.default


def by_grid_sample(masks: Tensor, boxes: Tensor, height: int, width: int) -> Tensor:
    """The values before the threshold, the way Detectron2 and MMDetection compute them."""
    ys, xs = torch.arange(height) + 0.5, torch.arange(width) + 0.5
    x1, y1, x2, y2 = boxes.unbind(1)
    grid_y = (ys - y1[:, None]) / (y2 - y1)[:, None] * 2 - 1
    grid_x = (xs - x1[:, None]) / (x2 - x1)[:, None] * 2 - 1
    n = len(masks)
    grid = torch.stack(
        (grid_x[:, None].expand(n, height, width), grid_y[:, :, None].expand(n, height, width)), -1
    )
    return functional.grid_sample(masks[:, None], grid, align_corners=False)[:, 0]


def smooth_masks(n: int, size: tuple[int, int], seed: int = 0) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    coarse = torch.randn(n, 1, 4, 4, generator=g) * 3
    return functional.interpolate(coarse, size=size, mode="bilinear")[:, 0].sigmoid()


def test_the_native_kernel_is_tested() -> None:
    require_native("mask_paste")


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    masks=st.integers(0, 5),
    size=st.tuples(st.integers(1, 30), st.integers(1, 30)),
    height=st.integers(0, 90),
    width=st.integers(0, 90),
    threshold=st.sampled_from([0.3, 0.5, 0.9]),
)
def test_equals_the_reference(
    seed: int, masks: int, size: tuple[int, int], height: int, width: int, threshold: float
) -> None:
    torch.manual_seed(seed)
    values = torch.rand(masks, *size)
    boxes = random_boxes(masks, low=-30.0, high=100.0)
    got = ops.mask_paste(values, boxes, height=height, width=width, threshold=threshold)
    wanted = reference(values, boxes, height, width, threshold)
    assert got.dtype == torch.bool
    assert got.shape == wanted.shape == (masks, height, width)
    if masks and height and width:
        soft = by_grid_sample(values, boxes, height, width)
        # rounding may decide where the value is the threshold
        assert not ((got != wanted) & ((soft - threshold).abs() > 1e-4)).any()
        # grid_sample fades out over half a cell beyond the box, where a low threshold may be reached: we do not
        ys, xs = torch.arange(height) + 0.5, torch.arange(width) + 0.5
        x1, y1, x2, y2 = (edge[:, None] for edge in boxes.unbind(1))
        inside = ((ys >= y1) & (ys < y2))[:, :, None] & ((xs >= x1) & (xs < x2))[:, None]
        sure = (soft - threshold).abs() > 1e-4
        assert torch.equal(((soft >= threshold) & inside)[sure], got[sure])


def test_a_full_mask_is_its_box() -> None:
    got = ops.mask_paste(
        torch.ones(1, 2, 2), torch.tensor([[3.0, 4.0, 9.0, 6.0]]), height=10, width=12, threshold=0.1
    )
    wanted = torch.zeros(1, 10, 12, dtype=torch.bool)
    wanted[0, 4:6, 3:9] = True
    assert torch.equal(got, wanted)


def test_logits_with_a_threshold_of_zero_stay_in_the_box() -> None:
    logits, boxes = torch.randn(4, 7, 7), torch.tensor([[5.0, 5.0, 20.0, 15.0]]).expand(4, 4)
    got = ops.mask_paste(logits, boxes, height=30, width=30, threshold=0.0)
    assert torch.equal(got, reference(logits, boxes, 30, 30, 0.0))
    got[:, 5:15, 5:20] = False
    assert not got.any()


@pytest.mark.parametrize("edge", [torch.nan, torch.inf, -torch.inf, 1e38])
def test_strange_boxes_paste_nothing_or_stay_in_bounds(edge: float) -> None:
    for column in range(4):
        boxes = torch.tensor([[2.0, 3.0, 20.0, 30.0], [1.0, 1.0, 9.0, 9.0]])
        boxes[0, column] = edge
        for threshold in (0.5, -1.0):
            got = ops.mask_paste(torch.rand(2, 5, 5), boxes, height=16, width=16, threshold=threshold)
            assert got[1].any() or threshold > 0
            if edge != 1e38:
                assert not got[0].any()


def test_boxes_without_extent_paste_nothing() -> None:
    boxes = torch.tensor(
        [[5.0, 5.0, 5.0, 9.0], [9.0, 5.0, 5.0, 9.0], [5.0, 9.0, 9.0, 5.0], [4.5, 4.5, 4.5, 4.5]]
    )
    assert not ops.mask_paste(torch.ones(4, 3, 3), boxes, height=12, width=12, threshold=-1.0).any()
    assert not ops.mask_paste(
        torch.ones(1, 0, 3), boxes[:1] + torch.tensor([0, 0, 4, 0]), height=12, width=12
    ).any()


def test_strange_mask_values() -> None:
    masks = torch.full((3, 4, 4), 0.8)
    masks[0, 1, 1], masks[1, 1, 1], masks[2, 2, 2] = torch.nan, torch.inf, -torch.inf
    boxes = torch.tensor([[0.0, 0.0, 16.0, 16.0]]).expand(3, 4)
    got = ops.mask_paste(masks, boxes, height=16, width=16)
    assert torch.equal(got, reference(masks, boxes, 16, 16))
    assert not got[0, 6, 6]
    assert got[1, 6, 6]
    assert not got[2, 9, 9]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_dtypes(dtype: torch.dtype) -> None:
    masks, boxes = smooth_masks(3, (14, 14)).to(dtype), random_boxes(3).to(dtype)
    got = ops.mask_paste(masks, boxes, height=80, width=90)
    assert torch.equal(got, reference(masks.double(), boxes.double(), 80, 90))


def test_not_contiguous_and_threads() -> None:
    masks, boxes = smooth_masks(5, (28, 28)), random_boxes(5)
    wanted = ops.mask_paste(masks, boxes, height=70, width=80)
    assert torch.equal(ops.mask_paste(strided(masks), strided(boxes), height=70, width=80), wanted)
    one_and_two_threads(lambda: [ops.mask_paste(masks, boxes, height=70, width=80)])


def test_opcheck_and_graphs() -> None:
    masks, boxes = smooth_masks(3, (14, 14)), random_boxes(3)
    check_op(OP, (masks, boxes, 20, 30, 0.5), (masks[:0], boxes[:0], 20, 30, 0.5))
    check_graph(lambda m, b: ops.mask_paste(m, b, height=40, width=50), (masks, boxes), "mask_paste")


def test_wrong_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="boxes must be"):
        ops.mask_paste(torch.zeros(2, 3, 3), torch.zeros(3, 4), height=4, width=4)
