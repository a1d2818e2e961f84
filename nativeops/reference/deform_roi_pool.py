"""Deformable RoI pooling in plain torch (Dai et al. 2017, section 2.2).

Each bin is an average of bilinear samples, and bilinear sampling is separable: a bin is ``r^T X c`` with a
row and a column vector of weights. So the op is one einsum with static shapes, adaptive sampling included.

Shape legend: B images, N rois, p x q bins, S samples a bin and axis.
"""

from __future__ import annotations

import torch


def _axis_weights(
    start: torch.Tensor, bin_size: torch.Tensor, samples: torch.Tensor, limit: int, size: int
) -> torch.Tensor:
    """Mean interpolation weights ``[..., size]`` over the samples of a bin along one axis.

    Args:
        start: ``[...]`` where the bin begins, in pixels of the feature map.
        bin_size: ``[...]`` its length.
        samples: ``[...]`` how many samples it takes, at most ``limit``.
    """
    step = torch.arange(limit, device=start.device, dtype=start.dtype)
    count = samples.clamp_min(1)[..., None]
    position = start[..., None] + (step + 0.5) * bin_size[..., None] / count
    used = (step < samples[..., None]) & (position >= -1) & (position <= size)
    position = torch.where(used, position, 0.0).clamp(0, size - 1)
    taps = torch.arange(size, device=start.device, dtype=start.dtype)
    hat = (1 - (position[..., None] - taps).abs()).clamp_min(0)
    return (hat * used[..., None]).sum(-2) / count


def deform_roi_pool(
    x_BCHW: torch.Tensor,
    rois_N5: torch.Tensor,
    offset_N2pq: torch.Tensor | None,
    output_size: tuple[int, int],
    spatial_scale: float = 1.0,
    sampling: int = 0,
    gamma: float = 0.1,
) -> torch.Tensor:
    """RoIAlign (half-pixel aligned) whose bins are moved by learned offsets: ``[N, C, p, q]``.

    Args:
        x_BCHW: one feature map.
        rois_N5: image index, x1, y1, x2, y2 in pixels of the image. A roi with an index outside of ``[0,
            B)`` or a coordinate that is not finite gives zeros.
        offset_N2pq: (dx, dy) of each bin in units of ``gamma`` times the roi's size, or None for none.
        output_size: ``(p, q)``.
        spatial_scale: feature pixels an image pixel.
        sampling: samples a bin and axis; 0 takes ``ceil(roi size / bins)``, never more than a roi of the
            whole feature map would need.
        gamma: scale of the offsets.

    Differentiable in the features and the offsets. Semantics are those of MMCV's op of the same name.
    """
    B, C, H, W = x_BCHW.shape
    p, q = output_size
    N = rois_N5.shape[0]
    finite = rois_N5.isfinite().all(1)
    index = rois_N5[:, 0]
    valid = finite & (index >= 0) & (index < B)
    if B == 0 or H == 0 or W == 0 or N == 0:
        return x_BCHW.new_zeros((N, C, p, q))
    rois = torch.where(valid[:, None], rois_N5, 0.0)
    x1, y1, x2, y2 = (rois[:, 1:] * spatial_scale - 0.5).unbind(1)
    width, height = x2 - x1, y2 - y1
    row = torch.arange(p, device=rois.device, dtype=rois.dtype)[:, None]
    col = torch.arange(q, device=rois.device, dtype=rois.dtype)[None]

    def spread(value_N: torch.Tensor) -> torch.Tensor:
        return value_N[:, None, None].expand(N, p, q)

    bin_h, bin_w = spread(height / p), spread(width / q)
    top, left = spread(y1) + row * bin_h, spread(x1) + col * bin_w
    if offset_N2pq is not None:
        left = left + gamma * spread(width) * offset_N2pq[:, 0]
        top = top + gamma * spread(height) * offset_N2pq[:, 1]
    limit_h = sampling if sampling > 0 else -(-H // p)
    limit_w = sampling if sampling > 0 else -(-W // q)
    count_h = bin_h.detach().ceil().clamp(0, limit_h) if sampling == 0 else torch.full_like(bin_h, sampling)
    count_w = bin_w.detach().ceil().clamp(0, limit_w) if sampling == 0 else torch.full_like(bin_w, sampling)
    rows_NpqH = _axis_weights(top, bin_h, count_h, limit_h, H)
    cols_NpqW = _axis_weights(left, bin_w, count_w, limit_w, W)
    features_NCHW = x_BCHW[index.nan_to_num(0).clamp(0, B - 1).long()]
    pooled = torch.einsum("npqh,nchw,npqw->ncpq", rows_NpqH, features_NCHW, cols_NpqW)
    return torch.where(valid[:, None, None, None], pooled, 0.0)
