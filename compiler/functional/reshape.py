"""Cutting tensors."""

from __future__ import annotations

from torch import Tensor


def cut(x: Tensor, start: int, stop: int | None, dim: int, step: int = 1) -> Tensor:
    """Elements `start` to `stop` (None: the end) along `dim`, every `step`-th."""
    index = [slice(None)] * x.dim()
    index[dim] = slice(start, stop, step)
    return x[tuple(index)]
