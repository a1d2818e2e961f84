"""ONNX files in half precision."""

from __future__ import annotations

import onnx
import pytest
import torch

from detc.compiler.backends.verify import EXACT, HALF, compare
from detc.compiler.check import check
from detc.compiler.program import build
from detc.compiler.spec import Size, TargetSpec
from detc.runtime.export import _deploy, export_onnx
from tests.compiler.specs import tiny

ort = pytest.importorskip("onnxruntime")


def test_the_trunk_is_half_and_coordinates_are_not() -> None:
    program = build(tiny("Tiny()").run(), seed=0)
    program.model.eval()
    spec = TargetSpec(image=Size(128, 128), precision="fp16", stated=frozenset({"image", "precision"}))
    model = export_onnx(program, spec)
    kinds = {v.data_type for v in model.graph.initializer if v.name.endswith(".half")}
    assert kinds == {onnx.TensorProto.FLOAT16}
    convs = [n for n in model.graph.node if n.op_type == "Conv"]
    assert convs and all(i.endswith(".half") for n in convs for i in n.input)
    assert {o.type.tensor_type.elem_type for o in model.graph.output if o.name in ("boxes", "scores")} == {
        onnx.TensorProto.FLOAT
    }
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    image = torch.randint(0, 256, (1, 3, 128, 128), dtype=torch.uint8)
    names = [o.name for o in session.get_outputs()]
    found = dict(zip(names, session.run(None, {"image": image.numpy()}), strict=True))
    with torch.no_grad():
        expected = _deploy(program, spec, None)(image)
    assert compare(expected, found, tolerance=HALF).problem is None
    exact = compare(expected, found, tolerance=EXACT)
    assert exact.problem is not None or exact.score > 0  # it is not the fp32 file after all


@pytest.mark.parametrize(
    ("field", "word"),
    [
        ('precision = "bf16"', "bf16"),
        ('nms = "topk"', "topk"),
        ('nms = "EfficientNMS_TRT"', "EfficientNMS_TRT"),
        ("opset = 17", "opset 17"),
    ],
)
def test_what_cannot_be_exported_is_known_to_check(field: str, word: str) -> None:
    text = f"""det 1
import std.models {{ RTMDetTiny }}
target t {{ {field} }}
run {{ model = RTMDetTiny(classes = ["a"])  target = t() }}
"""
    (found,) = check(text).report.errors
    assert found.code == "DET0802" and word in found.message and found.labels[0].origin.span
