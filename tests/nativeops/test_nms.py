"""Non-maximum suppression: against torchvision, against the reference, at the edges."""

from __future__ import annotations

import math

import pytest
import torch
import torchvision
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from detc.nativeops import ops
from detc.nativeops.ops.nms import METHODS
from detc.nativeops.reference import nms as reference
from tests.nativeops.op_checks import assert_same, check_graph, check_op, random_boxes, require_native

INF, NAN = math.inf, math.nan


@pytest.fixture(autouse=True)
def seeded() -> None:
    require_native("nms", "batched_nms")
    torch.manual_seed(0)


def test_equals_torchvision_on_ten_thousand_cases() -> None:
    for case in range(10_000):
        n = case % 41
        boxes, scores = random_boxes(n, high=60), torch.rand(n)
        if case % 2:  # whole coordinates and few scores: ties and IoUs exactly at the threshold
            boxes, scores = boxes.round(), scores.mul(6).round() / 6
        threshold = (0.0, 0.3, 0.5, 0.7, 1.0)[case % 5]
        assert torch.equal(
            ops.nms(boxes, scores, threshold), torchvision.ops.nms(boxes, scores, threshold)
        ), case


def test_large_sets_equal_torchvision() -> None:
    for n, dtype in ((4000, torch.float32), (1500, torch.float64)):
        boxes, scores = random_boxes(n, high=300, dtype=dtype), torch.rand(n, dtype=dtype)
        assert torch.equal(ops.nms(boxes, scores, 0.5), torchvision.ops.nms(boxes, scores, 0.5))
        labels = torch.randint(0, 7, (n,))
        found = ops.batched_nms(boxes[None], scores[None], labels=labels[None], iou_threshold=0.5, keep=n)
        # torchvision's own trick of shifting classes apart rounds; class by class is exact
        kept = [
            at[torchvision.ops.nms(boxes[at], scores[at], 0.5)]
            for c in range(7)
            for at in [(labels == c).nonzero().squeeze(1)]
        ]
        wanted = torch.cat(kept)
        wanted = wanted[scores[wanted].argsort(descending=True)]
        assert torch.equal(found.index[0][found.valid[0]], wanted)


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    method=st.sampled_from(METHODS),
    agnostic=st.booleans(),
    pre_topk=st.sampled_from([0, 7, 40]),
    keep=st.sampled_from([1, 6, 50]),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    rotated=st.booleans(),
)
@example(
    623, "soft_linear", False, 0, 50, torch.float64, True
)  # ties between overlaps of a with b and of b with a
def test_native_equals_reference(
    seed: int, method: str, agnostic: bool, pre_topk: int, keep: int, dtype: torch.dtype, rotated: bool
) -> None:
    torch.manual_seed(seed)
    B, N, C = 2, seed % 30, 1 + seed % 4
    boxes = random_boxes(B, N, dtype=dtype)
    if rotated:
        boxes = torch.cat((boxes, torch.rand(B, N, 1, dtype=dtype) * 7), -1)
    scores = torch.rand(B, N, C, dtype=dtype).mul(12).round() / 12  # ties
    labels = torch.randint(-3, 3, (B, N)) if C == 1 and seed % 2 else None
    args = (boxes, scores, labels, 0.3, 0.15, keep, pre_topk, agnostic, method, 0.5, 0.2)
    assert_same(torch.ops.detc.batched_nms(*args), reference.batched_nms(*args), atol=1e-6)


def detect(boxes: list[list[float]], scores: list[float], **options: object) -> ops.NmsResult:
    options = {"iou_threshold": 0.5, "keep": 4, **options}
    return ops.batched_nms(
        torch.tensor(boxes).reshape(1, -1, 4), torch.tensor(scores).reshape(1, -1), **options
    )  # type: ignore[arg-type]


def test_ties_break_by_index() -> None:
    found = detect([[0, 0, 10, 10], [0, 0, 10, 10], [50, 50, 60, 60]], [0.5, 0.5, 0.5])
    assert found.index[0, :2].tolist() == [0, 2]
    assert ops.nms(
        torch.tensor([[0.0, 0, 1, 1]]).repeat(3, 1), torch.tensor([0.5, 0.5, 0.5]), 0.5
    ).tolist() == [0]


