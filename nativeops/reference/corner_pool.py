"""Corner pooling in plain torch (Law and Deng, "CornerNet", 2018, section 3.4)."""

from __future__ import annotations

import torch

# Where each output looks: "top" takes the maximum from its own row down to the last, and so on.
DIRECTIONS = ("top", "bottom", "left", "right")


def corner_pool(x_BCHW: torch.Tensor, direction: str) -> torch.Tensor:
    """Running maximum along one axis, same shape as the input.

    Args:
        x_BCHW: features.
        direction: ``top`` (``max x[y:]``), ``bottom`` (``max x[:y+1]``), ``left`` (``max x[..., x:]``) or
            ``right`` (``max x[..., :x+1]``).

    The gradient goes to the maximum, on ties to the one nearest to the output; NaN propagates.

    Raises:
        ValueError: unknown direction.
    """
    if direction not in DIRECTIONS:
        raise ValueError(f"direction must be one of {', '.join(DIRECTIONS)}, got {direction!r}")
    dim = 2 if direction in ("top", "bottom") else 3
    if direction in ("bottom", "right"):
        return x_BCHW.cummax(dim).values
    return x_BCHW.flip(dim).cummax(dim).values.flip(dim)
