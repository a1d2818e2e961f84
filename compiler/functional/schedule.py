"""Numbers made of the training clock. `step` is the clock, {"iter", "epoch", "progress"} of scalars, or one of them."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

Clock = Tensor | Mapping[str, Tensor]


def _time(step: Clock, part: str) -> Tensor:
    return step if isinstance(step, Tensor) else step[part]


def ramp(
    step: Clock,
    start: float,
    over: float,
    low: float = 0.0,
    high: float = 1.0,
    shape: str = "linear",
    part: str = "iter",
) -> Tensor:
    """`low` before `start`, `high` from `start + over` on, and in between a line or half a cosine. A scalar."""
    done = ((_time(step, part) - start) / over).clamp(0.0, 1.0)
    if shape == "cosine":
        done = (1.0 - torch.cos(math.pi * done)) / 2
    return low + (high - low) * done


def after(step: Clock, at: float, part: str = "iter") -> Tensor:
    """1.0 from time `at` on, 0.0 before. A scalar."""
    return (_time(step, part) >= at).float()
