"""Content-aware reassembly of features in plain torch (Wang et al., "CARAFE", 2019).

Shape legend: B images, C channels, G groups, k kernel size, s upsampling factor.
"""

from __future__ import annotations

import torch
from torch.nn import functional


def carafe(
    x_BCHW: torch.Tensor, kernels: torch.Tensor, kernel_size: int, groups: int = 1, scale: int = 2
) -> torch.Tensor:
    """Upsample by ``s``: each output pixel is its own ``k x k`` kernel over the source neighbourhood.

    Args:
        x_BCHW: features.
        kernels: ``[B, G*k*k, s*H, s*W]``, normally a softmax over the ``k*k`` of each group.
        kernel_size: odd ``k``.
        groups: channels ``c`` of group ``c * G // C`` share a kernel.
        scale: ``s``.

    Returns:
        ``[B, C, s*H, s*W]``; neighbours outside of the map read zero.
    """
    B, C, H, W = x_BCHW.shape
    k, s, r = kernel_size, scale, kernel_size // 2
    padded = functional.pad(x_BCHW, (r, r, r, r))
    taps = kernels.reshape(B, groups, k * k, 1, H, s, W, s)
    out = x_BCHW.new_zeros((B, groups, C // groups, H, s, W, s))
    for tap in range(k * k):
        row, col = divmod(tap, k)
        window = padded[:, :, row : row + H, col : col + W].reshape(B, groups, C // groups, H, 1, W, 1)
        out = out + window * taps[:, :, tap]
    return out.reshape(B, C, s * H, s * W)