def test_the_threshold_is_strict() -> None:
    half = [[0, 0, 10, 10], [0, 0, 10, 5]]  # IoU exactly 0.5
    assert detect(half, [0.9, 0.8]).valid.sum() == 2
    assert detect(half, [0.9, 0.8], iou_threshold=0.499).valid.sum() == 1
    assert detect(half, [0.9, 0.8], score_threshold=0.8).valid.sum() == 1


def test_padding_is_zero() -> None:
    found = detect([[1, 1, 5, 5]], [0.9])
    assert found.valid[0].tolist() == [True, False, False, False]
    for part in found[:4]:
        assert (part[0, 1:] == 0).all()


@pytest.mark.parametrize("method", METHODS)
def test_scores_that_are_not_finite(method: str) -> None:
    far = [[20.0 * i, 0, 20.0 * i + 9, 9] for i in range(5)]
    found = detect(far, [NAN, INF, -INF, 0.5, NAN], method=method)
    assert found.index[0][found.valid[0]].tolist() == [1, 3]  # +inf is a score, NaN and -inf never are
    boxes, scores = torch.tensor(far), torch.tensor([0.1, INF, -INF, NAN, 0.5])
    assert (
        ops.nms(boxes, scores, 0.5).tolist()
        == torch.sort(scores, descending=True, stable=True).indices.tolist()
    )


@pytest.mark.parametrize("method", METHODS)
def test_degenerate_boxes_survive(method: str) -> None:
    """No area, inverted or NaN coordinates: IoU is NaN or not positive, so nothing is suppressed and nothing
    crashes."""
    empty = [[5, 5, 5, 5], [5, 5, 5, 5], [9, 9, 3, 12], [NAN, 0, 4, 4], [0, 0, INF, 4]]
    assert detect(empty, [0.9, 0.8, 0.7, 0.6, 0.5], keep=8, method=method).valid.sum() == 5
    assert len(ops.nms(torch.tensor(empty), torch.rand(5), 0.5)) == 5


@pytest.mark.parametrize("method", METHODS)
def test_one_box_many_times(method: str) -> None:
    """Overlaps of exactly 1, which decay to nothing."""
    boxes = torch.tensor([2.0, 3, 9, 8]).expand(1, 6, 4)
    scores = torch.tensor([[0.2, 0.9, 0.4, 0.9, 0.3, 0.1]])
    arguments = (boxes, scores[..., None], None, 0.5, -torch.inf, 6, 0, False, method, 0.5, -torch.inf)
    assert_same(torch.ops.detc.batched_nms(*arguments), reference.batched_nms(*arguments), atol=1e-6)


def test_inverted_boxes_equal_torchvision() -> None:
    boxes = torch.randn(200, 4) * 20
    scores = torch.rand(200)
    assert torch.equal(ops.nms(boxes, scores, 0.2), torchvision.ops.nms(boxes, scores, 0.2))


@pytest.mark.parametrize("shape", [(0, 5, 3), (2, 0, 3), (2, 5, 0), (0, 0, 0)])
def test_empty(shape: tuple[int, int, int]) -> None:
    B, N, C = shape
    for keep in (0, 3):
        found = ops.batched_nms(torch.rand(B, N, 4), torch.rand(B, N, C), iou_threshold=0.5, keep=keep)
        assert found.boxes.shape == (B, keep, 4) and not found.valid.any()
    assert ops.nms(torch.rand(0, 4), torch.rand(0), 0.5).shape == (0,)


