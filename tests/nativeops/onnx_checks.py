"""One exported file, three ways to run it: what the tests of ops in ONNX share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor

from detc.nativeops import onnx_bodies, ort


class _Model(torch.nn.Module):
    def __init__(self, function: Callable[..., Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.function(*inputs)


def export(function: Callable[..., Tensor], inputs: Sequence[Tensor]) -> onnx.ModelProto:
    program = torch.export.export(_Model(function), tuple(inputs))
    table = onnx_bodies.translations()
    exported = torch.onnx.export(
        program, tuple(inputs), dynamo=True, opset_version=18, custom_translation_table=table, verbose=False
    )
    assert exported is not None
    model = exported.model_proto
    onnx_bodies.attach(model)
    onnx.checker.check_model(model, full_check=False)
    return model


def run(session: Any, inputs: Sequence[Tensor]) -> np.ndarray:
    names = [i.name for i in session.get_inputs()]
    return session.run(None, {n: t.numpy() for n, t in zip(names, inputs, strict=True)})[0]


def assert_agrees(got: np.ndarray, wanted: Tensor) -> None:
    if not wanted.is_floating_point():
        assert np.array_equal(got, wanted.numpy())
    else:
        np.testing.assert_allclose(got, wanted.numpy(), atol=1e-4, rtol=1e-4)


def one_file_two_paths(
    node: str, function: Callable[..., Tensor], inputs: Sequence[Tensor], path: Path
) -> None:
    """The exported file agrees with torch in stock onnxruntime (where no kernel of ours runs), with the library
    registered (where it does), and with the function in the place of the node."""
    wanted = function(*inputs)
    model = export(function, inputs)
    assert [n.op_type for n in model.graph.node if n.domain == "detc"] == [node]
    onnx.save(model, path)

    before = ort.native_calls()
    stock = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    assert_agrees(run(stock, inputs), wanted)
    assert ort.native_calls() == before, "stock onnxruntime must run the function, not the kernel"

    if ort.library() is None:
        pytest.skip("no native library for ONNX Runtime: only the function was checked")
    native = ort.ort_session(path, native=True)
    assert_agrees(run(native, inputs), wanted)
    assert ort.native_calls() == before + 1, "the registered kernel must run"

    onnx_bodies.attach(model, inline=True)
    assert all(n.domain == "" for n in model.graph.node)
    inlined = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    assert_agrees(run(inlined, inputs), wanted)
