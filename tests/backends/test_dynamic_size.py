"""`image = none`: one ONNX file for images of any size, with coarse levels and deformable attention too."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from detc.compiler.backends.verify import compare
from detc.compiler.check import check
from detc.compiler.program import build
from detc.dsl.diagnostics import DetError
from detc.runtime.api import ort_session
from detc.runtime.export import compile_to
from detc.runtime.train.checkpoint import Checkpoint, save_checkpoint
from tests.compiler.specs import TINY
from tests.models import test_detr, test_mask_rcnn

ANY = "\ntarget any { image = none }\n"
SPECS = {
    "masks, stride 64": test_mask_rcnn.SMALL.format(base="MaskRCNN", edits=test_mask_rcnn.EDITS["MaskRCNN"]),
    "deformable attention": test_detr.text_of("plain", 1),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", SPECS)
def test_images_of_any_size(name: str, tmp_path: Path) -> None:
    result = check(SPECS[name] + ANY)
    assert not result.report.errors, result.report.errors
    run = result.run()
    program = build(run, seed=0)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in program.model.parameters():
            parameter.add_(0.02 * torch.randn(parameter.shape, generator=generator))
    save_checkpoint(tmp_path / "w.pt", Checkpoint(run.text, "", run.classes, program.model.state_dict()))
    out = tmp_path / "m.onnx"
    made = compile_to(run, out, weights=tmp_path / "w.pt", target="any")
    assert made.comparison is not None and made.comparison.detections > 0
    deploy = program.deploy(run.find_target("any"))
    stock = onnxruntime.InferenceSession(str(out), providers=["CPUExecutionProvider"])
    for session in (stock, ort_session(out)):
        names = [o.name for o in session.get_outputs()]
        for shape in ((3, 3, 130, 301), (1, 3, 257, 200)):
            image = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
            with torch.no_grad():
                expected = deploy(image)
            values = session.run(names, {session.get_inputs()[0].name: image.numpy()})
            seen = compare(expected, dict(zip(names, values, strict=True)))
            assert seen.problem is None and seen.detections > 0, seen
            assert np.isfinite(values[names.index("boxes")]).all()


def test_what_fp32_formats_refuse_is_blamed_at_the_target(tmp_path: Path) -> None:
    text = TINY.format(more='target half { precision = "fp16" }\n', model="Tiny()")
    run = check(text, name="tiny.det").run()
    with pytest.raises(DetError) as caught:
        compile_to(run, tmp_path / "m.pt2", target="half")
    (found,) = caught.value.diagnostics
    assert found.code == "DET0802" and found.help is not None and ".onnx" in found.help
    assert found.labels[0].origin.span.text == '"fp16"'
