"""Paste box-sized masks into the image in plain torch.

Bilinear interpolation with zeros outside of the mask is separable, so a paste is two small matrix products
with "hat" weights: no gather, no grid_sample, and the same two MatMuls make the ONNX body.

Shape legend: N masks, m = mask height, k = mask width, H and W of the image.
"""

from __future__ import annotations

import torch

# Masks hold probabilities or logits; an infinite logit must survive a product with a weight of zero.
LARGE = 1e30


def _axis(
    low_N: torch.Tensor, high_N: torch.Tensor, image_size: int, mask_size: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """One axis: weights ``[N, image_size, mask_size]`` and covered pixels ``[N, image_size]``."""
    pixels = torch.arange(image_size, device=low_N.device, dtype=low_N.dtype) + 0.5
    extent_N = high_N - low_N
    # Written so that NaN fails the test: a box with a NaN or infinite edge pastes nothing.
    usable_N = (extent_N > 0) & (extent_N < float("inf")) & (mask_size / extent_N < float("inf"))
    scale_N = mask_size / torch.where(usable_N, extent_N, 1.0)
    low_N = torch.where(usable_N, low_N, 0.0)
    position_NI = (pixels - low_N[:, None]) * scale_N[:, None] - 0.5
    taps = torch.arange(mask_size, device=low_N.device, dtype=low_N.dtype)
    weights = (1 - (position_NI[:, :, None] - taps).abs()).clamp_min(0)
    covered = (pixels >= low_N[:, None]) & (pixels < high_N[:, None]) & usable_N[:, None]
    return weights, covered


def mask_paste(
    masks_Nmk: torch.Tensor, boxes_N4: torch.Tensor, height: int, width: int, threshold: float = 0.5
) -> torch.Tensor:
    """Bitmaps ``[N, H, W]`` (bool): the mask stretched over its box, then ``>= threshold``.

    Args:
        masks_Nmk: mask probabilities (or logits, with a threshold of 0), one ``m x k`` grid a box. NaN
            counts as 0, infinities as +-1e30.
        boxes_N4: x1, y1, x2, y2 in pixels of the image. Boxes without positive extent, or with a NaN or
            infinite edge, paste an empty mask.
        height, width: of the image.
        threshold: pixels whose centre lies in the box are set when the interpolated value reaches it; other
            pixels are never set, whatever the threshold.

    The interpolation is ``grid_sample(align_corners=False, padding_mode="zeros")``, as in Detectron2's and
    MMDetection's paste, to which a threshold of at least 0.5 is equal (a lower one they may also reach up to half a
    cell beyond the box); torchvision instead rounds the box to whole pixels first.
    """
    dtype = torch.float64 if masks_Nmk.dtype == torch.float64 else torch.float32
    masks = torch.nan_to_num(masks_Nmk.to(dtype), nan=0.0, posinf=LARGE, neginf=-LARGE)
    x1, y1, x2, y2 = boxes_N4.to(dtype).unbind(1)
    rows, inside_rows = _axis(y1, y2, height, masks.shape[1])
    cols, inside_cols = _axis(x1, x2, width, masks.shape[2])
    soft = rows @ masks @ cols.transpose(1, 2)
    return (soft >= threshold) & inside_rows[:, :, None] & inside_cols[:, None, :]
