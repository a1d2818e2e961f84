"""What sums of losses are divided by: a number of objects or samples of the whole batch.

With several processes each holds a part of the batch. The mean of their gradients is that of the whole batch if
each divides by the whole batch's number over the number of processes; a number of its own part alone would give
the objects of a process with few of them more weight.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor
from torch import distributed as dist

_processes = 1


@contextmanager
def shared_by(processes: int) -> Iterator[None]:
    """Within the block all losses are computed by so many processes together, in the same order by each."""
    global _processes
    before, _processes = _processes, processes
    try:
        yield
    finally:
        _processes = before


def normaliser(total: Tensor, least: float) -> Tensor:
    """max(total, least); over all processes, and divided by their number, inside `shared_by`.

    Args:
        total: a scalar, any dtype, this process's part.

    Returns:
        A float32 scalar without gradient.
    """
    total = total.detach().float()
    if _processes > 1:
        total = total.clone()
        dist.all_reduce(total)
    return total.clamp(min=least) / _processes


def any_process(flag: Tensor) -> Tensor:
    """A bool scalar: true if it is so in one of the processes."""
    return normaliser(flag, 0.0) > 0
