"""Non-maximum suppression in pure torch: oracle and fallback of ``detc::batched_nms`` and ``detc::nms``.

B images, N boxes, C classes, M candidates, K kept.
"""

from __future__ import annotations

import torch
from torch import Tensor

from detc.nativeops.reference.boxes import pairwise_iou as straight_iou
from detc.nativeops.reference.rotated_box import pairwise_rotated_iou

_BLOCK = 1024


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
        groups = torch.zeros_like(classes) if class_agnostic else classes
        by_index = torch.argsort(candidates)
        if method == "hard":
            kept = greedy_keep(boxes, groups, iou_threshold, keep)
            scores = flat[candidates].where(kept, -torch.inf)
        else:
            scores = _rescore(
                boxes, flat[candidates], by_index, groups, iou_threshold, method, sigma, min_score
            )
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
    groups: Tensor,
    iou_threshold: float,
    method: str,
    sigma: float,
    min_score: float,
) -> Tensor:
    """Scores after soft or matrix suppression. Boxes come by descending score; ``by_index`` orders them by
    candidate."""
    same = groups[:, None] == groups
    iou = pairwise_iou(boxes, boxes).nan_to_num(0.0, posinf=0.0, neginf=0.0) * same
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


def pairwise_iou(a: Tensor, b: Tensor) -> Tensor:
    """IoU of every pair of boxes ``[N, 4]`` and ``[M, 4]``, or rotated boxes ``[N, 5]``: ``[N, M]``."""
    return (pairwise_rotated_iou if a.shape[-1] == 5 else straight_iou)(a, b)


def greedy_keep(boxes: Tensor, groups: Tensor, iou_threshold: float, most: int) -> Tensor:
    """Which boxes ``[N, 4]`` greedy suppression keeps, bool ``[N]``: each, in order, unless a kept one before it of
    its group overlaps it by more than the threshold. After ``most`` (or a few more) the rest is not looked at.

    Boxes are taken in blocks, so that memory does not grow with their square.
    """
    kept = torch.zeros(len(boxes), dtype=torch.bool, device=boxes.device)
    for start in range(0, len(boxes), _BLOCK):
        block = slice(start, start + _BLOCK)
        before = kept.nonzero().squeeze(1)
        if len(before) >= most:
            break
        gone = _removes(boxes[before], groups[before], boxes[block], groups[block], iou_threshold).any(0)
        own = _removes(boxes[block], groups[block], boxes[block], groups[block], iou_threshold)
        kept[block] = _settled(own.triu(1), ~gone)
    return kept


def _removes(a: Tensor, groups_a: Tensor, b: Tensor, groups_b: Tensor, iou_threshold: float) -> Tensor:
    """Whether box i of ``a``, if kept, removes box j of ``b``: bool ``[N, M]``."""
    return (pairwise_iou(a, b).double() > iou_threshold) & (groups_a[:, None] == groups_b)


def _settled(earlier: Tensor, alive: Tensor) -> Tensor:
    """Which of the boxes ``alive`` stay, given ``earlier[i, j]``: box i, if kept, removes the later box j.

    The kept set is the one fixed point of "kept unless a kept earlier box removes it"; every sweep settles at
    least one more box.
    """
    kept = alive
    while True:
        swept = alive & ~(earlier & kept[:, None]).any(0)
        if torch.equal(swept, kept):
            return kept
        kept = swept


def nms(boxes_N4: Tensor, scores_N: Tensor, iou_threshold: float) -> Tensor:
    """See ``detc.nativeops.ops.nms``."""
    compute = torch.float64 if boxes_N4.dtype == torch.float64 else torch.float32
    order = torch.sort(scores_N.to(compute), descending=True, stable=True).indices
    boxes = boxes_N4[order].to(compute)
    return order[greedy_keep(boxes, torch.zeros_like(order), iou_threshold, len(boxes))]
