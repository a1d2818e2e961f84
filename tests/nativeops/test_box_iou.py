"""Overlaps and max-IoU assignment: against torchvision, against the reference, at the edges."""

from __future__ import annotations

import math

import pytest
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from detc.nativeops import ops
from detc.nativeops.ops.box_iou import KINDS, LOW_QUALITY
from detc.nativeops.reference import box_iou as reference
from tests.nativeops.op_checks import assert_same, check_graph, check_op, random_boxes, require_native

PEERS = {
    "iou": torchvision.ops.box_iou,
    "giou": torchvision.ops.generalized_box_iou,
    "diou": torchvision.ops.distance_box_iou,
    "ciou": torchvision.ops.complete_box_iou,
}


@pytest.fixture(autouse=True)
def seeded() -> None:
    require_native("box_iou", "box_iou_backward", "max_iou_assign")
    torch.manual_seed(0)


@pytest.mark.parametrize("kind", KINDS)
def test_equals_torchvision(kind: str) -> None:
    for n, m in ((57, 33), (1, 1), (1, 100)):
        a, b = random_boxes(n), random_boxes(m)
        torch.testing.assert_close(ops.box_iou(a, b, kind=kind), PEERS[kind](a, b), atol=1e-5, rtol=0)


def degenerate(*size: int) -> Tensor:
    boxes = random_boxes(*size, dtype=torch.float64).round()
    flat = boxes.view(-1, 4)
    flat[::5, 2] = flat[::5, 0]  # no width
    flat[::7] = flat[::7][:, [2, 3, 0, 1]]  # inverted
    flat[::11, 2:] = flat[::11, :2]  # no area at all
    return boxes


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), kind=st.sampled_from(KINDS), aligned=st.booleans())
def test_native_equals_reference(seed: int, kind: str, aligned: bool) -> None:
    torch.manual_seed(seed)
    n = seed % 23
    a, b = degenerate(2, n), degenerate(2, n if aligned else seed % 17)
    got = torch.ops.detc.box_iou(a, b, kind, aligned)
    assert got.isfinite().all()
    assert_same(got, reference.box_iou(a, b, kind, aligned), atol=1e-12)
    a, b = random_boxes(2, n, dtype=torch.float64), random_boxes(2, b.shape[1], dtype=torch.float64)
    grad = torch.randn_like(got)
    assert_same(
        torch.ops.detc.box_iou_backward(grad, a, b, kind, aligned),
        reference.box_iou_backward(grad, a, b, kind, aligned),
        atol=1e-12,
    )


def test_boxes_without_area_and_nan() -> None:
    point, box = torch.tensor([[5.0, 5, 5, 5]]), torch.tensor([[0.0, 0, 10, 10]])
    for kind in KINDS:
        assert ops.box_iou(point, point, kind=kind).item() == 0
    assert ops.box_iou(point, box).item() == 0
    for kind in KINDS:
        assert ops.box_iou(torch.tensor([[math.nan, 0, 1, 1]]), box, kind=kind).isnan().all()


@pytest.mark.parametrize("kind", KINDS)
def test_shapes(kind: str) -> None:
    a, b = random_boxes(2, 3, 5), random_boxes(2, 3, 4)
    whole = ops.box_iou(a, b, kind=kind)
    assert whole.shape == (2, 3, 5, 4)
    assert_same(ops.box_iou(a[1, 2], b[1, 2], kind=kind), whole[1, 2])
    assert_same(
        ops.box_iou(a[..., :4, :], b, kind=kind, aligned=True),
        whole[..., :4, :].diagonal(dim1=-2, dim2=-1).contiguous(),
    )
    for n, m in ((0, 3), (3, 0), (0, 0)):
        assert ops.box_iou(torch.rand(n, 4), torch.rand(m, 4), kind=kind).shape == (n, m)
    spread = torch.rand(4, 9).T
    assert_same(
        ops.box_iou(spread, spread, kind=kind), ops.box_iou(spread.clone(), spread.clone(), kind=kind)
    )
    for dtype in (torch.float16, torch.bfloat16):
        half = ops.box_iou(a.to(dtype), b.to(dtype), kind=kind)
        assert half.dtype == dtype
        torch.testing.assert_close(
            half.float(),
            ops.box_iou(a.to(dtype).float(), b.to(dtype).float(), kind=kind),
            atol=1e-2,
            rtol=1e-2,
        )


@pytest.mark.parametrize("aligned", [False, True])
@pytest.mark.parametrize("kind", ["iou", "giou", "diou"])
def test_gradcheck(kind: str, aligned: bool) -> None:
    a, b = (random_boxes(4, dtype=torch.float64).requires_grad_() for _ in range(2))
    assert torch.autograd.gradcheck(lambda x, y: ops.box_iou(x, y, kind=kind, aligned=aligned), (a, b))


