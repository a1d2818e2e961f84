"""Rotated boxes: against the reference (another algorithm), against straight boxes, at the edges."""

from __future__ import annotations

import math

import pytest
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from detc.nativeops import ops
from detc.nativeops.reference import nms as nms_reference
from detc.nativeops.reference import rotated_box as reference
from tests.nativeops.op_checks import assert_same, check_graph, check_op, require_native


@pytest.fixture(autouse=True)
def seeded() -> None:
    require_native("rotated_iou", "nms", "batched_nms")
    torch.manual_seed(0)


def random_rotated(n: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.rand(n, 5, dtype=dtype) * torch.tensor([40.0, 40, 30, 30, 7], dtype=dtype)


@settings(max_examples=80, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_native_equals_reference(seed: int) -> None:
    torch.manual_seed(seed)
    a, b = random_rotated(seed % 20), random_rotated(seed % 13)
    shared = min(len(a), len(b)) // 2
    b[:shared] = a[:shared]  # identical boxes, and the same turned by quarter turns: sides on sides
    b[:shared:2, 4] += math.pi / 2
    assert_same(ops.rotated_iou(a, b), reference.rotated_iou(a, b, False), atol=1e-10)
    assert_same(ops.rotated_iou(b, a), ops.rotated_iou(a, b).T.contiguous())


def test_straight_boxes() -> None:
    """Turned by multiples of a quarter, rotated IoU is plain IoU."""
    a, b = random_rotated(40), random_rotated(40)
    a[:, 4], b[:, 4] = 0, math.pi / 2
    straight_a = torch.cat((a[:, :2] - a[:, 2:4] / 2, a[:, :2] + a[:, 2:4] / 2), 1)
    sides = b[:, [3, 2]]
    straight_b = torch.cat((b[:, :2] - sides / 2, b[:, :2] + sides / 2), 1)
    assert_same(ops.rotated_iou(a, b), torchvision.ops.box_iou(straight_a, straight_b), atol=1e-12)


def test_a_known_overlap() -> None:
    """A square and itself turned by 45 degrees share a regular octagon: 2 (sqrt 2 - 1) of its area."""
    square = torch.tensor([[3.0, 4, 2, 2, 0.1]])
    turned = square + torch.tensor([0.0, 0, 0, 0, math.pi / 4])
    common = 2 * (math.sqrt(2) - 1)
    assert ops.rotated_iou(square, turned).item() == pytest.approx(common / (2 - common), abs=1e-6)


def test_edges() -> None:
    good = [1.0, 1, 2, 2, 0.3]
    bad = torch.tensor(
        [
            [1.0, 1, 0, 2, 0],
            [1, 1, -2, 2, 0],
            [math.nan, 1, 2, 2, 0],
            [1, math.inf, 2, 2, 0],
            [1, 1, 2, 2, math.inf],
            [1, 1, math.inf, 2, 0],
        ]
    )
    for dtype in (torch.float32, torch.float64):
        assert (ops.rotated_iou(bad.to(dtype), torch.tensor([good], dtype=dtype)) == 0).all()
    assert ops.rotated_iou(torch.rand(0, 5), torch.rand(3, 5)).shape == (0, 3)
    assert ops.rotated_iou(torch.rand(0, 5), torch.rand(0, 5), aligned=True).shape == (0,)
    a = random_rotated(6)
    assert_same(
        ops.rotated_iou(a, a.flip(0), aligned=True), ops.rotated_iou(a, a.flip(0)).diagonal().contiguous()
    )
    for dtype in (torch.float16, torch.bfloat16):
        assert ops.rotated_iou(a.to(dtype), a.to(dtype)).dtype == dtype
    with pytest.raises(ValueError, match=r"\[N, 5\]"):
        ops.rotated_iou(torch.rand(2, 4), torch.rand(2, 5))


def test_rotated_nms() -> None:
    for case in range(60):
        boxes, scores = random_rotated(case), torch.rand(case, dtype=torch.float64).mul(9).round()
        assert torch.equal(ops.rotated_nms(boxes, scores, 0.3), nms_reference.nms(boxes, scores, 0.3))
    found = ops.batched_nms(random_rotated(20)[None], torch.rand(1, 20, 2), iou_threshold=0.4, keep=9)
    assert found.boxes.shape == (1, 9, 5)
    with pytest.raises(ValueError, match=r"\[N, 5\]"):
        ops.rotated_nms(torch.rand(3, 4), torch.rand(3), 0.5)


def test_op_and_graph() -> None:
    a, b = random_rotated(4), random_rotated(3)
    check_op(torch.ops.detc.rotated_iou.default, (a, b, False), (a, a.flip(0), True))
    check_op(torch.ops.detc.nms.default, (a, torch.rand(4, dtype=torch.float64), 0.5))
    check_graph(ops.rotated_iou, (a, b), "rotated_iou")
