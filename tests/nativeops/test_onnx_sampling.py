"""The sampling ops in ONNX: one file runs through its functions in stock onnxruntime, and natively."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor

from detc.nativeops import onnx_bodies, ops, ort
from tests.nativeops.onnx_checks import assert_agrees, export, one_file_two_paths, run
from tests.nativeops.op_checks import random_boxes

SHAPES = [(10, 13), (5, 6), (3, 3)]
POSITIONS = sum(h * w for h, w in SHAPES)


def attention() -> tuple[Tensor, ...]:
    places = torch.rand(2, 7, 4, 3, 4, 2) * 1.4 - 0.2
    places[0, 0, 0, 0, 0], places[0, 1, 0, 0, 0, 1], places[1, 2] = torch.nan, torch.inf, 1e30
    return torch.randn(2, POSITIONS, 4, 8), places, torch.rand(2, 7, 4, 3, 4)


def convolution(modulated: bool) -> tuple[Tensor, ...]:
    offset = torch.randn(2, 2 * 2 * 6, 4, 10) * 2
    offset[0, 0, 0, 0], offset[0, 3, 1, 1] = torch.nan, -torch.inf
    plain = (torch.randn(2, 8, 9, 10), offset, torch.randn(6, 4, 3, 2))
    return (*plain, torch.rand(2, 12, 4, 10)) if modulated else (*plain, torch.randn(6))


def convolve(x: Tensor, offset: Tensor, weight: Tensor, bias: Tensor | None, mask: Tensor | None) -> Tensor:
    return ops.deform_conv2d(
        x, offset, weight, bias, mask=mask, stride=(2, 1), padding=(1, 1), dilation=(2, 2)
    )


def points() -> tuple[Tensor, ...]:
    places = torch.rand(2, 20, 2) * 1.4 - 0.2
    places[0, 0, 0], places[1, 1] = torch.nan, torch.inf
    return torch.randn(2, 5, 9, 7), places


def masks() -> tuple[Tensor, ...]:
    values, boxes = torch.rand(9, 14, 12), random_boxes(9)
    boxes[0, 2], boxes[1, 0], boxes[2, 3] = boxes[0, 0], torch.nan, torch.inf
    values[3, 2, 2], values[4, 3, 3] = torch.nan, torch.inf
    return values, boxes


CASES: dict[str, tuple[str, Callable[..., Tensor], Callable[[], tuple[Tensor, ...]]]] = {
    "attention": ("MsDeformAttn", lambda v, p, w: ops.ms_deform_attn(v, SHAPES, p, w), attention),
    "convolution": (
        "DeformConv2d",
        lambda x, o, w, b: convolve(x, o, w, b, None),
        lambda: convolution(False),
    ),
    "modulated": (
        "ModulatedDeformConv2d",
        lambda x, o, w, m: convolve(x, o, w, None, m),
        lambda: convolution(True),
    ),
    "points": ("PointSample", lambda x, p: ops.point_sample(x, p), points),
    "corners": ("PointSample", lambda x, p: ops.point_sample(x, p, align_corners=True), points),
    "masks": ("MaskPaste", lambda m, b: ops.mask_paste(m, b, height=70, width=90), masks),
}


@pytest.mark.parametrize("case", list(CASES))
def test_one_file_two_paths(case: str, tmp_path: Path) -> None:
    node, function, make = CASES[case]
    torch.manual_seed(0)
    one_file_two_paths(node, function, make(), tmp_path / f"{case}.onnx")


@pytest.mark.parametrize("case", ["attention", "masks", "points"])
def test_no_images(case: str) -> None:
    _, function, make = CASES[case]
    inputs = [t[:0] for t in make()]
    model = export(function, make())
    for tensor in (*model.graph.input, *model.graph.output):
        tensor.type.tensor_type.shape.dim[0].dim_param = "n"
    del model.graph.value_info[:]
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    assert run(session, inputs).shape == tuple(function(*inputs).shape)


def test_sizes_of_levels_as_an_input(tmp_path: Path) -> None:
    """The form of graphs of dynamic size, on both roads."""
    tensors = attention()
    names = ["value", "locations", "weights"]
    inputs = [onnx.helper.make_tensor_value_info(n, 1, t.shape) for n, t in zip(names, tensors, strict=True)]
    inputs.append(onnx.helper.make_tensor_value_info("sizes", 7, ["n"]))
    out = onnx.helper.make_tensor_value_info("out", 1, [2, 7, 32])
    node = onnx.helper.make_node("MsDeformAttnSized", [*names, "sizes"], ["out"], domain="detc")
    graph = onnx.helper.make_graph([node], "sized", inputs, [out])
    opsets = [onnx.helper.make_opsetid("", 18), onnx.helper.make_opsetid("detc", 1)]
    model = onnx.helper.make_model(graph, opset_imports=opsets, ir_version=10)
    onnx_bodies.attach(model)
    onnx.save(model, tmp_path / "sized.onnx")
    sizes = torch.tensor([n for pair in SHAPES for n in pair])
    wanted = ops.ms_deform_attn(tensors[0], SHAPES, tensors[1], tensors[2])
    for native in (False, *([True] if ort.library() else [])):
        before = ort.native_calls()
        session = ort.ort_session(tmp_path / "sized.onnx", native=native)
        assert_agrees(run(session, [*tensors, sizes]), wanted)
        assert ort.native_calls() - before == native
        if native:
            with pytest.raises(Exception, match="MsDeformAttn"):
                run(session, [*tensors, -sizes])
