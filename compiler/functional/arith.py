"""Elementwise arithmetic behind `a + b` and its kin; the `_levels` forms take pyramids level by level."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Levels = list[Tensor]
Number = int | float


def add(a: Tensor, b: Tensor | None = None, scalar: Number = 0, reverse: bool = False) -> Tensor:
    """`a + b`, or `a + scalar`."""
    return a + (scalar if b is None else b)


def sub(a: Tensor, b: Tensor | None = None, scalar: Number = 0, reverse: bool = False) -> Tensor:
    """`a - b`, or `a - scalar`, or `scalar - a`."""
    if b is not None:
        return a - b
    return scalar - a if reverse else a - scalar


def mul(a: Tensor, b: Tensor | None = None, scalar: Number = 1, reverse: bool = False) -> Tensor:
    """`a * b`, or `a * scalar`."""
    return a * (scalar if b is None else b)


def div(a: Tensor, b: Tensor | None = None, scalar: Number = 1, reverse: bool = False) -> Tensor:
    """`a / b`, or `a / scalar`, or `scalar / a`."""
    if b is not None:
        return a / b
    return scalar / a if reverse else a / scalar


def neg(a: Tensor) -> Tensor:
    """`-a`."""
    return -a


def sum_of(*inputs: Tensor) -> Tensor:
    """The elementwise sum."""
    total = inputs[0]
    for x in inputs[1:]:
        total = total + x
    return total


def mean_of(*inputs: Tensor) -> Tensor:
    """The elementwise mean."""
    return sum_of(*inputs) / len(inputs)


def min_of(*inputs: Tensor) -> Tensor:
    """The elementwise minimum."""
    least = inputs[0]
    for x in inputs[1:]:
        least = torch.minimum(least, x)
    return least


def max_of(*inputs: Tensor) -> Tensor:
    """The elementwise maximum."""
    largest = inputs[0]
    for x in inputs[1:]:
        largest = torch.maximum(largest, x)
    return largest


def _levels(
    fn: Callable[..., Tensor], a: Tensor | Levels, b: Tensor | Levels | None, scalar: Number, reverse: bool
) -> Levels:
    count = len(a) if isinstance(a, list) else len(b) if isinstance(b, list) else 0
    lefts = a if isinstance(a, list) else [a] * count
    if b is None:
        return [fn(x, scalar=scalar, reverse=reverse) for x in lefts]
    rights = b if isinstance(b, list) else [b] * count
    return [fn(x, y) for x, y in zip(lefts, rights, strict=True)]


def add_levels(
    a: Tensor | Levels, b: Tensor | Levels | None = None, scalar: Number = 0, reverse: bool = False
) -> Levels:
    """`add` for each level."""
    return _levels(add, a, b, scalar, reverse)


def sub_levels(
    a: Tensor | Levels, b: Tensor | Levels | None = None, scalar: Number = 0, reverse: bool = False
) -> Levels:
    """`sub` for each level."""
    return _levels(sub, a, b, scalar, reverse)


def mul_levels(
    a: Tensor | Levels, b: Tensor | Levels | None = None, scalar: Number = 1, reverse: bool = False
) -> Levels:
    """`mul` for each level."""
    return _levels(mul, a, b, scalar, reverse)


def div_levels(
    a: Tensor | Levels, b: Tensor | Levels | None = None, scalar: Number = 1, reverse: bool = False
) -> Levels:
    """`div` for each level."""
    return _levels(div, a, b, scalar, reverse)


def neg_levels(a: Levels) -> Levels:
    """`neg` for each level."""
    return [-x for x in a]


def sum_of_levels(*inputs: Levels) -> Levels:
    """`sum_of` for each level."""
    return [sum_of(*level) for level in zip(*inputs, strict=True)]


def mean_of_levels(*inputs: Levels) -> Levels:
    """`mean_of` for each level."""
    return [mean_of(*level) for level in zip(*inputs, strict=True)]


def min_of_levels(*inputs: Levels) -> Levels:
    """`min_of` for each level."""
    return [min_of(*level) for level in zip(*inputs, strict=True)]


def max_of_levels(*inputs: Levels) -> Levels:
    """`max_of` for each level."""
    return [max_of(*level) for level in zip(*inputs, strict=True)]
