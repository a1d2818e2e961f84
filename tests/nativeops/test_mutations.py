"""Inputs that do not fit: every op either says what is wrong, or does what its reference does. It never crashes.

DETC_FUZZ=1000 tries so many mutations of each case, others each time; by default they are few and always the same.
"""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from detc.nativeops.registry import reference_of
from tests.nativeops.checks import relative_error
from tests.nativeops.op_cases import CASES
from tests.nativeops.op_checks import require_native
from tests.nativeops.test_every_op import calls_of, flat

EXAMPLES = int(os.environ.get("DETC_FUZZ", "25"))
EXTREMES = [float("nan"), float("inf"), -float("inf"), 3e38, -3e38, 1e-40, -0.0, 1e9, -1e9, 0.5]
WHOLE = [-1, 0, 3, 1000, 2**31 - 1, -(2**31)]
DTYPES = [
    torch.float16,
    torch.bfloat16,
    torch.float64,
    torch.int32,
    torch.int64,
    torch.uint8,
    torch.bool,
    torch.complex64,
]


@pytest.fixture(scope="module", autouse=True)
def library() -> None:
    require_native()


def longer(t: Tensor, axis: int) -> Tensor:
    return torch.cat((t, t.narrow(axis, 0, min(1, t.shape[axis]))), axis)


def shorter(t: Tensor, axis: int) -> Tensor:
    return t.narrow(axis, 0, max(t.shape[axis] - 1, 0))


RESHAPES: dict[str, Callable[[Tensor, int], Tensor]] = {
    "longer": longer,
    "shorter": shorter,
    "empty": lambda t, axis: t.narrow(axis, 0, 0),
    "without the axis": lambda t, axis: t.select(axis, 0) if t.shape[axis] else t,
    "with another axis": lambda t, axis: t.unsqueeze(axis),
    "of one row": lambda t, axis: t.narrow(axis, 0, 1).expand_as(t) if t.shape[axis] else t,
    "turned": lambda t, axis: t.transpose(axis, -1),
    "flipped": lambda t, axis: t.flip(axis),
    "every second": lambda t, axis: t.repeat_interleave(2, axis).movedim(axis, 0)[::2].movedim(0, axis),
}


def mutate(tensor: Tensor, data: st.DataObject) -> tuple[Tensor, str]:
    kinds = ["dtype", "meta", *(["shape"] * 4 if tensor.dim() else [])]
    if tensor.dtype not in (torch.bool, torch.uint8) and tensor.numel():
        kinds += ["values"] * 3
    kind = data.draw(st.sampled_from(kinds))
    if kind == "dtype":
        dtype = data.draw(st.sampled_from(DTYPES))
        return tensor.to(dtype), f"as {dtype}"
    if kind == "meta":
        return tensor.to("meta"), "on another device"
    if kind == "values":
        value = data.draw(st.sampled_from(EXTREMES if tensor.is_floating_point() else WHOLE))
        step = data.draw(st.integers(1, 5))
        changed = tensor.clone().reshape(-1)
        changed[::step] = torch.tensor(value, dtype=torch.float64).to(changed.dtype)
        return changed.view(tensor.shape), f"{value} every {step}"
    axis = data.draw(st.integers(0, tensor.dim() - 1))
    name = data.draw(st.sampled_from(list(RESHAPES)))
    return RESHAPES[name](tensor, axis), f"{name} at axis {axis}"


def moderate(tensors: list[Tensor]) -> bool:
    """Numbers that rounding treats alike in the kernel and in the reference."""
    floats = [t.abs() for t in tensors if t.is_floating_point()]
    return all(bool((t.isfinite() & (t < 1e6) & ((t == 0) | (t > 1e-30))).all()) for t in floats)


@pytest.mark.parametrize("name", list(CASES))
@settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=EXAMPLES <= 25,
    database=None,
    suppress_health_check=list(HealthCheck),
)
@given(data=st.data())
def test_it_says_what_is_wrong_or_does_what_the_reference_does(name: str, data: st.DataObject) -> None:
    case = CASES[name]
    torch.manual_seed(0)
    inputs, changes = case.make(torch.float32), []
    for _ in range(data.draw(st.integers(1, 2))):
        which = data.draw(st.integers(0, len(inputs) - 1))
        inputs[which], change = mutate(inputs[which], data)
        changes.append(f"input {which} {change}")
    try:
        calls = calls_of(case, inputs)
    except (ValueError, TypeError) as refusal:
        assert str(refusal), changes
        return
    except RuntimeError as refusal:
        # what torch itself says of requires_grad on whole numbers, and of operations in the case around the op;
        # and what only the kernel sees
        known = ("not implemented for", "only Tensors of floating point", "meta", f"{case.op}: ")
        if name == "winograd_conv2d":
            return  # its case packs the filters by the reference, which trusts them
        assert any(words in str(refusal) for words in known), (changes, refusal)
        return
    if any(t.device.type == "meta" for t in inputs):
        return
    for i, (func, args) in enumerate(calls):
        got = flat(func(*args))
        wanted = flat(reference_of(func.name().split("::")[1].split(".")[0])(*args))
        for a, b in zip(got, wanted, strict=True):
            assert (a.dim(), a.dtype) == (b.dim(), b.dtype), changes
            if not moderate(inputs) or (
                i > 0 and case.boxes
            ):  # where edges meet, gradients have several right values
                continue
            assert a.shape == b.shape, changes
            if a.is_floating_point() and a.element_size() == 2:  # the reference may compute in 16 bits
                assert relative_error(a, b) < 0.2, changes
            elif a.is_floating_point():
                torch.testing.assert_close(a, b, atol=2e-2, rtol=2e-2, equal_nan=True)
            else:
                assert torch.equal(a, b), changes


@pytest.mark.parametrize("name", [n for n, c in CASES.items() if c.differentiable])
def test_a_gradient_that_does_not_fit_is_refused(name: str) -> None:
    """Backward ops called by hand: their kernels trust the size of the gradient."""
    case = CASES[name]
    for func, args in calls_of(case, case.make(torch.float32))[1:]:
        if not func.name().split(".")[0].endswith("_backward"):
            continue
        grad, *rest = args
        if grad.dim() == 0:
            continue
        for wrong in (grad[..., :0], grad.flatten()[:1], grad.double(), torch.cat((grad, grad))):
            if case.op == "focal_loss" and wrong.numel() == 1:
                continue  # the gradient of a sum
            with pytest.raises(RuntimeError, match=case.op.removeprefix("multilevel_")):
                func(wrong, *rest)