def test_not_contiguous() -> None:
    wide = torch.rand(2, 4, 60)
    wide[:, 2:] += wide[:, :2]
    boxes, scores = wide.transpose(1, 2)[:, ::2], torch.rand(3, 30, 2).permute(2, 1, 0)
    args = (None, 0.4, 0.1, 20, 0, False, "hard", 0.5, 0.1)
    assert_same(
        torch.ops.detc.batched_nms(boxes, scores, *args),
        torch.ops.detc.batched_nms(boxes.clone(), scores.contiguous(), *args),
    )
    assert torch.equal(
        ops.nms(boxes[0], scores[0, :, 1], 0.4), ops.nms(boxes[0].clone(), scores[0, :, 1].clone(), 0.4)
    )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_is_computed_in_float(dtype: torch.dtype) -> None:
    boxes, scores = random_boxes(1, 60).round().to(dtype), torch.rand(1, 60, 3).to(dtype)
    half, full = (
        ops.batched_nms(b, s, iou_threshold=0.5, keep=80)
        for b, s in ((boxes, scores), (boxes.float(), scores.float()))
    )
    assert half.boxes.dtype == dtype
    assert (
        torch.equal(half.index, full.index)
        and torch.equal(half.labels, full.labels)
        and torch.equal(half.scores.float(), full.scores)
    )


def test_class_boxes_labels_and_mask() -> None:
    boxes, scores = random_boxes(2, 12, 3), torch.rand(2, 12, 3)
    found = ops.batched_nms(boxes, scores, iou_threshold=0.5, keep=50)
    picked = boxes[torch.arange(2)[:, None], found.index, found.labels]
    assert torch.equal(picked[found.valid], found.boxes[found.valid])
    assert torch.equal(
        scores[torch.arange(2)[:, None], found.index, found.labels][found.valid], found.scores[found.valid]
    )
    valid = torch.rand(2, 12) > 0.5
    masked = ops.batched_nms(boxes[:, :, 0], scores[:, :, 0], iou_threshold=0.99, keep=50, valid=valid)
    assert masked.valid.sum() == valid.sum()
    assert valid[torch.arange(2)[:, None], masked.index][masked.valid].all()


def test_result_does_not_depend_on_threads() -> None:
    boxes, scores = random_boxes(1, 6000, high=400), torch.rand(1, 6000)
    before = torch.get_num_threads()
    try:
        results = []
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            results.append(ops.batched_nms(boxes, scores, iou_threshold=0.6, keep=3000))
    finally:
        torch.set_num_threads(before)
    assert_same(results[1], results[0])
    assert_same(results[2], results[0])


def test_op_and_graph() -> None:
    boxes, scores = random_boxes(2, 9), torch.rand(2, 9, 3)
    for method in METHODS:
        check_op(
            torch.ops.detc.batched_nms.default, (boxes, scores, None, 0.5, 0.1, 5, 0, False, method, 0.5, 0.1)
        )
    check_op(torch.ops.detc.nms.default, (boxes[0], scores[0, :, 0], 0.5))
    check_graph(
        lambda b, s: tuple(ops.batched_nms(b, s, iou_threshold=0.5, keep=5)), (boxes, scores), "batched_nms"
    )


def test_variable_length_goes_through_export_and_compile() -> None:
    def count(b: Tensor, s: Tensor) -> Tensor:
        return s[ops.nms(b, s, 0.5)].sum()

    boxes, scores = random_boxes(20), torch.rand(20)
    check_graph(count, (boxes, scores), "nms")


def test_wrong_arguments() -> None:
    boxes, scores = torch.rand(1, 5, 4), torch.rand(1, 5)
    with pytest.raises(ValueError, match="method must be one of hard"):
        ops.batched_nms(boxes, scores, iou_threshold=0.5, method="fast")
    with pytest.raises(ValueError, match=r"scores must be \[B, N, C\]"):
        ops.batched_nms(boxes, torch.rand(1, 6), iou_threshold=0.5)
    with pytest.raises(ValueError, match="boxes must be"):
        ops.batched_nms(torch.rand(5, 4), scores, iou_threshold=0.5)
    with pytest.raises(ValueError, match="must not be negative"):
        ops.batched_nms(boxes, scores, iou_threshold=0.5, keep=-1)
    with pytest.raises(RuntimeError, match="one dtype"):
        torch.ops.detc.nms(boxes[0], scores[0].double(), 0.5)
