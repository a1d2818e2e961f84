"""The max-IoU assigner against torchvision's Matcher and MMDetection's rule said truth by truth."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.models.detection._utils import Matcher
from torchvision.ops import box_iou

from detc.compiler.functional.match import matched_truth, max_iou


def scene(seed: int, anchors: int = 60, truths: int = 6, images: int = 2) -> tuple[torch.Tensor, dict]:
    """Integer boxes, so that ties of overlap occur."""
    g = torch.Generator().manual_seed(seed)
    low = torch.randint(0, 12, (anchors, 2), generator=g)
    boxes = torch.cat((low, low + torch.randint(1, 9, (anchors, 2), generator=g)), -1).float()
    low = torch.randint(0, 12, (images, truths, 2), generator=g)
    real = torch.cat((low, low + torch.randint(1, 9, (images, truths, 2), generator=g)), -1).float()
    valid = torch.arange(truths) < torch.tensor([truths, max(truths - 3, 0)])[:images, None]
    labels = torch.randint(0, 5, (images, truths), generator=g)
    return boxes, {"boxes": real * valid[..., None], "labels": labels, "valid": valid}


@given(seed=st.integers(0, 100_000), low_quality=st.booleans())
@settings(max_examples=60, deadline=None)
def test_equals_torchvision(seed: int, low_quality: bool) -> None:
    boxes, truth = scene(seed)
    rule = "own" if low_quality else "none"
    index = max_iou(boxes, truth, positive=0.6, negative=0.3, min_positive=0.0, low_quality=rule)["index"]
    matcher = Matcher(0.6, 0.3, allow_low_quality_matches=low_quality)
    for i in range(2):
        real = truth["boxes"][i][truth["valid"][i]]
        theirs = matcher(box_iou(real, boxes))
        assert torch.equal(index[i], theirs)


@given(seed=st.integers(0, 100_000), min_positive=st.sampled_from([0.0, 0.3, 0.5]))
@settings(max_examples=60, deadline=None)
def test_truth_rule(seed: int, min_positive: float) -> None:
    """MMDetection's MaxIoUAssigner, said truth by truth."""
    boxes, truth = scene(seed)
    mine = max_iou(boxes, truth, positive=0.6, negative=0.3, min_positive=min_positive, low_quality="truth")
    for i in range(2):
        real = truth["boxes"][i][truth["valid"][i]]
        iou = box_iou(real, boxes)
        best, which = iou.max(0)
        expected = torch.full((len(boxes),), -2)
        expected[best < 0.3] = -1
        expected[best >= 0.6] = which[best >= 0.6]
        for g in range(len(real)):
            if iou[g].max() >= min_positive:
                expected[iou[g] == iou[g].max()] = g
        assert torch.equal(mine["index"][i], expected)


def test_iou_is_that_with_the_best_truth() -> None:
    boxes, truth = scene(3)
    iou = max_iou(boxes, truth, positive=0.5, negative=0.5, min_positive=0.0, low_quality="none")["iou"]
    for i in range(2):
        real = truth["boxes"][i][truth["valid"][i]]
        assert torch.allclose(iou[i], box_iou(boxes, real).amax(1))


@pytest.mark.parametrize("rule", ["none", "own", "truth"])
def test_image_without_objects_is_background(rule: str) -> None:
    boxes, truth = scene(1)
    truth["valid"] = torch.zeros_like(truth["valid"])
    match = max_iou(boxes, truth, positive=0.5, negative=0.5, min_positive=0.0, low_quality=rule)
    assert (match["index"] == -1).all()
    assert (matched_truth(match, truth)["labels"] == -1).all()


def test_invalid_proposals_are_ignored() -> None:
    boxes, truth = scene(2)
    valid = torch.rand(2, len(boxes)) < 0.5
    rois = {"boxes": boxes.expand(2, -1, -1), "valid": valid}
    index = max_iou(rois, truth, positive=0.5, negative=0.5, min_positive=0.5, low_quality="none")["index"]
    assert (index[~valid] == -2).all()
    assert (index[valid] != -2).all()


def test_matched_truth_gathers_boxes_and_labels() -> None:
    boxes, truth = scene(4)
    match = max_iou(boxes, truth, positive=0.3, negative=0.3, min_positive=0.0, low_quality="none")
    target = matched_truth(match, truth)
    for i in range(2):
        for n in range(len(boxes)):
            g = int(match["index"][i, n])
            assert int(target["labels"][i, n]) == (int(truth["labels"][i, g]) if g >= 0 else g)
            if g >= 0:
                assert torch.equal(target["boxes"][i, n], truth["boxes"][i, g])
    assert set(matched_truth(match, truth, agnostic=True)["labels"].unique().tolist()) <= {0, -1}
