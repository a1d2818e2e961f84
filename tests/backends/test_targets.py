"""Fields of targets together: the files are written, which they are only if they agree with torch."""

from __future__ import annotations

from pathlib import Path

import onnx
import onnxruntime
import pytest

from detc.compiler.check import check
from detc.runtime.export import compile_to
from tests.compiler.specs import TINY
from tests.models import test_mask_rcnn

MASK = test_mask_rcnn.SMALL.format(base="MaskRCNN", edits=test_mask_rcnn.EDITS["MaskRCNN"])


def compiled(spec: str, fields: str, tmp_path: Path) -> onnx.ModelProto:
    result = check(spec + f"\ntarget wanted {{ {fields} }}\n", name="s.det")
    assert not result.report.errors, result.report.errors
    out = tmp_path / "m.onnx"
    done = compile_to(result.run(), out, target="wanted")
    assert done.comparison is not None and done.comparison.detections > 0
    return onnx.load(out)


@pytest.mark.parametrize("fields", ["opset = 21", 'opset = 20  nms = "NonMaxSuppression"'])
def test_later_opsets(fields: str, tmp_path: Path) -> None:
    model = compiled(TINY.format(more="", model="Tiny()"), f"image = 96x160  {fields}", tmp_path)
    version = int(fields.split()[2])
    assert {o.version for o in model.opset_import if o.domain == ""} == {version}
    assert all(o.version == version for f in model.functions for o in f.opset_import if o.domain == "")


def test_floating_pixels_last_in_batches_of_three(tmp_path: Path) -> None:
    fields = 'image = 33x33  layout = "nhwc"  pixels = "float32"  batch = 3'
    model = compiled(TINY.format(more="", model="Tiny()"), fields, tmp_path)
    (image,) = model.graph.input
    shape = image.type.tensor_type.shape.dim
    assert image.type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    assert shape[0].dim_value == 3 and shape[3].dim_value == 3


@pytest.mark.slow
def test_channels_last_at_any_size(tmp_path: Path) -> None:
    compiled(MASK, 'image = none  layout = "nhwc"', tmp_path)


def test_what_onnx_runtime_does_not_take_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise RuntimeError("[ONNXRuntimeError] : 9 : NOT_IMPLEMENTED : no kernel\nmore")

    monkeypatch.setattr(onnxruntime, "InferenceSession", refuse)
    with pytest.raises(Exception, match="does not take the model") as caught:
        compiled(TINY.format(more="", model="Tiny()"), "image = 96x160", tmp_path)
    assert type(caught.value).__name__ == "DetError" and not (tmp_path / "m.onnx").exists()