def test_ciou_gradient_takes_the_trade_off_as_constant() -> None:
    """torchvision's loss does so too (gradcheck, which differentiates it, would not agree)."""
    a, b = (random_boxes(20, dtype=torch.float64) for _ in range(2))
    leaf, peer = a.clone().requires_grad_(), a.clone().requires_grad_()
    (1 - ops.box_iou(leaf, b, kind="ciou", aligned=True)).sum().backward()
    torchvision.ops.complete_box_iou_loss(peer, b, reduction="sum").backward()
    torch.testing.assert_close(leaf.grad, peer.grad, atol=1e-8, rtol=1e-5)


@settings(max_examples=120, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    low_quality=st.sampled_from(LOW_QUALITY),
    min_positive=st.sampled_from([0.0, 0.3, 0.9]),
    shared=st.booleans(),
)
def test_assignment_equals_reference(seed: int, low_quality: str, min_positive: float, shared: bool) -> None:
    torch.manual_seed(seed)
    n, g = (0, 1, 40, 700)[seed % 4], seed % 7
    boxes = random_boxes(n, high=50).round() if shared else random_boxes(3, n, high=50).round()
    truths, valid = random_boxes(3, g, high=50).round(), torch.rand(3, g) > 0.4
    if n:
        boxes.view(-1, 4)[0, 1] = math.nan
    valid[0] = False
    args = (boxes, truths, valid, 0.6, 0.3, min_positive, low_quality)
    assert_same(torch.ops.detc.max_iou_assign(*args), reference.max_iou_assign(*args))


def test_assignment_follows_torchvision() -> None:
    from torchvision.models.detection._utils import Matcher

    boxes, truths = random_boxes(2000), random_boxes(1, 12)
    index, iou = ops.max_iou_assign(
        boxes, truths, torch.ones(1, 12, dtype=torch.bool), positive=0.7, negative=0.3, low_quality="own"
    )
    matrix = torchvision.ops.box_iou(truths[0], boxes)
    assert torch.equal(index[0], Matcher(0.7, 0.3, allow_low_quality_matches=True)(matrix))
    assert torch.equal(iou[0], matrix.amax(0))


def test_assignment_without_truths_is_background() -> None:
    for truths in (torch.rand(2, 0, 4), torch.rand(2, 3, 4)):
        index, iou = ops.max_iou_assign(
            torch.rand(5, 4),
            truths,
            torch.zeros(truths.shape[:2], dtype=torch.bool),
            positive=0.5,
            negative=0.5,
            low_quality="truth",
        )
        assert (index == -1).all() and (iou == 0).all()


def test_op_and_graph() -> None:
    a, b = random_boxes(2, 4).requires_grad_(), random_boxes(2, 3).requires_grad_()
    for kind in KINDS:
        check_op(torch.ops.detc.box_iou.default, (a, b, kind, False), (a, a.detach() + 1, kind, True))
    check_op(
        torch.ops.detc.box_iou_backward.default, (torch.rand(2, 4, 3), a.detach(), b.detach(), "giou", False)
    )
    valid = torch.ones(2, 3, dtype=torch.bool)
    check_op(torch.ops.detc.max_iou_assign.default, (a.detach(), b.detach(), valid, 0.5, 0.4, 0.0, "truth"))
    check_graph(lambda x, y: ops.box_iou(x, y, kind="ciou"), (a.detach(), b.detach()), "box_iou")
    check_graph(
        lambda x, y, v: ops.max_iou_assign(x, y, v, positive=0.5, negative=0.4),
        (a.detach(), b.detach(), valid),
        "max_iou_assign",
    )


def test_wrong_arguments() -> None:
    with pytest.raises(ValueError, match="kind must be one of iou"):
        ops.box_iou(torch.rand(2, 4), torch.rand(2, 4), kind="area")
    with pytest.raises(ValueError, match="boxes must be"):
        ops.box_iou(torch.rand(2, 4), torch.rand(3, 4), aligned=True)
    with pytest.raises(ValueError, match="above positive"):
        ops.max_iou_assign(
            torch.rand(2, 4),
            torch.rand(1, 2, 4),
            torch.ones(1, 2, dtype=torch.bool),
            positive=0.3,
            negative=0.5,
        )
    with pytest.raises(ValueError, match="low_quality must be"):
        ops.max_iou_assign(
            torch.rand(2, 4),
            torch.rand(1, 2, 4),
            torch.ones(1, 2, dtype=torch.bool),
            positive=0.5,
            negative=0.5,
            low_quality="all",
        )
