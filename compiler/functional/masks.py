"""Masks of objects: what a region should become, which class of it counts, the loss, the way to the image.

Shape legend: B images, G truths, K regions or detections, C classes, m side of a region's mask, h and w of a
mask over the whole input, H and W of an image.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from detc.compiler.functional.normaliser import normaliser
from detc.nativeops import ops


def fold_regions(x_BKCHW: Tensor) -> Tensor:
    """`FoldRegions`: [B, K, C, H, W] as maps [B K, C, H, W]."""
    return x_BKCHW.flatten(0, 1)


def unfold_regions(x_NCHW: Tensor, like_BK: Tensor) -> Tensor:
    """`UnfoldRegions`: maps [B K, C, H, W] as [B, K, C, H, W], B and K those of `like_BK` [B, K, ...]."""
    return x_NCHW.unflatten(0, (like_BK.shape[0], like_BK.shape[1]))


def mask_targets(
    rois: Any, index_BK: Tensor, masks_BGHW: Tensor, *, size: int, aligned: bool, threshold: float | None
) -> Tensor:
    """`MaskTargets`: the part of its truth's mask that each region sees, by RoIAlign.

    Args:
        rois: [B, K, 4] in pixels of the masks, or proposals.
        index_BK: int64, the truth of each region; below 0 there is none, and the target is 0.
        masks_BGHW: bool.

    Returns:
        float32 [B, K, size, size]: 0 or 1 with a threshold, else the covered share.
    """
    boxes_BK4 = rois["boxes"] if isinstance(rois, dict) else rois
    b, g = masks_BGHW.shape[:2]
    image_B1 = torch.arange(b, device=index_BK.device)[:, None]
    # RoIAlign gives zeros for a region of no image
    source_BK = torch.where(index_BK >= 0, image_B1 * g + index_BK, -1)
    rois_N5 = torch.cat((source_BK[..., None].float(), boxes_BK4.detach().float()), -1).flatten(0, 1)
    seen_N1mm = ops.roi_align(masks_BGHW.flatten(0, 1)[:, None].float(), rois_N5, size, 1.0, 0, aligned)
    seen_BKmm = seen_N1mm.view(*index_BK.shape, size, size)
    return seen_BKmm if threshold is None else (seen_BKmm >= threshold).float()


def class_masks(masks_BKCmm: Tensor, labels_BK: Tensor) -> Tensor:
    """`ClassMasks`: of each region's masks the one of its class; [B, K, m, m].

    Args:
        masks_BKCmm: one a class, or one for all (C = 1).
        labels_BK: int64; below 0 the first is taken.
    """
    if masks_BKCmm.shape[2] == 1:
        return masks_BKCmm.squeeze(2)
    index = labels_BK.clamp(min=0)[:, :, None, None, None].expand(-1, -1, 1, *masks_BKCmm.shape[3:])
    return masks_BKCmm.gather(2, index).squeeze(2)


def mask_bce(logits_BKCmm: Tensor, target_BKmm: Tensor, labels_BK: Tensor) -> Tensor:
    """`MaskBCE`: binary cross entropy at the class of the label, the mean over pixels of labelled regions."""
    logits_BKmm = class_masks(logits_BKCmm, labels_BK).float()
    loss_BK = F.binary_cross_entropy_with_logits(logits_BKmm, target_BKmm.float(), reduction="none").mean(
        (-2, -1)
    )
    counted_BK = labels_BK >= 0
    return torch.where(counted_BK, loss_BK, 0.0).sum() / normaliser(counted_BK.sum(), 1)


def with_masks(found: dict[str, Tensor], masks: Tensor, *, over: str) -> dict[str, Tensor]:
    """`WithMasks`: detections that carry masks, float32; 0 in slots that are not filled. Row numbers go."""
    masks = torch.where(found["valid"][:, :, None, None], masks.float(), 0.0)
    found = {name: value for name, value in found.items() if name != "index"}
    return {**found, "box_masks" if over == "box" else "masks": masks}


def paste_masks(
    masks_BKmm: Tensor, boxes_BK4: Tensor, height: int, width: int, threshold: float = 0.5
) -> Tensor:
    """Masks stretched over their boxes on an image of height x width, bool [B, K, H, W]."""
    flat_NHW = ops.mask_paste(
        masks_BKmm.flatten(0, 1), boxes_BK4.flatten(0, 1), height=height, width=width, threshold=threshold
    )
    return flat_NHW.unflatten(0, (masks_BKmm.shape[0], masks_BKmm.shape[1]))


def resample_masks(
    masks_BKhw: Tensor,
    canvas: tuple[Any, Any],
    scale: tuple[Any, Any],
    shift: tuple[float, float],
    height: int,
    width: int,
    threshold: float = 0.5,
) -> Tensor:
    """Masks over the network's whole input, on the image of height x width that the input was made from.

    Args:
        masks_BKhw: bool, or probabilities at any resolution; sampled bilinearly, half-pixel centres.
        canvas: (height, width) of the network's input in pixels.
        scale, shift: (vertical, horizontal), from pixels of the image to pixels of the input.

    Returns:
        bool [B, K, H, W].
    """
    # Width first, and along the rows of the transposed: there are fewer of them yet, and rows are copied whole.
    columns = _resampled(masks_BKhw.float().transpose(-1, -2), width, canvas[1], scale[1], shift[1])
    return _resampled(columns.transpose(-1, -2), height, canvas[0], scale[0], shift[0]) >= threshold


def _resampled(x: Tensor, size: int, canvas: Any, scale: Any, shift: float) -> Tensor:
    """`x` [..., h, w] at the centres of `size` pixels along h."""
    cells = x.shape[-2]
    pixel = torch.arange(size, device=x.device, dtype=torch.float32) + 0.5
    at = ((pixel * scale + shift) * (cells / canvas) - 0.5).clamp(0, cells - 1)
    low = at.floor().to(torch.int64)
    first, second = x.index_select(-2, low), x.index_select(-2, (low + 1).clamp(max=cells - 1))
    return first + (second - first) * (at - low).view(-1, 1)
