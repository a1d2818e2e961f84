"""Set prediction: matching queries and padded truth, refining boxes, choosing queries.

Shape legend: B images, N queries, G truths, S positions of all levels, K chosen rows, C classes or channels.
Boxes are (center x, center y, width, height) in fractions of the image's content unless called xyxy.
"""

from __future__ import annotations

import torch
from torch import Tensor

from detc.compiler.functional.boxes import clip_boxes
from detc.compiler.functional.sample import BACKGROUND, take_rows, topk_padded
from detc.nativeops import ops

TINY = 1e-8  # in logarithms of probabilities, as in the reference implementation of Deformable DETR


def corners(boxes: Tensor) -> Tensor:
    """Centers and sizes [..., 4] as xyxy."""
    center, size = boxes[..., :2], boxes[..., 2:]
    return torch.cat((center - size / 2, center + size / 2), -1)


def to_pixels(boxes_BN4: Tensor, image: dict[str, Tensor], *, clip: bool = False) -> Tensor:
    """`ToPixels`: xyxy in pixels, float32."""
    size_B2 = image["size"].float()
    boxes_BN4 = corners(boxes_BN4.float()) * size_B2.flip(-1).repeat(1, 2)[:, None]
    return clip_boxes(boxes_BN4, size_B2) if clip else boxes_BN4


def to_fractions(xyxy_BG4: Tensor, image: dict[str, Tensor]) -> Tensor:
    """The inverse of `to_pixels`."""
    low, high = xyxy_BG4[..., :2], xyxy_BG4[..., 2:]
    size_B12 = image["size"].float().flip(-1)[:, None]
    return torch.cat(((low + high) / 2 / size_B12, (high - low) / size_B12), -1)


def inverse_sigmoid(x: Tensor, eps: float) -> Tensor:
    """log(x / (1 - x)), both sides of the quotient at least `eps`."""
    x = x.clamp(0, 1)
    return torch.log(x.clamp(min=eps) / (1 - x).clamp(min=eps))


def refine(delta_BN4: Tensor, reference: Tensor, *, eps: float) -> Tensor:
    """`Refine`: sigmoid(delta + logit(reference)) in float32; a reference of 2 numbers moves only the center."""
    delta_BN4 = delta_BN4.float()
    logit = inverse_sigmoid(reference.float(), eps)
    if reference.shape[-1] == 2:
        return torch.cat((delta_BN4[..., :2] + logit, delta_BN4[..., 2:]), -1).sigmoid()
    return (delta_BN4 + logit).sigmoid()


def targets_of(index_BN: Tensor, truth: dict[str, Tensor], image: dict[str, Tensor]) -> dict[str, Tensor]:
    """The targets of queries that are matched to the truths `index_BN`, negative where to none; see `Hungarian`."""
    matched_BN = index_BN >= 0
    safe_BN = index_BN.clamp(min=0)
    labels_BN = torch.where(matched_BN, truth["labels"].gather(1, safe_BN), BACKGROUND)
    boxes_BN4 = take_rows(truth["boxes"].float(), safe_BN)
    codes = {"values": to_fractions(boxes_BN4, image), "labels": labels_BN}
    return {"labels": labels_BN, "boxes": boxes_BN4, "codes": codes, "positive": matched_BN.float()}  # type: ignore[dict-item]


@torch.no_grad()
def hungarian(
    logits_BNC: Tensor,
    boxes_BN4: Tensor,
    truth: dict[str, Tensor],
    image: dict[str, Tensor],
    *,
    cls: float,
    l1: float,
    giou: float,
    softmax: bool,
    alpha: float,
    gamma: float,
    agnostic: bool,
) -> dict[str, Tensor]:
    """`Hungarian`: targets of each query, see there. The costs are those of DETR and Deformable DETR."""
    if agnostic:
        truth = {**truth, "labels": torch.zeros_like(truth["labels"])}
    wanted_BG4 = to_fractions(truth["boxes"].float(), image)
    boxes_BN4 = boxes_BN4.float()
    cost_BNG = cls * class_cost(logits_BNC.float(), truth["labels"], softmax, alpha, gamma)
    cost_BNG = cost_BNG + l1 * (boxes_BN4[:, :, None] - wanted_BG4[:, None]).abs().sum(-1)
    cost_BNG = cost_BNG - giou * ops.box_iou(corners(boxes_BN4), corners(wanted_BG4), kind="giou")
    found = ops.linear_assignment(cost_BNG, col_valid_BM=truth["valid"])
    return targets_of(found.col_of_row, truth, image)


def class_cost(
    logits_BNC: Tensor, labels_BG: Tensor, softmax: bool, alpha: float = 0.25, gamma: float = 2.0
) -> Tensor:
    """[B, N, G]: minus the probability of each truth's class, or how its focal loss differs from background's."""
    index_BNG = labels_BG[:, None].expand(-1, logits_BNC.shape[1], -1)
    if softmax:
        return -logits_BNC.softmax(-1).gather(2, index_BNG)
    p_BNG = logits_BNC.gather(2, index_BNG).sigmoid()
    negative_BNG = (1 - alpha) * p_BNG**gamma * -(1 - p_BNG + TINY).log()
    positive_BNG = alpha * (1 - p_BNG) ** gamma * -(p_BNG + TINY).log()
    return positive_BNG - negative_BNG


def grid_proposals(levels: list[Tensor], grid: dict[str, Tensor], *, side: float) -> dict[str, Tensor]:
    """`GridProposals`: `boxes` [B, S, 4] around each position, 1 where not `valid` [B, S]."""
    points_BS2 = grid["points"]
    sides = [
        points_BS2.new_full((x.shape[-2] * x.shape[-1],), side * 2.0**level) for level, x in enumerate(levels)
    ]
    side_BS2 = torch.cat(sides)[:, None].expand_as(points_BS2)
    boxes_BS4 = torch.cat((points_BS2, side_BS2), -1)
    inside_BS = ((boxes_BS4 > 0.01) & (boxes_BS4 < 0.99)).all(-1) & grid["valid"]
    return {"boxes": boxes_BS4.masked_fill(~inside_BS[..., None], 1.0), "valid": inside_BS}


def keep_rows(rows_BNC: Tensor, valid_BN: Tensor) -> Tensor:
    """`KeepRows`: 0 where not valid."""
    return rows_BNC.masked_fill(~valid_BN[..., None], 0.0)


def best_rows(scores_BNC: Tensor, *, keep: int, by: str) -> Tensor:
    """`BestRows`: indices [B, keep] of the best rows."""
    score_BN = scores_BNC[..., 0] if by == "first" else scores_BNC.amax(-1)
    return topk_padded(score_BN.detach(), keep, -torch.inf)[1]
