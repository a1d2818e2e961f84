"""One ONNX file, two roads: the function it carries in stock onnxruntime, the native kernel where the library
is registered."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor

from detc.nativeops import build, loader, onnx_bodies, ops, ort
from detc.nativeops.ops.nms import METHODS
from tests.nativeops.op_checks import random_boxes, require_native


class Wrapped(torch.nn.Module):
    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *inputs: Tensor) -> Any:
        return self.function(*inputs)


@pytest.fixture(scope="module", autouse=True)
def library() -> build.Library:
    require_native()
    found = ort.library()
    if found is None:
        pytest.skip("the ONNX Runtime library cannot be built here (its headers are missing)")
    torch.manual_seed(0)
    return found


def export(function: Callable[..., Any], inputs: tuple[Tensor, ...], path: Path) -> onnx.ModelProto:
    program = torch.export.export(Wrapped(function), inputs)
    made = torch.onnx.export(
        program,
        dynamo=True,
        opset_version=18,
        custom_translation_table=onnx_bodies.translations(),
        verbose=False,
    )
    assert made is not None
    model: onnx.ModelProto = made.model_proto
    onnx_bodies.attach(model)
    onnx.checker.check_model(model)
    onnx.save(model, str(path))
    return model


def run(path: Path, inputs: tuple[Tensor, ...], native: bool) -> tuple[list[np.ndarray], set[str], int]:
    """Outputs, the kinds of nodes that were executed (from ONNX Runtime's own profile), and how many calls
    our kernels had."""
    options = onnxruntime.SessionOptions()
    options.enable_profiling = True
    options.profile_file_prefix = str(path.with_suffix(f".{native}"))
    session = ort.ort_session(path, native=native, sess_options=options)
    before = ort.native_calls()
    outputs = session.run(
        None, {i.name: x.numpy() for i, x in zip(session.get_inputs(), inputs, strict=True)}
    )
    profile = json.loads(Path(session.end_profiling()).read_text())
    executed = {
        event["args"]["op_name"]
        for event in profile
        if event.get("cat") == "Node" and "op_name" in event.get("args", {})
    }
    return outputs, executed, ort.native_calls() - before


def check_both_roads(
    function: Callable[..., Any], inputs: tuple[Tensor, ...], names: set[str], folder: Path
) -> None:
    model = export(function, inputs, folder / "model.onnx")
    assert {n.op_type for n in model.graph.node if n.domain == "detc"} == names
    assert names <= {f.name for f in model.functions}
    eager = function(*inputs)
    wanted = [eager] if isinstance(eager, Tensor) else list(eager)
    for native in (False, True):
        outputs, executed, calls = run(folder / "model.onnx", inputs, native)
        if native:
            assert names <= executed and calls == len(names)
        else:
            assert not names & executed and calls == 0  # the function's standard nodes ran in its place
        for got, expected in zip(outputs, wanted, strict=True):
            assert got.shape == tuple(expected.shape)
            np.testing.assert_allclose(got.astype(np.float64), expected.double().numpy(), atol=1e-4)


@pytest.mark.parametrize("agnostic", [False, True])
@pytest.mark.parametrize(("pre_topk", "keep"), [(0, 40), (25, 10)])
def test_batched_nms(agnostic: bool, pre_topk: int, keep: int, tmp_path: Path) -> None:
    def detect(boxes: Tensor, scores: Tensor) -> tuple[Tensor, ...]:
        return tuple(
            ops.batched_nms(
                boxes,
                scores,
                iou_threshold=0.6,
                score_threshold=0.3,
                keep=keep,
                pre_topk=pre_topk,
                class_agnostic=agnostic,
            )
        )

    check_both_roads(detect, (random_boxes(2, 60), torch.rand(2, 60, 3)), {"BatchedNMS"}, tmp_path)


NODES = {"hard": "BatchedNMS", "soft": "BatchedSoftNMS", "matrix": "BatchedMatrixNMS"}


@pytest.mark.parametrize("method", METHODS)
def test_batched_nms_with_labels(method: str, tmp_path: Path) -> None:
    def detect(boxes: Tensor, scores: Tensor, labels: Tensor) -> tuple[Tensor, ...]:
        return tuple(ops.batched_nms(boxes, scores, labels=labels, iou_threshold=0.6, keep=30, method=method))

    inputs = (random_boxes(2, 50), torch.rand(2, 50), torch.randint(-1, 5, (2, 50)))
    check_both_roads(detect, inputs, {NODES[method.split("_")[0]] + "Labelled"}, tmp_path)


@pytest.mark.parametrize("agnostic", [False, True])
@pytest.mark.parametrize("method", METHODS[1:])
def test_decaying_nms(method: str, agnostic: bool, tmp_path: Path) -> None:
    def detect(boxes: Tensor, scores: Tensor) -> tuple[Tensor, ...]:
        return tuple(
            ops.batched_nms(
                boxes,
                scores,
                iou_threshold=0.3,
                score_threshold=0.2,
                keep=60,
                pre_topk=90,
                class_agnostic=agnostic,
                method=method,
                sigma=0.7,
                min_score=0.15,
            )
        )

    boxes = random_boxes(2, 60)
    boxes[0, :3, 2:] = boxes[0, :3, :2]  # points
    boxes[1, 3:7] = boxes[1, 3]  # one box four times
    check_both_roads(detect, (boxes, torch.rand(2, 60, 3)), {NODES[method.split("_")[0]]}, tmp_path)


def test_rotated_boxes_have_no_form(tmp_path: Path) -> None:
    with pytest.raises(Exception, match="rotated boxes has no ONNX form"):
        export(
            lambda b, s: tuple(ops.batched_nms(b, s, iou_threshold=0.5, keep=4)),
            (torch.rand(1, 5, 5), torch.rand(1, 5, 2)),
            tmp_path / "m.onnx",
        )


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("shape", [(3, 7, 4), (2, 4, 9)])
def test_linear_assignment(shape: tuple[int, int, int], masked: bool, tmp_path: Path) -> None:
    def match(cost: Tensor, rows: Tensor, cols: Tensor) -> tuple[Tensor, ...]:
        if not masked:
            return tuple(ops.linear_assignment(cost * (rows | ~rows)[..., None] * (cols | ~cols)[:, None]))
        return tuple(ops.linear_assignment(cost, row_valid_BN=rows, col_valid_BM=cols))

    cost = torch.rand(shape)
    cost[0, 0, 0] = float("nan")
    inputs = (cost, torch.rand(shape[:2]) > 0.2, torch.rand(shape[0], shape[2]) > 0.2)
    check_both_roads(match, inputs, {"LinearAssignment"}, tmp_path)


@pytest.mark.parametrize("levels", [1, 4])
@pytest.mark.parametrize("aligned", [False, True])
@pytest.mark.parametrize("ratio", [0, 2])
def test_multilevel_roi_align(levels: int, aligned: bool, ratio: int, tmp_path: Path) -> None:
    strides = (4.0, 8.0, 16.0, 32.0)[:levels]

    def pool(rois: Tensor, valid: Tensor, *features: Tensor) -> Tensor:
        return ops.multilevel_roi_align(
            features,
            rois,
            output_size=(7, 5),
            strides=strides,
            sampling_ratio=ratio,
            aligned=aligned,
            valid=valid,
            canonical_scale=56,
        )

    features = [torch.randn(2, 3, int(128 // s), int(160 // s)) for s in strides]
    inputs = (random_boxes(2, 20, high=100, largest=120), torch.rand(2, 20) > 0.2, *features)
    check_both_roads(pool, inputs, {f"MultilevelRoiAlign{levels}"}, tmp_path)


@pytest.mark.parametrize("native", [False, True])
@pytest.mark.parametrize("method", METHODS)
def test_empty_and_odd_inputs(method: str, native: bool, tmp_path: Path) -> None:
    """Shapes known only at run time: no boxes, no images, NaN scores; on both roads."""

    def detect(boxes: Tensor, scores: Tensor) -> tuple[Tensor, ...]:
        return tuple(ops.batched_nms(boxes, scores, iou_threshold=0.5, keep=4, method=method))

    batch, boxes = torch.export.Dim("batch"), torch.export.Dim("boxes")
    program = torch.export.export(
        Wrapped(detect),
        (torch.rand(2, 6, 4), torch.rand(2, 6, 3)),
        dynamic_shapes=(((({0: batch, 1: boxes}), ({0: batch, 1: boxes}))),),
    )
    made = torch.onnx.export(
        program,
        dynamo=True,
        opset_version=18,
        custom_translation_table=onnx_bodies.translations(),
        verbose=False,
    )
    assert made is not None
    model = made.model_proto
    onnx_bodies.attach(model)
    onnx.save(model, str(tmp_path / "d.onnx"))
    session = ort.ort_session(tmp_path / "d.onnx", native=native)
    names = [i.name for i in session.get_inputs()]
    for shape in ((2, 0), (0, 5), (0, 0), (1, 9)):
        scores = torch.rand(*shape, 3)
        if scores.numel():
            scores[0, 0] = float("nan")
        inputs = (random_boxes(*shape), scores)
        outputs = session.run(None, {n: x.numpy() for n, x in zip(names, inputs, strict=True)})
        for got, expected in zip(outputs, detect(*inputs), strict=True):
            np.testing.assert_allclose(got, expected.numpy(), atol=1e-5)


def bodies() -> list[str]:
    return sorted(name for module in onnx_bodies._modules() for name in module.FUNCTIONS)


@pytest.mark.parametrize("name", bodies())
def test_every_function_has_a_kernel(name: str, tmp_path: Path) -> None:
    """A node without its function and its attributes: the library knows the name and asks for what is missing."""
    body = {n: v for module in onnx_bodies._modules() for n, v in module.FUNCTIONS.items()}[name]()
    function = onnx.parser.parse_function(body) if isinstance(body, str) else body
    kinds = {
        "mask": 9 if name == "MaskedConv2d" else 1,
        "valid": 9,
        "row_valid": 9,
        "col_valid": 9,
        "labels": 7,
        "size": 7,
        "flat": 7,
    }
    inputs = [onnx.helper.make_tensor_value_info(n, kinds.get(n, 1), [None] * 3) for n in function.input]
    outputs = [onnx.helper.make_empty_tensor_value_info(n) for n in function.output]
    node = onnx.helper.make_node(name, list(function.input), list(function.output), domain="detc")
    graph = onnx.helper.make_graph([node], "g", inputs, outputs)
    domains = [onnx.helper.make_opsetid("", 18), onnx.helper.make_opsetid("detc", 1)]
    model = onnx.helper.make_model(graph, opset_imports=domains, ir_version=10)
    onnx.save(model, str(tmp_path / "m.onnx"))
    with pytest.raises(Exception, match="not a registered function"):
        ort.ort_session(tmp_path / "m.onnx", native=False)
    try:
        ort.ort_session(tmp_path / "m.onnx", native=True)
    except Exception as problem:  # onnxruntime has an exception of its own for each kind of failure
        assert "ttribute" in str(problem), problem


def test_session_says_when_there_is_no_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    export(
        lambda b, s: tuple(ops.batched_nms(b, s, iou_threshold=0.5, keep=4)),
        (random_boxes(1, 5), torch.rand(1, 5, 2)),
        tmp_path / "m.onnx",
    )
    monkeypatch.setattr(ort, "_STATE", {})
    monkeypatch.setattr(build, "find", lambda *a, **k: None)

    def no_compiler(*args: object, **options: object) -> build.Library:
        raise build.NativeBuildError("no C++ compiler was found", hint="Install g++.")

    monkeypatch.setattr(build, "build_for_here", no_compiler)
    with pytest.warns(loader.NativeFallbackWarning, match="through the functions they carry"):
        session = ort.ort_session(tmp_path / "m.onnx")
    assert session.get_outputs()
    with pytest.raises(build.NativeBuildError, match="no native library"):
        ort.ort_session(tmp_path / "m.onnx", native=True)
