"""``detc::mask_paste``."""

from __future__ import annotations

import torch

from detc.nativeops.ops._common import check, check_device, constant, widest
from detc.nativeops.reference.mask_paste import mask_paste as reference
from detc.nativeops.registry import native_op

_op = native_op(
    "mask_paste(Tensor masks, Tensor boxes, SymInt height, SymInt width, float threshold) -> Tensor",
    reference=reference,
    fake=lambda masks, boxes, height, width, threshold: masks.new_empty(
        (masks.shape[0], height, width), dtype=torch.bool
    ),
)


def mask_paste(
    masks_Nmk: torch.Tensor,
    boxes_N4: torch.Tensor,
    *,
    height: int,
    width: int,
    threshold: float = 0.5,
) -> torch.Tensor:
    """Bitmaps ``[N, H, W]`` (bool): each mask stretched over its box, then ``>= threshold``.

    Args:
        masks_Nmk: mask probabilities (or logits, with a threshold of 0). NaN counts as 0, infinities as
            +-1e30.
        boxes_N4: x1, y1, x2, y2 in pixels of the image. Boxes without positive extent, or with a NaN or
            infinite edge, paste an empty mask.
        height, width: of the image; symbolic ones in graphs of dynamic size.
        threshold: pixels whose centre lies in the box are set when the bilinear value (zeros outside of the
            mask) reaches it; other pixels are never set.

    Not differentiable. The interpolation is that of Detectron2's and MMDetection's paste.

    Raises:
        ValueError: shapes or devices that do not fit, a negative size. TypeError: no floating-point numbers.
    """
    check("mask_paste", "masks", masks_Nmk, "[N, m, k]")
    if boxes_N4.dim() != 2 or boxes_N4.shape[1] != 4 or boxes_N4.shape[0] != masks_Nmk.shape[0]:
        raise ValueError(
            f"mask_paste: boxes must be [N, 4] for masks {tuple(masks_Nmk.shape)}, got {tuple(boxes_N4.shape)}"
        )
    if height < 0 or width < 0:
        raise ValueError(f"mask_paste: the image's size must not be negative: {height} x {width}")
    check_device("mask_paste", masks_Nmk, boxes_N4)
    wide = widest(masks_Nmk, boxes_N4)
    return _op(constant(masks_Nmk, wide), constant(boxes_N4, wide), height, width, float(threshold))
