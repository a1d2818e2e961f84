"""Cutting tensors."""

from __future__ import annotations

from torch import Tensor


def cut(x: Tensor, start: int, stop: int | None, dim: int) -> Tensor:
    """Elements `start` to `stop` (None: the end) along `dim`."""
    index = [slice(None)] * x.dim()
    index[dim] = slice(start, stop)
    return x[tuple(index)]
