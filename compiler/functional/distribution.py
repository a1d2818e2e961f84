"""Distances as distributions; see `compiler.ops.distribution`.

Shape legend: B images, N points of all levels, C classes, D = bins + 1 whole distances in strides.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from detc.compiler.functional.normaliser import normaliser
from detc.compiler.functional.points import flat


def distance_mean(sides: list[Tensor], *, bins: int) -> list[Tensor]:
    """Maps [B, 4 D, H, W] to maps [B, 4, H, W] of expected distances (Li et al., 2020, equation 4)."""
    found = []
    for side_BCHW in sides:
        b, _, h, w = side_BCHW.shape
        p_B4DHW = side_BCHW.float().view(b, 4, bins + 1, h, w).softmax(2)
        at_D = torch.arange(bins + 1, device=side_BCHW.device, dtype=torch.float32)
        found.append((p_B4DHW * at_D[:, None, None]).sum(2))
    return found


def distance_encode(points: dict[str, Tensor], boxes_BN4: Tensor, *, bins: int) -> Tensor:
    """Distances [B, N, 4] from points to the sides of boxes, in strides, limited to 0 .. bins."""
    xy_N2, stride_N1 = points["xy"], points["stride"][:, None]
    ltrb_BN4 = torch.cat((xy_N2 - boxes_BN4[..., :2], boxes_BN4[..., 2:] - xy_N2), -1)
    return (ltrb_BN4 / stride_N1).clamp(0, bins - 0.1)


def overlap(a_BN4: Tensor, b_BN4: Tensor) -> Tensor:
    """The overlap [B, N] of boxes, row by row; 0 where both are empty."""
    size = (
        torch.minimum(a_BN4[..., 2:], b_BN4[..., 2:]) - torch.maximum(a_BN4[..., :2], b_BN4[..., :2])
    ).clamp(min=0)
    common = size[..., 0] * size[..., 1]
    areas = [(x[..., 2:] - x[..., :2]).clamp(min=0).prod(-1) for x in (a_BN4, b_BN4)]
    return common / (areas[0] + areas[1] - common).clamp(min=1e-6)


def quality_target(labels_BN: Tensor, boxes_BN4: Tensor, target_BN4: Tensor, *, classes: int) -> Tensor:
    """The overlap at the class of each positive row, [B, N, C]; no gradient."""
    iou_BN = overlap(boxes_BN4.detach().float(), target_BN4.float())
    classes_C = torch.arange(classes, device=labels_BN.device)
    return (labels_BN[..., None] == classes_C).float() * iou_BN[..., None]


def best_score(logits: Tensor | list[Tensor], positive_BN: Tensor) -> Tensor:
    """The best class probability [B, N] where `positive_BN`, else 0; no gradient."""
    width = logits.shape[-1] if isinstance(logits, Tensor) else logits[0].shape[1]
    return flat(logits, width).detach().float().sigmoid().amax(-1) * positive_BN


def distribution_kd(
    student: Tensor | list[Tensor],
    teacher: Tensor | list[Tensor],
    weight_BN: Tensor,
    norm: Tensor | None = None,
    *,
    bins: int,
    tau: float,
    least: float,
) -> Tensor:
    """Weighted relative entropy of the teacher's distances to the student's (Zheng et al., 2022, equation 4)."""
    width = 4 * (bins + 1)
    ours_BN4D = flat(student, width).float().unflatten(-1, (4, bins + 1)) / tau
    theirs_BN4D = flat(teacher, width).detach().float().unflatten(-1, (4, bins + 1)) / tau
    ours, theirs = F.log_softmax(ours_BN4D, -1), F.log_softmax(theirs_BN4D, -1)
    loss_BN = (theirs.exp() * (theirs - ours)).sum(-1).mean(-1) * tau**2
    total = (weight_BN if norm is None else norm).sum()
    return (loss_BN * weight_BN).sum() / normaliser(total, least)
