"""The gradient of a depthwise convolution in its weights, by torch's own backward."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def depthwise_weight_grad(
    grad: Tensor,
    x: Tensor,
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
) -> Tensor:
    """See ``detc.nativeops.ops.depthwise_weight_grad``."""
    wide = torch.float64 if x.dtype == torch.float64 else torch.float32
    channels = x.shape[1]
    weight = x.new_zeros((channels, 1, *kernel), dtype=wide)
    if x.numel() == 0:
        return weight
    _, found, _ = torch.ops.aten.convolution_backward(
        grad.to(wide),
        x.to(wide),
        weight,
        None,
        stride,
        padding,
        dilation,
        False,
        [0, 0],
        channels,
        [False, True, False],
    )
    return found.contiguous()
