"""What every native op has to pass: opcheck, export, compile without a graph break, and the same results
natively and by reference."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from detc.nativeops import loader
from detc.nativeops.registry import has_native_kernel


def require_native(*names: str) -> None:
    """Skip, saying why, where the library cannot be built; fail where it lacks one of these ops."""
    if not loader.ensure_loaded("cpu"):
        pytest.skip(f"no native library: {loader.fallback_reason()}")
    for name in names:
        assert has_native_kernel(name, "cpu"), f"the library has no CPU kernel for detc::{name}"


def check_op(overload: torch._ops.OpOverload, *calls: Sequence[Any]) -> None:
    """opcheck (schema, fake against real shapes, autograd registration, AOT dispatch) on each set of
    arguments."""
    for args in calls:
        torch.library.opcheck(overload, tuple(args))


class _Wrapped(torch.nn.Module):
    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *inputs: Tensor) -> Any:
        return self.function(*inputs)


def check_graph(function: Callable[..., Any], inputs: Sequence[Tensor], op: str) -> None:
    """``function`` exports with ``detc::<op>`` as one node, and compiles whole; both give eager's results."""
    torch._dynamo.reset()  # functions of many tests go through one forward, and recompiling it has a limit
    module, eager = _Wrapped(function), function(*inputs)
    exported = torch.export.export(module, tuple(inputs))
    nodes = [str(node.target) for node in exported.graph.nodes if node.op == "call_function"]
    assert nodes.count(f"detc.{op}.default") == 1, nodes
    assert_same(exported.module()(*inputs), eager)
    assert_same(torch.compile(module, fullgraph=True, backend="aot_eager")(*inputs), eager)


def assert_same(got: Any, wanted: Any, atol: float = 0.0) -> None:
    """Nested tensors are equal: exactly for whole numbers and booleans, to ``atol`` (and NaN to NaN) for
    floats."""
    if isinstance(wanted, Tensor):
        assert got.dtype == wanted.dtype and got.shape == wanted.shape, (
            got.dtype,
            got.shape,
            wanted.dtype,
            wanted.shape,
        )
        if wanted.is_floating_point():
            torch.testing.assert_close(got, wanted, atol=atol, rtol=0, equal_nan=True)
        else:
            assert torch.equal(got, wanted)
        return
    assert len(got) == len(wanted)
    for a, b in zip(got, wanted, strict=True):
        assert_same(a, b, atol)


def random_boxes(
    *size: int,
    low: float = 0.0,
    high: float = 100.0,
    largest: float = 60.0,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Well-formed boxes ``[*size, 4]``, sides from 1 to ``largest``."""
    corner = torch.rand(*size, 2, dtype=dtype) * (high - low) + low
    return torch.cat((corner, corner + torch.rand(*size, 2, dtype=dtype) * (largest - 1) + 1), -1)
