"""Plain tensor work behind ops of the same names.

Shape legend: B images, C channels, H height, W width, N points or boxes.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def subsample(x_BCHW: Tensor, stride: int) -> Tensor:
    """Every `stride`-th pixel, beginning with the first."""
    return x_BCHW[:, :, ::stride, ::stride]


def resize_like(x_BChw: Tensor, like_BDHW: Tensor, mode: str = "nearest") -> Tensor:
    """`x` at the height and width of `like`."""
    size = like_BDHW.shape[-2:]
    if mode == "nearest":
        return F.interpolate(x_BChw, size=size, mode="nearest")
    return F.interpolate(x_BChw, size=size, mode=mode, align_corners=False)


def aligned_upsample(x_BChw: Tensor, factor: int) -> Tensor:
    """`x` enlarged by `factor`: bilinear, output j at (j - factor // 2) / factor, borders repeated.

    The "aligned bilinear" of CondInst (Tian et al., 2020): positions are counted from pixel corners, as the
    points of its levels are.
    """
    if factor == 1:
        return x_BChw
    h, w = x_BChw.shape[-2:]
    wide = _bordered(x_BChw, 0, 1)
    wide = F.interpolate(wide, size=(factor * h + 1, factor * w + 1), mode="bilinear", align_corners=True)
    return _bordered(wide, factor // 2, 0)[:, :, : factor * h, : factor * w]


def _bordered(x_BChw: Tensor, before: int, after: int) -> Tensor:
    """`x` with its borders repeated, as `F.pad(mode="replicate")` does, whose compiled gradient torch 2.15 mistakes
    the strides of.
    """
    for dim in (-2, -1):
        last = x_BChw.shape[dim] - 1
        x_BChw = torch.cat(
            (*[x_BChw.narrow(dim, 0, 1)] * before, x_BChw, *[x_BChw.narrow(dim, last, 1)] * after), dim
        )
    return x_BChw


def concat(*inputs: Tensor, dim: int = 1) -> Tensor:
    """The inputs one after the other along `dim`."""
    return torch.cat(inputs, dim)


def detach(x: Tensor | list[Tensor]) -> Tensor | list[Tensor]:
    """`x` without its history."""
    return [level.detach() for level in x] if isinstance(x, list) else x.detach()


def zeros(like: Tensor, *, shape: list[int], dtype: str) -> Tensor:
    """Zeros [B, *shape] for the batch of `like`, on its device."""
    return torch.zeros((like.shape[0], *shape), dtype=getattr(torch, dtype), device=like.device)
