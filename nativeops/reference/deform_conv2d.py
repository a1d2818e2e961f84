"""Deformable convolution v1 and v2 in plain torch (Dai et al. 2017; Zhu et al. 2019).

Shape legend: B images, C input channels, O output channels, G offset groups, K = kernel height * width taps.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch


def output_size(size: int, kernel: int, stride: int, padding: int, dilation: int) -> int:
    """Length of a convolution's output along one axis."""
    return (size + 2 * padding - (dilation * (kernel - 1) + 1)) // stride + 1


def bilinear_zeros(image_NCHW: torch.Tensor, y_NT: torch.Tensor, x_NT: torch.Tensor) -> torch.Tensor:
    """Bilinear samples ``[N, C, T]`` at pixel-centre coordinates; taps outside of the image read zero.

    NaN and infinite coordinates read zero. Differentiable in the image and the coordinates.
    """
    N, C, H, W = image_NCHW.shape
    if H == 0 or W == 0:
        return image_NCHW.new_zeros((N, C, y_NT.shape[1]))
    inside = (y_NT > -1) & (y_NT < H) & (x_NT > -1) & (x_NT < W)
    y_NT = torch.where(inside, y_NT, -1.0)
    x_NT = torch.where(inside, x_NT, -1.0)
    top, left = y_NT.detach().floor(), x_NT.detach().floor()
    dy, dx = y_NT - top, x_NT - left
    flat = image_NCHW.flatten(2)
    total = image_NCHW.new_zeros((N, C, y_NT.shape[1]))
    for row, wy in ((top, 1 - dy), (top + 1, dy)):
        for col, wx in ((left, 1 - dx), (left + 1, dx)):
            valid = inside & (row >= 0) & (row < H) & (col >= 0) & (col < W)
            index = (row.clamp(0, H - 1) * W + col.clamp(0, W - 1)).long()
            tap = flat.gather(2, index[:, None].expand(N, C, -1))
            total = total + torch.where(valid, wy * wx, 0.0)[:, None] * torch.where(valid[:, None], tap, 0.0)
    return total


def deform_conv2d(
    x_BCHW: torch.Tensor,
    offset: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    mask: torch.Tensor | None = None,
    stride: Sequence[int] = (1, 1),
    padding: Sequence[int] = (0, 0),
    dilation: Sequence[int] = (1, 1),
) -> torch.Tensor:
    """Convolution whose taps read at learned offsets: ``[B, O, oH, oW]``.

    Args:
        x_BCHW: input.
        offset: ``[B, 2*G*K, oH, oW]``, (dy, dx) pairs in pixels, tap-major in each offset group.
        weight: ``[O, C/groups, kH, kW]``; the number of groups is read off the shapes.
        bias: ``[O]`` or None.
        mask: ``[B, G*K, oH, oW]`` modulation (v2), or None (v1).
        stride, padding, dilation: (vertical, horizontal).

    Semantics are those of ``torchvision.ops.deform_conv2d``.
    """
    B, C, H, W = x_BCHW.shape
    O, _, kH, kW = weight.shape
    K = kH * kW
    oH = output_size(H, kH, stride[0], padding[0], dilation[0])
    oW = output_size(W, kW, stride[1], padding[1], dilation[1])
    G = offset.shape[1] // (2 * K)
    groups = C // weight.shape[1]

    def axis(out: int, kernel: int, s: int, p: int, d: int) -> torch.Tensor:
        steps = torch.arange(out, device=offset.device) * s - p
        return (torch.arange(kernel, device=offset.device)[:, None] * d + steps).to(offset.dtype)

    base_y = axis(oH, kH, stride[0], padding[0], dilation[0])[:, None, :, None]
    base_x = axis(oW, kW, stride[1], padding[1], dilation[1])[None, :, None, :]
    offset = offset.reshape(B * G, kH, kW, 2, oH, oW)
    y = (offset[:, :, :, 0] + base_y).reshape(B * G, K * oH * oW)
    x = (offset[:, :, :, 1] + base_x).reshape(B * G, K * oH * oW)
    columns = bilinear_zeros(x_BCHW.reshape(B * G, C // G, H, W), y, x)
    if mask is not None:
        columns = columns * mask.reshape(B * G, 1, K * oH * oW)
    columns = columns.reshape(B, groups, C // groups * K, oH * oW)
    out = weight.reshape(groups, O // groups, -1) @ columns
    out = out.reshape(B, O, oH, oW)
    return out if bias is None else out + bias[:, None, None]
