"""From scores and boxes to detections of fixed capacity.

Shape legend: B images, N boxes, C classes, A anchors of one cell, M candidates, K detections.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from detc.compiler.functional.boxes import large_enough
from detc.compiler.functional.sample import take_rows, topk_padded
from detc.nativeops import ops


def class_nms(
    boxes: Any,
    scores: Any,
    *,
    iou: float,
    score: float,
    keep: int,
    before: int,
    per_level: int,
    background: bool,
    activation: str,
    agnostic: bool,
    min_size: float,
    anchors: int,
    best_class: bool = False,
    rows: bool = False,
) -> dict[str, Tensor]:
    """`ClassNMS`: threshold, top-k, suppression within each class; see `compiler.ops.post.ClassNMS`.

    Args:
        boxes: [B, N, 4], [B, N, C, 4] for a box per class, or proposals with such `boxes` and `valid`.
        scores: [B, N, C] (C + 1 with `background`, which comes last); or maps [B, A * C, H, W].

    Returns:
        `boxes` [B, keep, 4], `scores`, `labels` int64, `valid` [B, keep], by descending score; with `rows` also
        `index` [B, keep] int64 into N.
    """
    valid_BN = None
    if isinstance(boxes, dict):
        boxes, valid_BN = boxes["boxes"], boxes["valid"]
    labels_BN = index_BM = None
    if isinstance(scores, list):
        if per_level:
            scores, labels_BN, index_BM = best_of_levels(scores, anchors, per_level)
            boxes = take_rows(boxes, index_BM)
        else:
            scores = torch.cat([rows_of(s, anchors) for s in scores], 1)
    scores = activate(scores, activation)
    if background:
        scores = scores[..., :-1]
    if best_class:
        scores = scores.masked_fill(scores < scores.amax(-1, keepdim=True), -torch.inf)
    if min_size > 0:
        ok = large_enough(boxes, min_size)
        scores = scores.masked_fill(~(ok if ok.dim() == scores.dim() else ok[..., None]), -torch.inf)
    found = ops.batched_nms(
        boxes.float(),
        scores,
        labels=labels_BN,
        valid=valid_BN,
        iou_threshold=iou,
        score_threshold=score,
        keep=keep,
        pre_topk=before,
        class_agnostic=agnostic,
    )
    result = {"boxes": found.boxes, "scores": found.scores, "labels": found.labels, "valid": found.valid}
    if rows:
        result["index"] = found.index if index_BM is None else index_BM.gather(1, found.index)
    return result


def activate(scores: Tensor, activation: str) -> Tensor:
    """Sigmoid, softmax over the last dimension, or nothing, in float32."""
    scores = scores.float()
    if activation == "sigmoid":
        return scores.sigmoid()
    return scores.softmax(-1) if activation == "softmax" else scores


def rows_of(scores_BDHW: Tensor, anchors: int) -> Tensor:
    """A map [B, A * C, H, W] as rows [B, H * W * A, C]."""
    b, d = scores_BDHW.shape[:2]
    return scores_BDHW.permute(0, 2, 3, 1).reshape(b, -1, d // anchors)


def best_of_levels(scores: list[Tensor], anchors: int, k: int) -> tuple[Tensor, Tensor, Tensor]:
    """The `k` best pairs of box and class of each level.

    A pair among the k best belongs to one of the k boxes whose best class scores highest, so only those
    boxes' classes are ever sorted.

    Returns:
        Scores [B, M], classes [B, M] and indices into the boxes of all levels [B, M].
    """
    values, labels, indices = [], [], []
    start = 0
    for scores_BDHW in scores:
        b, d, h, w = scores_BDHW.shape
        classes, n = d // anchors, h * w * anchors
        symbolic = isinstance(n, torch.SymInt)
        grid_BACP = scores_BDHW.reshape(b, anchors, classes, h * w)
        best_BN = grid_BACP.amax(2).transpose(1, 2).reshape(b, n)
        best_BK, box_BK = topk_padded(best_BN, k if symbolic else min(k, n), -torch.inf)
        cell_BK, anchor_BK = box_BK // anchors, box_BK % anchors
        class_C = torch.arange(classes, device=box_BK.device)
        place_BKC = (anchor_BK[..., None] * classes + class_C) * (h * w) + cell_BK[..., None]
        rows_BKC = grid_BACP.reshape(b, -1).gather(1, place_BKC.flatten(1)).view_as(place_BKC)
        rows_BM = rows_BKC.masked_fill(best_BK[..., None] == -torch.inf, -torch.inf).flatten(1)
        top_BM, pair_BM = topk_padded(rows_BM, k if symbolic else min(k, n * classes), -torch.inf)
        values.append(top_BM)
        labels.append(pair_BM % classes)
        indices.append(start + box_BK.gather(1, pair_BM // classes))
        start = start + n
    return torch.cat(values, 1), torch.cat(labels, 1), torch.cat(indices, 1)


def top_k(
    logits_BNC: Tensor,
    boxes_BN4: Tensor,
    *,
    keep: int,
    score: float,
    activation: str,
    background: bool = False,
    best_class: bool = False,
) -> dict[str, Tensor]:
    """`TopK`: the `keep` best pairs of box and class, without suppression.

    Args:
        logits_BNC: one column a class, and with `background` one more. boxes_BN4: a box for each row.
        best_class: only the best class of each box takes part.

    Returns:
        Detections; `valid` where the score is above `score`.
    """
    scores_BNC = activate(logits_BNC, activation)
    if background:
        scores_BNC = scores_BNC[..., :-1]
    if best_class:
        best_BN, label_BN = scores_BNC.max(-1)
        top_BK, row_BK = topk_padded(best_BN, keep, -torch.inf)
        pair_BK = row_BK * scores_BNC.shape[-1] + label_BN.gather(1, row_BK)
    else:
        top_BK, pair_BK = topk_padded(scores_BNC.flatten(1), keep, -torch.inf)
    classes = scores_BNC.shape[-1]
    valid_BK = top_BK > score
    return {
        "boxes": take_rows(boxes_BN4, pair_BK // classes) * valid_BK[..., None],
        "scores": torch.where(valid_BK, top_BK, 0.0),
        "labels": (pair_BK % classes) * valid_BK,
        "valid": valid_BK,
    }
