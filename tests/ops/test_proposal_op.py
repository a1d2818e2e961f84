"""Proposals and detections against torchvision's filters, built from torchvision's own pieces."""

from __future__ import annotations

import pytest
import torch
from torchvision.models.detection._utils import BoxCoder
from torchvision.ops import batched_nms, clip_boxes_to_image, remove_small_boxes

from detc.compiler.functional.post import class_nms, top_k
from detc.compiler.functional.proposals import select_proposals

SIZE = torch.tensor([[120.0, 150.0], [128.0, 96.0]])


def head(classes: int, levels: int = 3, anchors: int = 3, batch: int = 2) -> tuple[list, list, torch.Tensor]:
    torch.manual_seed(0)
    logits, deltas, boxes = [], [], []
    for level in range(levels):
        side = 16 >> level
        logits.append(torch.randn(batch, anchors * classes, side, side) * 2)
        deltas.append(torch.randn(batch, anchors * 4, side, side) * 0.3)
        low = torch.rand(side * side * anchors, 2) * 100
        boxes.append(torch.cat((low, low + 10 * 2**level), 1))
    return logits, deltas, torch.cat(boxes)


def rows(x: torch.Tensor, width: int) -> torch.Tensor:
    b, d, h, w = x.shape
    return x.view(b, d // width, width, h, w).permute(0, 3, 4, 1, 2).reshape(b, -1, width)


@pytest.mark.parametrize("keep", [50, 400])
def test_proposals_are_torchvisions(keep: int) -> None:
    logits, deltas, anchors = head(1)
    mine = select_proposals(
        anchors, logits, deltas, {"size": SIZE}, before=100, keep=keep, iou=0.7, min_size=8.0, std=[1.0] * 4
    )
    for i in range(2):
        boxes, scores, levels, start = [], [], [], 0
        for level in range(3):
            objectness = rows(logits[level], 1)[i, :, 0]
            top, order = objectness.topk(min(100, len(objectness)))
            own = anchors[start : start + len(objectness)][order]
            boxes.append(BoxCoder((1.0,) * 4).decode_single(rows(deltas[level], 4)[i][order], own))
            scores.append(top.sigmoid())
            levels.append(torch.full_like(order, level))
            start += len(objectness)
        b = clip_boxes_to_image(torch.cat(boxes), tuple(SIZE[i].tolist()))
        s, lv = torch.cat(scores), torch.cat(levels)
        big = remove_small_boxes(b, 8.0)
        b, s, lv = b[big], s[big], lv[big]
        kept = batched_nms(b, s, lv, 0.7)[:keep]
        valid = mine["valid"][i]
        assert int(valid.sum()) == len(kept)
        assert torch.allclose(mine["boxes"][i][valid], b[kept], atol=1e-3)
        assert torch.allclose(mine["scores"][i][valid], s[kept], atol=1e-6)
        assert (mine["boxes"][i][~valid] == 0).all()


@pytest.mark.parametrize("per_level", [0, 40])
def test_detections_of_a_pyramid_are_torchvisions(per_level: int) -> None:
    logits, _, anchors = head(5)
    boxes = torch.stack((anchors, anchors + 3))
    options = {"background": False, "agnostic": False, "min_size": 0.0, "before": 0, "anchors": 3}
    mine = class_nms(
        boxes,
        logits,
        iou=0.5,
        score=0.3,
        keep=60,
        per_level=per_level,
        activation="sigmoid",
        **options,
    )
    for i in range(2):
        b, s, labels, start = [], [], [], 0
        for x in logits:
            scores = rows(x, 5)[i].sigmoid().flatten()
            above = (scores > 0.3).nonzero()[:, 0]
            if per_level:
                above = above[scores[above].topk(min(per_level, len(above))).indices]
            s.append(scores[above])
            b.append(boxes[i][start + above // 5])
            labels.append(above % 5)
            start += len(scores) // 5
        bb, ss, ll = torch.cat(b), torch.cat(s), torch.cat(labels)
        kept = batched_nms(bb, ss, ll, 0.5)[:60]
        valid = mine["valid"][i]
        assert int(valid.sum()) == len(kept)
        assert torch.equal(mine["labels"][i][valid], ll[kept])
        assert torch.allclose(mine["boxes"][i][valid], bb[kept])
        assert torch.allclose(mine["scores"][i][valid], ss[kept])


@pytest.mark.parametrize("specific", [False, True])
def test_detections_of_regions_are_torchvisions(specific: bool) -> None:
    torch.manual_seed(1)
    scores = (torch.randn(2, 40, 5) * 2).softmax(-1)
    low = torch.rand(2, 40, 4, 2) * 50
    boxes = torch.cat((low, low + torch.rand(2, 40, 4, 2) * 30), -1)
    valid = torch.rand(2, 40) < 0.8
    given = boxes if specific else boxes[:, :, 0]
    mine = class_nms(
        {"boxes": given, "valid": valid},
        scores,
        iou=0.5,
        score=0.05,
        keep=100,
        before=0,
        per_level=0,
        background=True,
        activation="none",
        agnostic=False,
        min_size=5.0,
        anchors=1,
    )
    for i in range(2):
        all_boxes = (boxes if specific else boxes[:, :, :1].expand(-1, -1, 4, -1))[i][valid[i]].reshape(-1, 4)
        s = scores[i][valid[i]][:, :-1].flatten()
        labels = torch.arange(4).repeat(len(s) // 4)
        above = (s > 0.05).nonzero()[:, 0]
        above = above[remove_small_boxes(all_boxes[above], 5.0)]
        b, s, labels = all_boxes[above], s[above], labels[above]
        kept = batched_nms(b, s, labels, 0.5)[:100]
        found = mine["valid"][i]
        assert int(found.sum()) == len(kept) > 5
        assert torch.equal(mine["labels"][i][found], labels[kept])
        assert torch.allclose(mine["boxes"][i][found], b[kept])


def test_no_detection_is_all_invalid() -> None:
    mine = class_nms(
        torch.rand(1, 8, 4),
        torch.zeros(1, 8, 3),
        iou=0.5,
        score=0.05,
        keep=10,
        before=4,
        per_level=0,
        background=True,
        activation="none",
        agnostic=False,
        min_size=0.0,
        anchors=1,
    )
    assert not mine["valid"].any()
    assert (mine["boxes"] == 0).all()


def test_top_k_orders_pairs() -> None:
    logits = torch.tensor([[[0.0, 2.0], [1.0, -9.0]]])
    boxes = torch.tensor([[[0.0, 0, 1, 1], [2, 2, 4, 4]]])
    found = top_k(logits, boxes, keep=5, score=0.1, activation="sigmoid")
    assert found["labels"].tolist() == [[1, 0, 0, 0, 0]]
    assert found["valid"].tolist() == [[True, True, True, False, False]]
    assert found["boxes"][0, 1].tolist() == [2, 2, 4, 4]
