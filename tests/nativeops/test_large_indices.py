"""Inputs with more elements than 32 bits count.

Their memory is only reserved: the kernels touch a few pages of it. Where a kernel reads or writes all of it, the test
takes gigabytes and runs where DETC_LARGE=1 asks for it, alone: `DETC_LARGE=1 pytest tests/nativeops/test_large_indices.py`.
"""

from __future__ import annotations

import math
import mmap
import os
from pathlib import Path

import pytest
import torch
from torch import Tensor

from detc.nativeops import ops
from tests.nativeops.op_checks import require_native

SIDE = 46_400  # SIDE * SIDE is above 2^31
NO_RESERVE = getattr(mmap, "MAP_NORESERVE", 0x4000)  # which Python names from 3.13 on


def reserved(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Zeros that take no memory until they are written: pages that are only read are one and the same."""
    try:
        pages = mmap.mmap(-1, math.prod(shape) * dtype.itemsize, flags=mmap.MAP_PRIVATE | NO_RESERVE)
    except (OSError, ValueError) as error:
        pytest.skip(f"this machine does not reserve {shape} of {dtype}: {error}")
    return torch.frombuffer(pages, dtype=dtype).reshape(shape)


def room_for(gibibytes: float) -> None:
    """Skip where nobody asked for tests of this size, or where it does not fit in the free memory."""
    if os.environ.get("DETC_LARGE") != "1":
        pytest.skip(f"takes {gibibytes} GiB: DETC_LARGE=1 runs it")
    lines = Path("/proc/meminfo").read_text() if Path("/proc/meminfo").exists() else ""
    free = next((int(x.split()[1]) for x in lines.splitlines() if x.startswith("MemAvailable")), 0) / 2**20
    if free < gibibytes + 2:
        pytest.skip(f"{free:.1f} GiB of memory are free: the results alone take {gibibytes}")


def test_point_sample() -> None:
    require_native("point_sample", "point_sample_backward")
    x = reserved(1, 1, SIDE, SIDE)
    x[0, 0, -2:, -2:] = torch.tensor([[1.0, 2.0], [3.0, 5.0]])
    last = torch.tensor([[[(SIDE - 0.5) / SIDE, (SIDE - 0.5) / SIDE]]], dtype=torch.float64)
    # in float32 the last pixels are a hundredth of a pixel apart, so the sample is near 5
    assert ops.point_sample(x, last.float()).item() == pytest.approx(5.0, abs=0.1)


def test_ms_deform_attn() -> None:
    require_native("ms_deform_attn")
    height, width, channels = 8192, 8200, 32
    value = reserved(1, height * width, 1, channels)
    assert value.numel() > 2**31
    value[0, -1] = torch.arange(32.0)
    value[0, -2] = value[0, -width - 1] = value[0, -width - 2] = 0
    corner = torch.tensor([(width - 0.5) / width, (height - 0.5) / height]).reshape(1, 1, 1, 1, 1, 2)
    out = ops.ms_deform_attn(value, [(height, width)], corner, torch.ones(1, 1, 1, 1, 1))
    torch.testing.assert_close(out[0, 0], torch.arange(32.0), rtol=0.01, atol=0.01)


def test_roi_align() -> None:
    require_native("roi_align", "multilevel_roi_align")
    feature = reserved(1, 1, SIDE, SIDE)
    feature[0, 0, -8:, -8:] = 3.0
    end = float(SIDE)
    corner = torch.tensor([[0.0, end - 6, end - 6, end - 1, end - 1]])
    assert (ops.roi_align(feature, corner, 2) == 3).all()
    pooled = ops.multilevel_roi_align([feature], corner[None, :, 1:], output_size=2, strides=[1.0])
    assert (pooled == 3).all()
    assert (ops.roi_pool(feature, corner, 2) == 3).all()


@pytest.mark.slow
def test_nms_scans_the_last_image() -> None:
    require_native("batched_nms")
    room_for(5.0)
    images, boxes, classes = 300, 90_000, 80
    scores = reserved(images, boxes, classes, dtype=torch.float16)
    assert scores.numel() > 2**31
    scores[-1, -1, -1] = 1
    corners = torch.zeros(1, 1, 4, dtype=torch.float16).expand(images, boxes, 4)
    found = ops.batched_nms(corners, scores, iou_threshold=0.5, score_threshold=0.5, keep=1)
    assert found.valid.nonzero().tolist() == [[images - 1, 0]]
    assert (found.index[-1, 0], found.labels[-1, 0]) == (boxes - 1, classes - 1)


@pytest.mark.slow
def test_mask_paste() -> None:
    require_native("mask_paste")
    room_for(4.5)
    boxes = torch.tensor([[SIDE - 40.0, SIDE - 30.0, float(SIDE), float(SIDE)]])
    out = ops.mask_paste(torch.ones(1, 4, 4), boxes, height=SIDE, width=SIDE, threshold=0.1)
    assert out.numel() > 2**31
    assert out[0, -30:, -40:].all()
    assert not out[0, -31].any()
    assert not out[0, :5].any()


def test_convolutions_and_deform_roi_pool() -> None:
    """One channel, which is not copied, and a stride from corner to corner."""
    require_native("deform_conv2d", "masked_conv2d", "deform_roi_pool")
    x, one = reserved(1, 1, SIDE, SIDE), torch.ones(1, 1, 1, 1)
    x[0, 0, -8:, -8:] = 3.0
    stride = SIDE - 1
    out = ops.deform_conv2d(x, torch.zeros(1, 2, 2, 2), one, stride=stride)
    assert out.flatten().tolist() == [0, 0, 0, 3]
    out = ops.masked_conv2d(x, torch.tensor([[[True, False], [False, True]]]), one, stride=stride)
    assert out.flatten().tolist() == [0, 0, 0, 3]
    end = float(SIDE)
    corner = torch.tensor([[0.0, end - 6, end - 6, end - 1, end - 1]])
    assert (ops.deform_roi_pool(x, corner, torch.zeros(1, 2, 2, 2), output_size=2, sampling=2) == 3).all()


@pytest.mark.slow
def test_linear_assignment_of_many_problems() -> None:
    require_native("linear_assignment")
    cost = reserved(2**19 + 1, 16, 256)
    assert cost.numel() > 2**31
    room_for(1.5)
    cost[-1] = 1
    cost[-1, :, -16:] = 1 - torch.eye(16).flip(0)
    found = ops.linear_assignment(cost)
    assert found.col_of_row[-1].tolist() == list(range(255, 239, -1))
    assert sorted(found.col_of_row[-2].tolist()) == list(range(16))


@pytest.mark.slow
def test_iou_and_assignment_of_many_boxes() -> None:
    require_native("box_iou", "max_iou_assign", "rotated_iou")
    room_for(8.0)
    n, truth = 2**29 + 1, torch.tensor([[[1.0, 1, 3, 3]]])
    boxes = reserved(1, n, 4, dtype=torch.float32)
    boxes[0, -1] = truth[0, 0]
    assert boxes.numel() > 2**31
    assert ops.box_iou(boxes, truth)[0, -2:, 0].tolist() == [0, 1]
    index, iou = ops.max_iou_assign(
        boxes[0], truth, torch.ones(1, 1, dtype=torch.bool), positive=0.5, negative=0.5
    )
    assert index[0, -2:].tolist() == [-1, 0]
    assert iou[0, -1] == 1
    del index, iou
    turned = reserved(2**29, 5)
    turned[-1] = torch.tensor([2.0, 2, 2, 2, 0])
    assert ops.rotated_iou(turned, turned[-1:])[-2:, 0].tolist() == [0, 1]


@pytest.mark.slow
def test_focal_loss() -> None:
    require_native("focal_loss", "focal_loss_backward")
    room_for(9.0)
    logits, labels = reserved(2**28 + 1, 8, dtype=torch.float16), reserved(2**28 + 1, dtype=torch.int64)
    assert logits.numel() > 2**31
    labels[-1], logits[-1, 5] = 5, 3.0
    weights = reserved(2**28 + 1, dtype=torch.float16)
    weights[-1] = 1
    total = ops.sigmoid_focal_loss(logits, labels, weights=weights, reduction="sum")
    alone = ops.sigmoid_focal_loss(logits[-1:], labels[-1:], reduction="sum")
    torch.testing.assert_close(total, alone)


@pytest.mark.slow
def test_maps_of_many_channels() -> None:
    """corner_pool and carafe: planes one after the other, the last one beyond 2^31 elements."""
    require_native("corner_pool", "carafe")
    room_for(9.0)
    channels = 2**23 + 1
    x = reserved(1, channels, 16, 16)
    assert x.numel() > 2**31
    x[0, -1, 15, 3] = 2.0
    pooled = ops.corner_pool(x, "top")
    assert (pooled[0, -1, :, 3] == 2).all()
    assert pooled[0, -1, :, 4:].sum() == 0
    del pooled
    kernels = torch.full((1, 1, 16, 16), 3.0)
    assert ops.carafe(x, kernels, kernel_size=1, scale=1)[0, -1, 15, 2:5].tolist() == [0, 6, 0]


@pytest.mark.slow
def test_runs_of_many_masks() -> None:
    require_native("rle_encode", "rle_decode")
    room_for(4.5)
    count = 2**15 + 1
    masks = reserved(count, 256, 256, dtype=torch.bool)
    assert masks.numel() > 2**31
    masks[-1, 3, 0] = True
    runs, lengths = ops.rle_encode(masks, capacity=4)
    assert runs[-1, :3].tolist() == [3, 1, 256 * 256 - 4]
    back = ops.rle_decode(runs, lengths, height=256, width=256)
    assert back[-1].nonzero().tolist() == [[3, 0]]
    assert not back[-2].any()
