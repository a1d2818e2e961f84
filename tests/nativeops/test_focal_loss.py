"""Focal losses: against torchvision, against the reference, at the edges."""

from __future__ import annotations

import pytest
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from detc.nativeops import ops
from detc.nativeops.reference import focal_loss as reference
from tests.nativeops.op_checks import assert_same, check_graph, check_op, require_native

KINDS = ("focal", "quality", "varifocal", "varifocal_detached")


@pytest.fixture(autouse=True)
def seeded() -> None:
    require_native("focal_loss", "focal_loss_backward")
    torch.manual_seed(0)


@pytest.mark.parametrize("reduction", ["none", "sum", "mean"])
@pytest.mark.parametrize(("alpha", "gamma"), [(0.25, 2.0), (-1.0, 2.0), (0.5, 1.5), (0.25, 0.0)])
def test_equals_torchvision(alpha: float, gamma: float, reduction: str) -> None:
    logits = (torch.randn(3, 70, 11) * 4).requires_grad_()
    targets = torch.rand(3, 70, 11).round()
    results = []
    for function in (ops.sigmoid_focal_loss, torchvision.ops.sigmoid_focal_loss):
        loss = function(logits, targets, alpha=alpha, gamma=gamma, reduction=reduction)
        results.append((loss.detach(), torch.autograd.grad(loss, logits, torch.ones_like(loss))[0]))
    (loss, grad), (wanted_loss, wanted_grad) = results
    torch.testing.assert_close(loss, wanted_loss, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(grad, wanted_grad, atol=1e-5, rtol=1e-4)


@settings(max_examples=80, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    kind=st.sampled_from(KINDS),
    gamma=st.sampled_from([0.0, 0.5, 1.0, 2.0, 3.0]),
    labels=st.booleans(),
    weighted=st.booleans(),
)
def test_native_equals_reference(seed: int, kind: str, gamma: float, labels: bool, weighted: bool) -> None:
    torch.manual_seed(seed)
    rows, classes = seed % 97, 1 + seed % 37
    logits = torch.randn(rows, classes, dtype=torch.float64) * 6
    targets: Tensor = torch.rand(rows, classes, dtype=torch.float64) * (torch.rand(rows, classes) > 0.5)
    if labels:
        targets = torch.randint(-2, classes + 2, (rows,))
    weights = torch.rand(rows, dtype=torch.float64) if weighted else None
    args = (logits, targets, weights, kind, 0.3, gamma)
    for total in (False, True):
        assert_same(torch.ops.detc.focal_loss(*args, total), reference.focal_loss(*args, total), atol=1e-10)
    for grad in (torch.randn_like(logits), torch.tensor(0.7, dtype=torch.float64).expand_as(logits)):
        assert_same(
            torch.ops.detc.focal_loss_backward(grad, *args),
            reference.focal_loss_backward(grad, *args),
            atol=1e-9,
        )


def test_extreme_logits_stay_finite() -> None:
    logits = torch.tensor([[-1e4, -200.0, -88.0, -20.0, 0.0, 20.0, 88.0, 200.0, 1e4]])
    for function in (ops.sigmoid_focal_loss, ops.quality_focal_loss, ops.varifocal_loss):
        for target in (0.0, 1.0):
            leaf = logits.clone().requires_grad_()
            loss = function(leaf, torch.full_like(logits, target))
            loss.sum().backward()
            assert loss.isfinite().all() and leaf.grad.isfinite().all()
            exact = function(leaf.detach().double(), torch.full_like(logits, target).double())
            torch.testing.assert_close(loss.detach().double(), exact, atol=1e-6, rtol=1e-5)


def test_nan_stays_in_its_element() -> None:
    logits = torch.tensor([[0.3, float("nan"), -0.2]])
    assert ops.sigmoid_focal_loss(logits, torch.zeros(1, 3)).isnan().tolist() == [[False, True, False]]


def test_labels_outside_are_background() -> None:
    logits = torch.randn(5, 3)
    labels = torch.tensor([-5, -1, 3, 2**40, 1])
    one_hot = torch.zeros(5, 3)
    one_hot[4, 1] = 1
    assert_same(ops.sigmoid_focal_loss(logits, labels), ops.sigmoid_focal_loss(logits, one_hot))


@pytest.mark.parametrize("shape", [(0, 4), (3, 0), (0, 0)])
def test_empty(shape: tuple[int, int]) -> None:
    logits = torch.randn(shape, requires_grad=True)
    for targets in (torch.zeros(shape), torch.zeros(shape[0], dtype=torch.int64)):
        assert ops.sigmoid_focal_loss(logits, targets).shape == shape
        total = ops.sigmoid_focal_loss(logits, targets, reduction="sum")
        assert total == 0
        total.backward()


def test_sums_of_half_are_float() -> None:
    """A sum of 16-bit losses, and its gradient under loss scaling, would leave the range of float16."""
    logits, targets = (torch.randn(3000, 9) * 20).half().requires_grad_(), torch.zeros(3000, 9)
    for reduction in ("sum", "mean"):
        loss = ops.sigmoid_focal_loss(logits, targets, alpha=-1, gamma=0, reduction=reduction)
        wide = ops.sigmoid_focal_loss(logits.float(), targets, alpha=-1, gamma=0, reduction=reduction)
        assert loss.dtype == torch.float32 and loss.isfinite()
        torch.testing.assert_close(loss, wide)
        (grad,), (wanted,) = (
            torch.autograd.grad(x * (2**18 if reduction == "mean" else 1), logits) for x in (loss, wide)
        )
        assert grad.dtype == torch.float16 and grad.isfinite().all()
        torch.testing.assert_close(grad, wanted, atol=1e-2, rtol=1e-2)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float16, 2e-3), (torch.bfloat16, 2e-2)])
