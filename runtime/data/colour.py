"""Colour changes on uint8 tensors [3, H, W], RGB, written for few passes over memory."""

from __future__ import annotations

import torch


def shift_hsv(image: torch.Tensor, hue: float, saturation: float, value: float) -> torch.Tensor:
    """Add to hue (degrees), saturation and value (0..255 each), as YOLOX's augmentation does.

    The result is computed without converting to HSV: with maximum M, minimum m of a pixel and its position
    w = (M - x) / (M - m) of each channel below the maximum, the new pixel is V' - C' w', where V' and C' are
    the new value and chroma, and w' is w turned by the hue.
    """
    x = image.contiguous().float()
    r, g, b = x
    top = torch.maximum(torch.maximum(r, g), b)
    chroma = top - torch.minimum(torch.minimum(r, g), b)
    grey = chroma == 0
    w = (top - x) / chroma.masked_fill(grey, 1.0)
    new_top = (top + value).clamp_(0, 255) if value else top
    new_saturation = (chroma * 255).div_(top.clamp(min=1.0))
    if saturation:
        # a pixel without colour has no hue to saturate: OpenCV would turn it reddish, here it stays grey
        new_saturation = new_saturation.add_(saturation).clamp_(0, 255).masked_fill_(grey, 0.0)
    if hue:
        w = _turn(w, hue)
    out = new_top - (new_saturation * new_top).div_(255) * w
    return out.round_().clamp_(0, 255).to(torch.uint8)


def turn_hsv(image: torch.Tensor, hue: float, factor: float) -> torch.Tensor:
    """Add `hue` (degrees) and multiply the saturation by `factor`."""
    x = image.contiguous().float()
    r, g, b = x
    top = torch.maximum(torch.maximum(r, g), b)
    chroma = top - torch.minimum(torch.minimum(r, g), b)
    w = (top - x) / chroma.masked_fill(chroma == 0, 1.0)
    if hue:
        w = _turn(w, hue)
    out = top - torch.minimum(chroma * factor, top) * w
    return out.round_().clamp_(0, 255).to(torch.uint8)


def _turn(w: torch.Tensor, degrees: float) -> torch.Tensor:
    """Turn the positions [3, H, W] of RGB below the maximum around the colour circle."""
    r, g, b = w
    # hue in sixths of the circle: red 0, green 2, blue 4
    h = torch.where(r == 0, b - g, torch.where(g == 0, 2 + r - b, 4 + g - r))
    h = h + degrees / 60.0
    out = torch.empty_like(w)
    for channel, centre in enumerate((0.0, 2.0, 4.0)):
        distance = (h - centre).remainder_(6.0)
        torch.minimum(distance, 6.0 - distance, out=distance)  # 0 at the channel's own hue, 3 opposite
        out[channel] = distance.sub_(1.0).clamp_(0, 1)
    return out


def brightness(image: torch.Tensor, factor: float) -> torch.Tensor:
    """Multiply by `factor`."""
    return _affine(image, factor, 0.0)


def offset(image: torch.Tensor, amount: float) -> torch.Tensor:
    """Add `amount` (0..255) to every channel."""
    return _affine(image, 1.0, amount)


def scale(image: torch.Tensor, factor: float) -> torch.Tensor:
    """Multiply around zero, as SSD's contrast does."""
    return _affine(image, factor, 0.0)


def contrast(image: torch.Tensor, factor: float) -> torch.Tensor:
    """Blend with the image's mean grey value (torchvision's definition)."""
    mean = float(luminance(image).floor_().mean())
    return _affine(image, factor, (1 - factor) * mean)


def saturation(image: torch.Tensor, factor: float) -> torch.Tensor:
    """Blend with the image's grey version (torchvision's definition)."""
    grey = luminance(image).floor_()
    out = torch.lerp(grey.expand(3, -1, -1), image.contiguous().float(), factor)
    return out.clamp_(0, 255).to(torch.uint8)


def luminance(image: torch.Tensor) -> torch.Tensor:
    """ITU-R 601-2 luma, float [1, H, W]."""
    r, g, b = image.contiguous().float()
    return (0.2989 * r).add_(g, alpha=0.587).add_(b, alpha=0.114)[None]


def _affine(image: torch.Tensor, factor: float, add: float) -> torch.Tensor:
    """`factor * x + add`, by a table of 256 entries."""
    table = (torch.arange(256, dtype=torch.float32) * factor + add).clamp_(0, 255).to(torch.uint8)
    return table[image.contiguous().int()]
