"""Masks over the whole image, one for each of K objects, and what their losses compare.

Shape legend: B images, N points, K regions (objects) of an image, G truths, C channels, h x w a feature map,
H x W the input.
"""

from __future__ import annotations

import torch
from torch import Tensor

from detc.compiler.functional.normaliser import normaliser
from detc.compiler.functional.sample import topk_padded


def best_sample(weight_BN: Tensor, *, n: int) -> dict[str, Tensor]:
    """`BestSample`: the `n` rows of largest weight.

    Returns:
        `index` [B, n] int64 into N; `positive` and `valid` [B, n] bool: whether the weight is above 0.
    """
    best_BK, index_BK = topk_padded(weight_BN.detach(), n, 0.0)
    valid_BK = best_BK > 0
    return {"index": index_BK, "positive": valid_BK, "valid": valid_BK}


def repeat_regions(x_BChw: Tensor, like_BK: Tensor) -> Tensor:
    """`RepeatRegions`: [B, C, h, w] as [B K, C, h, w], K times each image; K is that of `like_BK` [B, K, ...]."""
    b, c, h, w = x_BChw.shape
    return x_BChw[:, None].expand(b, like_BK.shape[1], c, h, w).reshape(-1, c, h, w)


def relative_grid(
    x_BChw: Tensor, xy_BK2: Tensor, stride_BK: Tensor, *, step: float, size: float, offset: float
) -> Tensor:
    """`RelativeGrid`: (point - pixel) / (size * stride), [B K, 2, h, w], in the dtype of the map.

    Args:
        x_BChw: only its height and width are read; its pixels are `step` apart.
        xy_BK2: points in pixels of the input. stride_BK: of each point's level.
        size: in strides. offset: of the map's pixels, in cells.
    """
    h, w = x_BChw.shape[-2:]
    y_h1 = ((torch.arange(h, device=x_BChw.device, dtype=torch.float32) + offset) * step)[:, None]
    x_w = (torch.arange(w, device=x_BChw.device, dtype=torch.float32) + offset) * step
    unit_N11 = (stride_BK.float() * size).reshape(-1, 1, 1)
    way_x_Nhw = ((xy_BK2[..., 0].float().reshape(-1, 1, 1) - x_w) / unit_N11).expand(-1, h, w)
    way_y_Nhw = ((xy_BK2[..., 1].float().reshape(-1, 1, 1) - y_h1) / unit_N11).expand(-1, h, w)
    return torch.stack((way_x_Nhw, way_y_Nhw), 1).to(x_BChw.dtype)


def sampled_masks(index_BK: Tensor, masks_BGHW: Tensor, *, stride: int) -> Tensor:
    """`SampledMasks`: each row's truth at every `stride`-th pixel, float32; 0 where the index is below 0."""
    start = stride // 2
    small_BGhw = masks_BGHW[..., start::stride, start::stride]
    h, w = small_BGhw.shape[-2:]
    taken_BKhw = small_BGhw.gather(1, index_BK.clamp(min=0)[..., None, None].expand(-1, -1, h, w))
    return (taken_BKhw & (index_BK >= 0)[..., None, None]).float()


def dice(
    logits_BK: Tensor,
    target_BK: Tensor,
    weight_BK: Tensor | None = None,
    *,
    squared: bool,
    smooth: float,
    eps: float,
) -> Tensor:
    """`Dice`: the mean over rows of 1 - (2 sum p t + smooth) / (sum p + sum t + smooth), see the op.

    Args:
        logits_BK: [B, K, ...], one mask a row. target_BK: the same shape, 0 to 1.
        weight_BK: bool or numbers; rows of weight 0 do not count.

    Returns:
        A scalar, 0 where no row counts.
    """
    p_BKP, t_BKP = logits_BK.float().sigmoid().flatten(2), target_BK.float().flatten(2)
    both_BK = (p_BKP * t_BKP).sum(-1)
    if squared:
        p_BKP, t_BKP = p_BKP.square(), t_BKP.square()
    total_BK = p_BKP.sum(-1) + t_BKP.sum(-1) + 2 * eps
    loss_BK = 1 - (2 * both_BK + smooth) / (total_BK + smooth)
    if weight_BK is None:
        return loss_BK.mean()
    weight = weight_BK.float()
    return (loss_BK * weight).sum() / normaliser(weight.sum(), 1.0)
