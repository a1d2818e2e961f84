"""Non-maximum suppression in pure torch: oracle and fallback of ``detc::batched_nms`` and ``detc::nms``.

B images, N boxes, C classes, M candidates, K kept.
"""

from __future__ import annotations

import torch
from torch import Tensor

from detc.nativeops.reference.boxes import pairwise_iou as straight_iou
from detc.nativeops.reference.rotated_box import pairwise_rotated_iou


def batched_nms(
    boxes_BN4: Tensor,
    scores_BNC: Tensor,
    labels_BN: Tensor | None,
    iou_threshold: float,
    score_threshold: float,
    keep: int,
    pre_topk: int,
    class_agnostic: bool,
    method: str,
    sigma: float,
    min_score: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """See ``detc.nativeops.ops.batched_nms``; here every argument is required and scores have a class
    axis."""
    B, _, C = scores_BNC.shape
    device, dtype = boxes_BN4.device, boxes_BN4.dtype
    compute = torch.float64 if dtype == torch.float64 else torch.float32
    out = (
        torch.zeros(B, keep, boxes_BN4.shape[-1], dtype=dtype, device=device),
        torch.zeros(B, keep, dtype=dtype, device=device),
        torch.zeros(B, keep, dtype=torch.int64, device=device),
        torch.zeros(B, keep, dtype=torch.int64, device=device),
        torch.zeros(B, keep, dtype=torch.bool, device=device),
    )
    for image in range(B):
        flat = scores_BNC[image].reshape(-1).to(compute)
        candidates = (flat > score_threshold).nonzero().squeeze(1)
        order = torch.sort(flat[candidates], descending=True, stable=True).indices
        candidates = candidates[order[:pre_topk] if pre_topk else order]
        index, classes = candidates // max(C, 1), candidates % max(C, 1)
        if labels_BN is not None:
            classes = labels_BN[image][index]
        boxes = boxes_BN4[image][index].to(compute)
        same = torch.ones_like(classes[:, None] == classes) if class_agnostic else classes[:, None] == classes
        by_index = torch.argsort(candidates)
        scores = _rescore(boxes, flat[candidates], by_index, same, iou_threshold, method, sigma, min_score)
        floor = score_threshold if method == "hard" else min_score
        # By score, ties by candidate index: the second sort is stable over the first.
        ranked = by_index[torch.sort(scores[by_index], descending=True, stable=True).indices]
        ranked = ranked[scores[ranked] > floor][:keep]
        count = ranked.numel()
        for target, value in zip(
            out,
            (boxes_BN4[image][index[ranked]], scores[ranked], classes[ranked], index[ranked], True),
            strict=True,
        ):
            target[image, :count] = value  # type: ignore[assignment]
    return out


def _rescore(
    boxes: Tensor,
    scores: Tensor,
    by_index: Tensor,
    same: Tensor,
    iou_threshold: float,
    method: str,
    sigma: float,
    min_score: float,
) -> Tensor:
    """Scores after suppression; -inf where a box is gone. Boxes come by descending score; ``by_index`` orders
    them by candidate."""
    iou = pairwise_iou(boxes)
    if method == "hard":
        return scores.where(greedy_keep((iou.double() > iou_threshold) & same), -torch.inf)
    iou = iou.nan_to_num(0.0, posinf=0.0, neginf=0.0) * same
    if method.startswith("soft"):
        decayed = torch.empty_like(scores)
        decayed[by_index] = _soft(
            scores[by_index], iou[by_index][:, by_index], iou_threshold, method, sigma, min_score
        )
        return decayed
    iou = iou.clamp(min=0).triu(1)
    worst = iou.amax(0, keepdim=True).T if iou.numel() else iou
    if method == "matrix_linear":
        ratio = (1 - iou) / (1 - worst).clamp(min=1e-6)
    else:
        ratio = torch.exp(-sigma * (iou**2 - worst**2))
    ratio = torch.where(iou > 0, ratio, 1.0)
    return scores * (ratio.amin(0).clamp(max=1) if iou.numel() else scores)


def _soft(
    scores: Tensor, iou: Tensor, iou_threshold: float, method: str, sigma: float, min_score: float
) -> Tensor:
    # The first of equal scores is taken, so candidates come in the order of their index.
    scores, final = scores.clone(), torch.full_like(scores, -torch.inf)
    taken = torch.zeros_like(scores, dtype=torch.bool)
    decay = (
        torch.where(iou.double() > iou_threshold, 1 - iou, 1.0)
        if method == "soft_linear"
        else torch.exp(-(iou**2) / sigma)
    )
    for _ in range(scores.numel()):
        top = scores.argmax()
        if not scores[top] > min_score:
            break
        final[top] = scores[top]
        taken[top] = True
        # not a product with -inf: a decay of 0 would make it NaN
        scores = (scores * decay[top]).masked_fill(taken, -torch.inf)
    return final


def pairwise_iou(boxes: Tensor) -> Tensor:
    """IoU of every pair of boxes ``[N, 4]``, or rotated boxes ``[N, 5]``: ``[N, N]``."""
    return (pairwise_rotated_iou if boxes.shape[-1] == 5 else straight_iou)(boxes, boxes)


def greedy_keep(suppresses: Tensor) -> Tensor:
    """Which boxes greedy suppression keeps, given ``suppresses[i, j]``: box i, if kept, removes the later box
    j.

    The kept set is the one fixed point of "kept unless a kept earlier box removes it"; every sweep settles at
    least one more box.
    """
    earlier = suppresses.triu(1)
    kept = torch.ones(len(earlier), dtype=torch.bool, device=earlier.device)
    while True:
        swept = ~(earlier & kept[:, None]).any(0)
        if torch.equal(swept, kept):
            return kept
        kept = swept


def nms(boxes_N4: Tensor, scores_N: Tensor, iou_threshold: float) -> Tensor:
    """See ``detc.nativeops.ops.nms``."""
    compute = torch.float64 if boxes_N4.dtype == torch.float64 else torch.float32
    order = torch.sort(scores_N.to(compute), descending=True, stable=True).indices
    boxes = boxes_N4[order].to(compute)
    return order[greedy_keep(pairwise_iou(boxes).double() > iou_threshold)]
