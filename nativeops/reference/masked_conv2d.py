"""Convolution evaluated only where a mask is set, in plain torch (as in Guided Anchoring)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn import functional


def masked_conv2d(
    x_BCHW: torch.Tensor,
    mask_Bhw: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    stride: Sequence[int] = (1, 1),
    padding: Sequence[int] = (0, 0),
) -> torch.Tensor:
    """``conv2d(x, weight, bias)`` where ``mask > 0``, zero elsewhere: ``[B, O, h, w]``.

    Args:
        x_BCHW: input.
        mask_Bhw: one value an *output* position; NaN counts as unset.
        weight: ``[O, C, kH, kW]``.
        bias: ``[O]`` or None; added at set positions only.
    """
    out = functional.conv2d(x_BCHW, weight, bias, stride=list(stride), padding=list(padding))
    return torch.where((mask_Bhw > 0)[:, None], out, 0.0)