def test_half_is_computed_in_float(dtype: torch.dtype, tolerance: float) -> None:
    logits, targets = torch.randn(20, 9).to(dtype), torch.rand(20, 9).to(dtype)
    for kind in KINDS:
        got = torch.ops.detc.focal_loss(logits, targets, None, kind, 0.25, 2.0, False)
        wanted = torch.ops.detc.focal_loss(logits.float(), targets.float(), None, kind, 0.25, 2.0, False)
        assert got.dtype == dtype
        torch.testing.assert_close(got.float(), wanted, atol=tolerance, rtol=tolerance)


def test_not_contiguous() -> None:
    logits, targets = torch.randn(6, 50, 3).permute(2, 1, 0), torch.rand(6, 50, 3).permute(2, 1, 0)
    assert_same(
        ops.sigmoid_focal_loss(logits, targets),
        ops.sigmoid_focal_loss(logits.contiguous(), targets.contiguous()),
    )


def test_sum_does_not_depend_on_threads() -> None:
    logits, targets = torch.randn(400, 80), torch.randint(-1, 80, (400,))
    before, sums = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            sums.append(ops.sigmoid_focal_loss(logits, targets, reduction="sum").item())
    finally:
        torch.set_num_threads(before)
    assert sums[0] == sums[1] == sums[2]


def test_gradcheck() -> None:
    logits = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    targets = torch.tensor([[0.0, 1, 0.4], [1, 0, 0], [0, 0, 0.7], [0.2, 0, 0]], dtype=torch.float64)
    weights = torch.rand(4, dtype=torch.float64)
    for reduction in ("none", "sum", "mean"):
        for function in (ops.sigmoid_focal_loss, ops.quality_focal_loss, ops.varifocal_loss):
            assert torch.autograd.gradcheck(
                lambda x, f=function, r=reduction: f(x, targets, weights=weights, reduction=r), logits
            )


def test_op_and_graph() -> None:
    logits, targets, labels = (
        torch.randn(4, 3, requires_grad=True),
        torch.rand(4, 3),
        torch.tensor([0, -1, 2, 1]),
    )
    check_op(
        torch.ops.detc.focal_loss.default,
        (logits, targets, None, "focal", 0.25, 2.0, False),
        (logits, labels, torch.rand(4), "varifocal", 0.25, 2.0, True),
    )
    check_op(
        torch.ops.detc.focal_loss_backward.default,
        (torch.rand(4, 3), logits.detach(), targets, None, "quality", 0.25, 2.0),
    )
    check_graph(
        lambda x, t: ops.sigmoid_focal_loss(x, t, reduction="sum"), (logits.detach(), labels), "focal_loss"
    )


def test_wrong_arguments() -> None:
    logits = torch.randn(4, 3)
    with pytest.raises(ValueError, match="targets must be"):
        ops.sigmoid_focal_loss(logits, torch.rand(4, 2))
    with pytest.raises(ValueError, match="weights must be"):
        ops.sigmoid_focal_loss(logits, torch.rand(4, 3), weights=torch.rand(3))
    with pytest.raises(ValueError, match="reduction must be"):
        ops.sigmoid_focal_loss(logits, torch.rand(4, 3), reduction="max")
