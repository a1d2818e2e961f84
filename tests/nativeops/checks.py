"""Numbers and views that the tests of the differentiable ops share."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor


def trains_in_graphs(function: Callable[..., Tensor], args: Sequence[Tensor]) -> None:
    """Gradients under torch.compile(fullgraph=True) equal eager ones."""
    leaves = [a.detach().requires_grad_() for a in args]
    wanted = torch.autograd.grad(function(*leaves).square().sum(), leaves)
    compiled = torch.compile(lambda *a: function(*a).square().sum(), fullgraph=True, backend="aot_eager")
    for a, b in zip(torch.autograd.grad(compiled(*leaves), leaves), wanted, strict=True):
        torch.testing.assert_close(a, b)


def relative_error(got: Tensor, wanted: Tensor) -> float:
    """Largest difference over the largest wanted magnitude; the shapes must be equal."""
    assert got.shape == wanted.shape
    if wanted.numel() == 0:
        return 0.0
    scale = wanted.abs().max().double().clamp_min(1e-12)  # which 16 bits do not hold
    return float((got.double() - wanted.double()).abs().max() / scale)


def strided(tensor: Tensor) -> Tensor:
    """The same values with strides that are not contiguous."""
    view = torch.stack([tensor, torch.full_like(tensor, 7)], dim=-1)[..., 0]
    assert not view.is_contiguous()
    return view


def one_and_two_threads(function: Callable[[], Sequence[Tensor]]) -> None:
    """The results are equal bit by bit however many threads there are."""
    before = torch.get_num_threads()
    try:
        results = []
        for threads in (1, 2):
            torch.set_num_threads(threads)
            results.append(function())
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))
