"""The native assignment against its reference, at its edges, and as an op."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from detc.nativeops import ops
from detc.nativeops.reference.dynamic_soft_label import dynamic_soft_label as reference

SIZES, STRIDES = [(12, 16), (6, 8), (3, 4)], [8.0, 16.0, 32.0]


def problem(
    seed: int, images: int = 2, truths: int = 6, classes: int = 4, share: float = 0.8
) -> list[Tensor]:
    g = torch.Generator().manual_seed(seed)
    points, strides = [], []
    for (h, w), stride in zip(SIZES, STRIDES, strict=True):
        y, x = torch.meshgrid(torch.arange(h) * stride, torch.arange(w) * stride, indexing="ij")
        points.append(torch.stack((x, y), -1).reshape(-1, 2))
        strides.append(torch.full((h * w,), stride))
    xy, stride_N = torch.cat(points), torch.cat(strides)
    ltrb = torch.rand(images, len(xy), 4, generator=g) * 40
    boxes = torch.cat((xy - ltrb[..., :2], xy + ltrb[..., 2:]), -1)
    corner = torch.rand(images, truths, 2, generator=g) * torch.tensor([110.0, 80.0])
    truth = torch.cat((corner, corner + torch.rand(images, truths, 2, generator=g) * 60 + 2), -1)
    labels = torch.randint(classes, (images, truths), generator=g)
    valid = torch.rand(images, truths, generator=g) < share
    logits = torch.randn(images, len(xy), classes, generator=g) * 3
    return [xy, stride_N, logits, boxes, truth, labels, valid]


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    truths=st.integers(0, 12),
    topk=st.integers(1, 20),
    iou_weight=st.sampled_from([0.0, 1.0, 3.0]),
)
def test_native_equals_reference(seed: int, truths: int, topk: int, iou_weight: float) -> None:
    inputs = problem(seed, truths=truths)
    if truths == 0:
        index, iou = ops.dynamic_soft_label(*inputs, topk=topk, iou_weight=iou_weight)
        assert (index == -1).all()
        assert (iou == 0).all()
        return
    index, iou = ops.dynamic_soft_label(*inputs, topk=topk, iou_weight=iou_weight)
    wanted_index, wanted_iou = reference(*inputs, topk, 3.0, iou_weight)
    # costs may round differently, so that a tie of a point or two falls otherwise
    assert (index != wanted_index).sum() <= 1
    same = index == wanted_index
    assert torch.allclose(iou[same], wanted_iou[same], atol=1e-5)


def test_nothing_valid_and_no_images() -> None:
    inputs = problem(0)
    inputs[-1] = torch.zeros_like(inputs[-1])
    index, iou = ops.dynamic_soft_label(*inputs)
    assert (index == -1).all()
    assert (iou == 0).all()
    none = [t if i < 2 else t[:0] for i, t in enumerate(inputs)]
    index, iou = ops.dynamic_soft_label(*none)
    assert index.shape == iou.shape == (0, inputs[0].shape[0])


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("which", [2, 3])
def test_wild_predictions_stay_in_bounds(which: int, value: float) -> None:
    inputs = problem(3)
    inputs[which][0, ::3] = value
    index, _ = ops.dynamic_soft_label(*inputs)
    assert ((index >= -1) & (index < inputs[4].shape[1])).all()
    clean, _ = ops.dynamic_soft_label(*problem(3))
    assert torch.equal(index[1], clean[1])


def test_truth_without_a_point_takes_one_from_its_neighbours() -> None:
    inputs = problem(1, images=1, truths=2, share=1.1)
    inputs[4][0] = torch.tensor([[20.0, 20.0, 60.0, 60.0], [41.0, 41.0, 46.0, 46.0]])
    inputs[5][0] = torch.tensor([0, 1])
    inputs[3][0] = inputs[4][0, 1]  # every point predicts the small truth
    index, _ = ops.dynamic_soft_label(*inputs)
    assert set(index.unique().tolist()) == {-1, 0, 1}


def test_labels_out_of_range_are_refused_where_valid() -> None:
    inputs = problem(1, share=1.1)
    inputs[5][0, 0] = 9
    with pytest.raises((RuntimeError, IndexError)):
        ops.dynamic_soft_label(*inputs)


@pytest.mark.parametrize(("which", "shape"), [(3, (2, 5, 4)), (6, (2, 5))])
def test_shapes_that_do_not_fit(which: int, shape: tuple[int, ...]) -> None:
    inputs: list[Any] = problem(1)
    inputs[which] = torch.zeros(shape, dtype=inputs[which].dtype)
    with pytest.raises(ValueError, match=r"\[B, [NG]"):
        ops.dynamic_soft_label(*inputs)


def test_is_a_well_behaved_op() -> None:
    torch.library.opcheck(torch.ops.detc.dynamic_soft_label.default, (*problem(5), 13, 3.0, 3.0))
