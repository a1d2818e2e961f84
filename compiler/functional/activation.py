"""Elementwise functions over pyramids."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F


def levels(x: list[Tensor], function: str, **kwargs: Any) -> list[Tensor]:
    """Apply torch's `function` to each level."""
    fn = getattr(torch, function, None) or getattr(F, function)
    return [fn(level, **kwargs) for level in x]
