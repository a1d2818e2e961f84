"""What holds for every op, public and backward alike: opcheck, graphs, gradients, dtypes, and no surprise at the edges.

The tests of the single ops compare them with peers; this file is what none of them can be without.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from detc.nativeops import toolchain
from detc.nativeops.registry import has_native_kernel, op_names, reference_of
from tests.nativeops.checks import one_and_two_threads, relative_error, strided
from tests.nativeops.op_cases import CASES, Case
from tests.nativeops.op_checks import assert_same, check_graph, require_native

Call = tuple[Any, tuple[Any, ...]]
ROOT = Path(__file__).resolve().parents[2]
ALL = list(CASES)
TRAINED = [name for name, case in CASES.items() if case.differentiable]


@pytest.fixture(autouse=True)
def seeded() -> None:
    require_native()
    torch.manual_seed(0)


class _Calls(TorchDispatchMode):
    """Notes the calls of detc's ops, with their arguments."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[Call] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.namespace == "detc":
            self.calls.append((func, args))
        return func(*args, **(kwargs or {}))


def flat(result: Any) -> list[Tensor]:
    return [result] if isinstance(result, Tensor) else list(result)


def results(case: Case, inputs: Sequence[Tensor]) -> list[Tensor]:
    """The outputs, and the gradients of the differentiable inputs."""
    if not case.differentiable:
        return flat(case.run(*inputs))
    leaves = [t.detach().clone().requires_grad_() for t in inputs[: case.differentiable]]
    out = case.run(*leaves, *inputs[case.differentiable :])
    generator = torch.Generator().manual_seed(1)
    grad = torch.randn(out.shape, generator=generator, dtype=torch.float32).to(out.dtype)
    return [out.detach(), *torch.autograd.grad(out, leaves, grad)]


def calls_of(case: Case, inputs: Sequence[Tensor]) -> list[Call]:
    with _Calls() as noted:
        results(case, inputs)
    assert noted.calls
    return noted.calls


def against_the_references(case: Case, inputs: Sequence[Tensor], atol: float) -> None:
    """Every kernel that the case runs, backward ones too, gives what its reference gives."""
    for func, args in calls_of(case, inputs):
        name = func.name().split("::")[1].split(".")[0]
        assert has_native_kernel(name, "cpu"), f"no CPU kernel for {name}"
        assert_same(func(*args), reference_of(name)(*args), atol=atol)


def test_no_op_is_left_out() -> None:
    covered = {
        func.name().split("::")[1].split(".")[0]
        for case in CASES.values()
        for func, _ in calls_of(case, case.make(torch.float32))
    }
    assert covered == set(op_names())


@pytest.mark.parametrize("name", ALL)
def test_opcheck(name: str) -> None:
    case = CASES[name]
    for func, args in calls_of(case, case.make(torch.float32)):
        fresh = [a.detach() if isinstance(a, Tensor) else a for a in args]
        torch.library.opcheck(func, tuple(fresh))
    if case.differentiable:  # the forward op again, with gradients wanted
        inputs = case.make(torch.float64)
        for t in inputs[: case.differentiable]:
            t.requires_grad_()
        with _Calls() as noted:
            case.run(*inputs)
        func, args = noted.calls[0]
        wanted = [
            a.detach().requires_grad_(a.is_floating_point() and _is_leaf(a, inputs, case))
            if isinstance(a, Tensor)
            else a
            for a in args
        ]
        torch.library.opcheck(func, tuple(wanted))


def _is_leaf(tensor: Tensor, inputs: Sequence[Tensor], case: Case) -> bool:
    return any(
        tensor.shape == t.shape and torch.equal(tensor, t.detach()) for t in inputs[: case.differentiable]
    )


@pytest.mark.parametrize("name", ALL)
def test_export_and_compile(name: str) -> None:
    case = CASES[name]
    inputs = case.make(torch.float32)
    if name in ("nms", "rotated_nms"):  # a length that depends on the data leaves the graph as a sum
        check_graph(lambda b, s: s[case.run(b, s)].sum(), inputs, case.op)
        return
    check_graph(case.run, inputs, case.op)


@pytest.mark.parametrize("name", TRAINED)
def test_compile_with_gradients(name: str) -> None:
    case = CASES[name]
    inputs = case.make(torch.float64)
    torch._dynamo.reset()
    compiled = torch.compile(case.run, fullgraph=True, backend="aot_eager")
    eager = results(case, inputs)
    assert_same(results(Case(**{**case.__dict__, "run": compiled}), inputs), eager, atol=1e-12)


@pytest.mark.slow  # seconds of g++ each, so one op of a kind
@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize(
    "name", ["nms_hard", "multilevel_roi_align", "deform_conv2d", "focal_sum", "rle_encode"]
)
def test_compile_by_inductor(name: str, dynamic: bool) -> None:
    """The default backend generates code around the op and gives it what that code has laid out."""
    if toolchain.cxx() is None:
        pytest.skip("no C++ compiler here")
    case = CASES[name]
    inputs = case.make(torch.float32)
    torch._dynamo.reset()
    compiled = torch.compile(case.run, fullgraph=True, dynamic=dynamic)
    got = results(Case(**{**case.__dict__, "run": compiled}), inputs)
    assert_same(got, results(case, inputs), atol=2e-5)


@pytest.mark.parametrize("name", TRAINED)
def test_gradcheck(name: str) -> None:
    case = CASES[name]
    inputs = case.make(torch.float64)
    leaves = [t.requires_grad_() for t in inputs[: case.differentiable]]
    rest = inputs[case.differentiable :]
    assert torch.autograd.gradcheck(lambda *a: case.run(*a, *rest), leaves, fast_mode=True)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", ALL)
