"""Normalisation of images.

Shape legend: B images, C channels, H height, W width.
"""

from __future__ import annotations

import torch
from torch import Tensor


def normalize(
    image: dict[str, Tensor], mean: list[float], std: list[float], swap: bool = False, mask: bool = True
) -> dict[str, Tensor]:
    """Normalise `image["pixels"]` [B, C, H, W] (RGB, 0..255), see `compiler.ops.image.Normalize`.

    Returns the image with the new pixels and the same `size` [B, 2] (height, width of the content).
    """
    pixels_BCHW = image["pixels"]
    if swap:
        pixels_BCHW = pixels_BCHW.flip(1)
    mean_C11 = torch.tensor(mean, device=pixels_BCHW.device, dtype=pixels_BCHW.dtype)[:, None, None]
    std_C11 = torch.tensor(std, device=pixels_BCHW.device, dtype=pixels_BCHW.dtype)[:, None, None]
    normal_BCHW = (pixels_BCHW - mean_C11) / std_C11
    if mask:
        normal_BCHW = normal_BCHW * content_mask(image)
    return {**image, "pixels": normal_BCHW}


def content_mask(image: dict[str, Tensor]) -> Tensor:
    """1 where there is image, 0 where there is padding: [B, 1, H, W], of the pixels' dtype."""
    pixels_BCHW, size_B2 = image["pixels"], image["size"]
    height, width = pixels_BCHW.shape[-2:]
    rows_H = torch.arange(height, device=pixels_BCHW.device)
    columns_W = torch.arange(width, device=pixels_BCHW.device)
    inside_BH = rows_H < size_B2[:, :1]
    inside_BW = columns_W < size_B2[:, 1:]
    return (inside_BH[:, None, :, None] & inside_BW[:, None, None, :]).to(pixels_BCHW.dtype)
