"""RoIPool (arXiv 1504.08083) in pure torch: oracle and fallback of ``detc::roi_pool``.

R rois, C channels, H x W the map, P x Q the output.
"""

from __future__ import annotations

import torch
from torch import Tensor

_CHUNK = 64  # rois at a time


def roi_pool(
    feature: Tensor, rois_R5: Tensor, scale: float, height: int, width: int
) -> tuple[Tensor, Tensor]:
    """See ``detc.nativeops.ops.roi_pool``: the output and, for the backward, the offset of each maximum in
    its plane (-1: none)."""
    B, C, H, W = feature.shape
    out = feature.new_zeros(len(rois_R5), C, height, width)
    argmax = torch.full(out.shape, -1, dtype=torch.int64, device=feature.device)
    usable = rois_R5.isfinite().all(1) & (rois_R5[:, 0] >= 0) & (rois_R5[:, 0] < B)
    if not H * W:
        return out, argmax
    for part in usable.nonzero().squeeze(1).split(_CHUNK):
        pixels = rois_R5[part, 1:] * scale
        pixels = torch.where(pixels < 0, -(-pixels + 0.5).floor(), (pixels + 0.5).floor()).clamp(
            -1e9, 1e9
        )  # halves away from zero
        planes = feature[rois_R5[part, 0].long()]
        columns = _bins(pixels[:, 0], pixels[:, 2], width, W)
        rows = _bins(pixels[:, 1], pixels[:, 3], height, H)
        for p in range(height):
            for q in range(width):
                inside = (rows[:, p, :, None] & columns[:, q, None, :])[:, None] & ~planes.isnan()
                flat = planes.masked_fill(~inside, -torch.inf).flatten(2)
                # A bin of -inf alone still has a maximum: look for the first pixel inside that equals it.
                best = flat.amax(2, keepdim=True)
                where = ((flat == best) & inside.flatten(2)).float().argmax(2)
                found = inside.flatten(2).any(2)
                out[part, :, p, q] = torch.where(found, best.squeeze(2), 0.0)
                argmax[part, :, p, q] = torch.where(found, where, -1)
    return out, argmax


def _bins(first: Tensor, last: Tensor, bins: int, size: int) -> Tensor:
    """Which pixels belong to each bin: bool ``[R, bins, size]``."""
    step = (last - first + 1).clamp(min=1) / bins
    number = torch.arange(bins, device=first.device, dtype=first.dtype)
    begin = (number * step[:, None]).floor() + first[:, None]
    end = ((number + 1) * step[:, None]).ceil() + first[:, None]
    pixel = torch.arange(size, device=first.device, dtype=first.dtype)
    return (pixel >= begin[..., None]) & (pixel < end[..., None])


def roi_pool_backward(grad: Tensor, feature: Tensor, rois_R5: Tensor, argmax: Tensor, scale: float) -> Tensor:
    """Gradient of the feature; ``feature`` is there for its shape."""
    B, C, H, W = feature.shape
    wide = torch.float64 if grad.dtype == torch.float64 else torch.float32
    out = torch.zeros(B, C, H * W, dtype=wide, device=grad.device)
    if out.numel() == 0:
        return feature.new_zeros(feature.shape)
    found = argmax >= 0
    usable = rois_R5.isfinite().all(1) & (rois_R5[:, 0] >= 0) & (rois_R5[:, 0] < B)
    image = rois_R5[:, 0].where(usable, 0.0).long()[:, None, None, None].expand_as(argmax)
    channel = torch.arange(C, device=grad.device)[None, :, None, None].expand_as(argmax)
    values = grad.to(wide).where(found, 0.0)
    out.index_put_((image, channel, argmax.clamp(min=0)), values, accumulate=True)
    return out.reshape(B, C, H, W).to(grad.dtype)
