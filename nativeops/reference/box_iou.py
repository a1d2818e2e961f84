"""``detc::box_iou`` and ``detc::max_iou_assign`` in pure torch: oracle and fallback.

B images, N and M boxes, G truths.
"""

from __future__ import annotations

import torch
from torch import Tensor

from detc.nativeops.reference.boxes import overlap


def box_iou(a_BN4: Tensor, b_BM4: Tensor, kind: str, aligned: bool) -> Tensor:
    """See ``detc.nativeops.ops.box_iou``: ``[B, N, M]``, or ``[B, N]`` when aligned."""
    wide = torch.float64 if a_BN4.dtype == torch.float64 else torch.float32
    a, b = a_BN4.to(wide), b_BM4.to(wide)
    return (overlap(a, b, kind) if aligned else overlap(a[:, :, None], b[:, None], kind)).to(a_BN4.dtype)


def box_iou_backward(
    grad: Tensor, a_BN4: Tensor, b_BM4: Tensor, kind: str, aligned: bool
) -> tuple[Tensor, Tensor]:
    """Gradients of both sides."""
    with torch.enable_grad():
        a, b = a_BN4.detach().requires_grad_(), b_BM4.detach().requires_grad_()
        grads = torch.autograd.grad(box_iou(a, b, kind, aligned), (a, b), grad)
    return grads[0].contiguous(), grads[1].contiguous()


def max_iou_assign(
    boxes: Tensor,
    truths_BG4: Tensor,
    valid_BG: Tensor,
    positive: float,
    negative: float,
    min_positive: float,
    low_quality: str,
) -> tuple[Tensor, Tensor]:
    """See ``detc.nativeops.ops.max_iou_assign``: index ``[B, N]``, iou ``[B, N]``."""
    B, G, _ = truths_BG4.shape
    boxes_BN4 = boxes.expand(B, *boxes.shape[-2:])
    if G == 0:
        return torch.full(boxes_BN4.shape[:2], -1, dtype=torch.int64, device=boxes.device), boxes.new_zeros(
            boxes_BN4.shape[:2]
        )
    wide = torch.float64 if boxes.dtype == torch.float64 else torch.float32
    iou_BNG = (
        overlap(boxes_BN4.to(wide)[:, :, None], truths_BG4.to(wide)[:, None], "iou")
        .nan_to_num(0.0)
        .clamp(min=0)
    )
    iou_BNG = iou_BNG.masked_fill(~valid_BG[:, None, :], -1.0)
    best_BN, own_BN = iou_BNG.max(-1)
    index_BN = torch.where(best_BN >= positive, own_BN, torch.where(best_BN >= negative, -2, -1))
    if low_quality != "none" and boxes_BN4.shape[1] > 0:
        highest_BG = iou_BNG.amax(1)
        claims_BNG = (iou_BNG == highest_BG[:, None]) & (valid_BG & (highest_BG >= min_positive))[:, None]
        rank_G = torch.arange(1, G + 1, device=boxes.device)
        last_BN = (claims_BNG * rank_G).amax(-1) - 1
        index_BN = torch.where(last_BN >= 0, last_BN if low_quality == "truth" else own_BN, index_BN)
    index_BN = torch.where(valid_BG.any(1, keepdim=True), index_BN, -1)
    return index_BN, best_BN.clamp(min=0).to(boxes.dtype)