def test_sixteen_bits(name: str, dtype: torch.dtype) -> None:
    case = CASES[name]
    inputs = case.make(dtype)
    wide = [t.float() if t.is_floating_point() else t for t in inputs]
    for got, wanted in zip(results(case, inputs), results(case, wide), strict=True):
        assert got.isfinite().all()
        if got.is_floating_point():
            assert relative_error(got, wanted) < case.sixteen * (1 if dtype == torch.float16 else 4)
        else:
            assert torch.equal(got, wanted)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", ALL)
def test_equals_the_reference(name: str, dtype: torch.dtype) -> None:
    case = CASES[name]
    exact = dtype == torch.float64 and case.op != "dynamic_soft_label"  # which computes in float32
    against_the_references(case, case.make(dtype), 1e-11 if exact else 1e-5)


@pytest.mark.parametrize("name", ALL)
def test_empty_axes(name: str) -> None:
    """Each axis alone, and all at once: shapes as the references have them, and zero gradients."""
    case = CASES[name]
    for empty in {*case.may_be_empty, case.may_be_empty}:
        inputs = case.make(torch.float32)
        for i, axes in enumerate(case.axes):
            for dim, axis in enumerate(axes):
                if axis in empty:
                    inputs[i] = inputs[i].narrow(dim, 0, 0)
        assert any(t.numel() == 0 for t in inputs)
        against_the_references(case, inputs, 1e-5)
        for out in results(case, inputs):
            assert not out.is_floating_point() or out.isfinite().all()


@pytest.mark.parametrize("name", [n for n in ALL if n not in ("rle_encode", "rle_decode")])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 1e30, -1e30])
def test_wild_numbers(name: str, value: float) -> None:
    """In one input after the other: no crash, whole numbers as the reference has them, and floats too wherever it does
    not let the wild number through. (A kernel may keep one closer to its place than a reference made of products.)"""
    case = CASES[name]
    for i in range(len(case.axes)):
        torch.manual_seed(0)
        inputs = case.make(torch.float32)
        if not inputs[i].is_floating_point() or i in case.weights:
            continue
        inputs[i].view(-1)[:: max(2, inputs[i].numel() // 3)] = value
        func, args = calls_of(case, inputs)[0]
        for got, wanted in zip(flat(func(*args)), flat(reference_of(case.op)(*args)), strict=True):
            assert got.shape == wanted.shape
            if not got.is_floating_point():
                assert torch.equal(got, wanted)
                continue
            tame = wanted.isfinite() & (wanted.abs() < 1e20)
            torch.testing.assert_close(got[tame], wanted[tame], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", [n for n in ALL if CASES[n].boxes])
def test_boxes_without_area_and_inverted(name: str) -> None:
    case = CASES[name]
    for which in case.boxes:
        inputs = case.make(torch.float32)
        boxes = inputs[which].view(-1, inputs[which].shape[-1])[:, -4:]
        boxes[0::4, 2] = boxes[0::4, 0]  # no width
        boxes[1::4, 2:] = boxes[1::4, :2]  # a point
        boxes[2::4] = boxes[2::4][:, [2, 3, 0, 1]]  # inverted both ways
        boxes[3::4] = boxes[3::4][:, [2, 1, 0, 3]]  # inverted one way
        func, args = calls_of(case, inputs)[0]  # gradients have more than one right value where edges meet
        assert_same(func(*args), reference_of(case.op)(*args), atol=1e-5)
        for out in results(case, inputs):
            assert not out.is_floating_point() or out.isfinite().all()


@pytest.mark.parametrize("name", ALL)
def test_not_contiguous(name: str) -> None:
    case = CASES[name]
    inputs = case.make(torch.float32)
    views = [
        strided(t) if t.dtype != torch.bool else t[..., None].expand(*t.shape, 2)[..., 1] for t in inputs
    ]
    assert_same(flat(case.run(*views)), flat(case.run(*inputs)))


@pytest.mark.parametrize("name", ALL)
def test_threads_and_repetition_change_nothing(name: str) -> None:
    case = CASES[name]
    inputs = case.make(torch.float32)
    if name in ("masked_conv2d", "winograd_conv2d"):  # their gradients are torch's convolution's
        one_and_two_threads(lambda: flat(case.run(*inputs)))
        return
    one_and_two_threads(lambda: results(case, inputs))
    assert_same(results(case, inputs), results(case, inputs))


WITHOUT = """
import sys, warnings
import torch
from detc.nativeops import loader
from tests.nativeops.test_every_op import CASES, results
found = {}
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    for name, case in CASES.items():
        torch.manual_seed(0)
        found[name] = results(case, case.make(torch.float32))
assert loader.loaded_library() is None
said = [str(w.message) for w in caught if issubclass(w.category, loader.NativeFallbackWarning)]
assert len(said) == 1 and "no C++ compiler was found" in said[0], said
torch.save(found, sys.argv[1])
"""


def test_every_op_works_without_a_compiler_and_one_warning_says_so(tmp_path: Path) -> None:
    nothing = {"PATH": str(tmp_path), "CXX": "", "NVCC": "", "CUDA_HOME": "", "DETC_CACHE": str(tmp_path)}
    environment = {**os.environ, **nothing, "DETC_NATIVE": "1", "DETC_LIBRARY": ""}
    command = [sys.executable, "-c", WITHOUT, str(tmp_path / "results.pt")]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    by_reference = torch.load(tmp_path / "results.pt")
    for name, case in CASES.items():
        torch.manual_seed(0)
        assert_same(results(case, case.make(torch.float32)), by_reference[name], atol=1e-4)
