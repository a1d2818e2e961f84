"""Inputs with more elements than 32 bits count. Their memory is only reserved: the kernels touch a few pages of it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from detc.nativeops import ops
from tests.nativeops.op_checks import require_native

SIDE = 46_400  # SIDE * SIDE is above 2^31


def reserved(*shape: int) -> Tensor:
    try:
        return torch.empty(shape)
    except RuntimeError as error:
        pytest.skip(f"this machine does not reserve {shape} floats: {error}")


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
    images, boxes, classes = 300, 90_000, 80
    try:
        scores = torch.zeros(images, boxes, classes, dtype=torch.float16)  # zero pages, shared until written
    except RuntimeError as error:
        pytest.skip(f"this machine does not reserve the scores: {error}")
    assert scores.numel() > 2**31
    scores[-1, -1, -1] = 1
    corners = torch.zeros(1, 1, 4, dtype=torch.float16).expand(images, boxes, 4)
    found = ops.batched_nms(corners, scores, iou_threshold=0.5, score_threshold=0.5, keep=1)
    assert found.valid.nonzero().tolist() == [[images - 1, 0]]
    assert (found.index[-1, 0], found.labels[-1, 0]) == (boxes - 1, classes - 1)


@pytest.mark.slow
def test_mask_paste() -> None:
    require_native("mask_paste")
    boxes = torch.tensor([[SIDE - 40.0, SIDE - 30.0, float(SIDE), float(SIDE)]])
    out = ops.mask_paste(torch.ones(1, 4, 4), boxes, height=SIDE, width=SIDE, threshold=0.1)
    assert out.numel() > 2**31
    assert out[0, -30:, -40:].all()
    assert not out[0, -31].any()
    assert not out[0, :5].any()
