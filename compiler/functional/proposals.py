"""The region proposal network's selection (Ren et al., 2015), with a fixed capacity.

Shape legend: B images, N anchors, M candidates of all levels, K proposals.
"""

from __future__ import annotations

import torch
from torch import Tensor

from detc.compiler.functional.boxes import clip_boxes, decode_deltas, large_enough
from detc.compiler.functional.sample import take_rows, topk_padded
from detc.nativeops import ops


def select_proposals(
    anchors_N4: Tensor,
    logits: list[Tensor],
    deltas: list[Tensor],
    image: dict[str, Tensor],
    *,
    before: int,
    keep: int,
    iou: float,
    min_size: float,
    std: list[float],
) -> dict[str, Tensor]:
    """`Proposals`: the best `before` anchors of each level, decoded, clipped, thinned out level by level.

    Args:
        anchors_N4: of all levels, in the order of the maps' rows, columns and anchors.
        logits: maps [B, A, H, W], one score for an anchor.
        deltas: maps [B, 4 A, H, W].
        image: its `size` [B, 2] limits the boxes.

    Returns:
        `boxes` [B, keep, 4], `scores` [B, keep] (sigmoid), `valid` [B, keep], by descending score, without
        history.
    """
    boxes, scores, levels = [], [], []
    start = 0
    for level, (logits_BAHW, deltas_BDHW) in enumerate(zip(logits, deltas, strict=True)):
        b, a, h, w = logits_BAHW.shape
        n = a * h * w
        score_BN = logits_BAHW.detach().permute(0, 2, 3, 1).reshape(b, n)
        k = before if isinstance(n, torch.SymInt) else min(before, n)
        top_BM, index_BM = topk_padded(score_BN, k, -torch.inf)
        rows_BN4 = deltas_BDHW.detach().permute(0, 2, 3, 1).reshape(b, n, 4)
        chosen_BM4 = anchors_N4[start : start + n][index_BM]
        boxes.append(decode_deltas(chosen_BM4, take_rows(rows_BN4, index_BM), std))
        scores.append(top_BM.float())
        levels.append(torch.full_like(index_BM, level))
        start = start + n
    boxes_BM4, scores_BM = clip_boxes(torch.cat(boxes, 1), image["size"]), torch.cat(scores, 1)
    candidate_BM = large_enough(boxes_BM4, min_size) & (scores_BM > -torch.inf)
    found = ops.batched_nms(
        boxes_BM4.float(),
        scores_BM.sigmoid(),
        valid=candidate_BM,
        labels=torch.cat(levels, 1),
        iou_threshold=iou,
        keep=keep,
    )
    return {"boxes": found.boxes, "scores": found.scores, "valid": found.valid}
