"""Layers whose weights are computed: N inputs, each with weights of its own. P = numbers of one row of weights."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def conv2d(
    x_NCHW: Tensor,
    weights: Tensor,
    *,
    out: int,
    kernel: int,
    stride: int,
    padding: int,
    dilation: int,
    groups: int,
    weight_at: int,
    bias_at: int | None,
) -> Tensor:
    """Convolve map n with the weights of row n: `weights` is [..., P] with N rows.

    One batched matrix product for each tap: a grouped convolution would need the number of maps as its number
    of groups, which an exported graph cannot know. CondInst (Tian et al., ECCV 2020), section 3.
    """
    channels = x_NCHW.shape[1] // groups
    rows_NP = weights.flatten(0, -2)
    span = out * channels * kernel * kernel
    weight = rows_NP[:, weight_at : weight_at + span].reshape(-1, out // groups, channels, kernel * kernel)
    x = F.pad(x_NCHW, (padding, padding, padding, padding)) if padding else x_NCHW
    reach = dilation * (kernel - 1)
    height = (x.shape[2] - reach - 1) // stride + 1
    width = (x.shape[3] - reach - 1) // stride + 1
    result = None
    for tap in range(kernel * kernel):
        top, left = tap // kernel * dilation, tap % kernel * dilation
        part = x[:, :, top : top + (height - 1) * stride + 1, left : left + (width - 1) * stride + 1]
        part = part[:, :, ::stride, ::stride] if stride > 1 else part
        moved = torch.bmm(weight[..., tap], part.reshape(-1, channels, height * width))
        result = moved if result is None else result + moved
    assert result is not None
    y = result.reshape(-1, out, height, width)
    if bias_at is not None:
        y = y + rows_NP[:, bias_at : bias_at + out, None, None]
    return y


def linear(x: Tensor, weights: Tensor, *, out: int, weight_at: int, bias_at: int | None, rows: int) -> Tensor:
    """[..., M, C] x [..., P] -> [..., M, out]: the first `rows` dimensions of both run together."""
    lead = x.shape[:rows]
    channels = x.shape[-1]
    rows_NP = weights.flatten(0, -2)
    weight = rows_NP[:, weight_at : weight_at + out * channels].reshape(-1, out, channels)
    y = torch.bmm(x.reshape(weight.shape[0], -1, channels), weight.transpose(1, 2))
    if bias_at is not None:
        y = y + rows_NP[:, None, bias_at : bias_at + out]
    return y.reshape(*lead, *x.shape[rows:-1], out)
