"""FastestDet with its published weights: what its own ONNX file gives, AP included, and an export that agrees."""

from __future__ import annotations

import json
import math
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import detc
from detc.compiler.check import check
from detc.compiler.program import build
from detc.nativeops import ops
from detc.runtime.data.loader import make_loader
from detc.runtime.evaluate import evaluate_file
from detc.runtime.metrics.base import evaluators
from detc.runtime.weights.apply import initialise, sources_of

ROOT = Path(__file__).parents[2]
SPEC = ROOT / "specs" / "fastestdet.det"
SHARED = ROOT.parent / "shared" / "data"
WEIGHTS = SHARED / "weights" / "fastestdet"

pytestmark = [
    pytest.mark.skipif(not WEIGHTS.is_dir(), reason="the shared weights of FastestDet are not here"),
    pytest.mark.skipif(not (SHARED / "coco64").is_dir(), reason="the shared coco64 is not here"),
]


@pytest.fixture(autouse=True)
def _beside_the_shared_data(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


@cache
def program() -> Any:
    result = check(str(SPEC))
    assert not result.report.diagnostics, result.report.diagnostics
    built = build(result.run())
    (report,) = initialise(built, sources_of(built.run))
    assert report.table == "fastestdet"
    assert not report.skipped and not report.missing
    return built


def session() -> Any:
    import onnxruntime

    return onnxruntime.InferenceSession(str(WEIGHTS / "FastestDet.onnx"), providers=["CPUExecutionProvider"])


def decoded(maps_85HW: np.ndarray[Any, Any]) -> dict[str, Tensor]:
    """Its own output as detections, by the description beside the weights."""
    out = torch.from_numpy(maps_85HW)
    object_HW, box_4HW, class_CHW = out[0], out[1:5], out[5:]
    cells = torch.arange(22.0)
    x = (box_4HW[0].tanh() + cells) * 16
    y = (box_4HW[1].tanh() + cells[:, None]) * 16
    w, h = box_4HW[2].sigmoid() * 352, box_4HW[3].sigmoid() * 352
    boxes = torch.stack((x - w / 2, y - h / 2, x + w / 2, y + h / 2), -1).reshape(1, -1, 4)
    best, label = class_CHW.max(0)
    scores = (object_HW**0.6 * best**0.4).reshape(1, -1)
    found = ops.batched_nms(
        boxes, scores, labels=label.reshape(1, -1), iou_threshold=0.45, score_threshold=0.001, keep=100
    )
    return {"boxes": found.boxes, "scores": found.scores, "labels": found.labels, "valid": found.valid}


def test_the_spec_fits_its_bounds() -> None:
    assert len(SPEC.read_text().splitlines()) <= 120
    shapes = json.loads((WEIGHTS / "state_dict_shapes.json").read_text())
    learnt = [s for k, s in shapes.items() if k.endswith(("weight", "bias"))]
    assert sum(p.numel() for p in program().model.parameters()) == sum(math.prod(s) for s in learnt)


def test_its_own_onnx_file_gives_the_same() -> None:
    theirs = session()
    name = theirs.get_inputs()[0].name
    pixels = torch.rand(1, 3, 352, 352, generator=torch.Generator().manual_seed(0)) * 255
    expected = decoded(theirs.run(None, {name: (pixels.flip(1) / 255).numpy()})[0][0])
    program().model.eval()
    with torch.no_grad():
        found = program().infer_graph({"pixels": pixels, "size": torch.tensor([[352.0, 352.0]])})[
            "detections"
        ]
    assert torch.equal(found["valid"], expected["valid"])
    assert torch.equal(found["labels"], expected["labels"])
    torch.testing.assert_close(found["scores"], expected["scores"], atol=1e-4, rtol=0)
    torch.testing.assert_close(found["boxes"], expected["boxes"], atol=0.01, rtol=0)


def test_average_precision_is_that_of_its_own_file() -> None:
    mine = evaluate_file(SPEC)
    theirs = session()
    name = theirs.get_inputs()[0].name

    data = program().run.data
    loader = make_loader(data, "val", 1, train=False, workers=0)
    (evaluator,) = evaluators(data, "val", loader.dataset).values()
    for batch in loader:
        pixels = (batch["image"]["pixels"].flip(1) / 255).contiguous().numpy()
        evaluator.update(decoded(theirs.run(None, {name: pixels})[0][0]), batch["meta"])
    reference = evaluator.compute()
    published = json.loads((WEIGHTS / "expected_ap_coco64.json").read_text())
    (numbers,) = published.values()
    for key, name in (("ap", "AP"), ("ap50", "AP50"), ("ap75", "AP75")):
        assert abs(mine[key] - reference[name]) < 0.002
    assert abs(mine["ap"] - numbers["AP"]) < 0.002


def test_photos_give_the_published_objects() -> None:
    expected = json.loads((WEIGHTS / "expected_detections.json").read_text())
    detector = detc.load(SPEC)
    for file, objects in expected.items():
        (found,) = detector.predict(SHARED / "photos" / file, score=0.25)
        for thing in objects:
            near = [
                d
                for d in found
                if d.name == thing["label"] and np.abs(np.subtract(d.box, thing["box_xyxy"])).max() < 4
            ]
            assert near, f"{file}: no {thing}"
            assert min(abs(d.score - thing["score"]) for d in near) < 0.04


def test_an_export_is_equal(tmp_path: Path) -> None:
    written = detc.compile(SPEC, tmp_path / "f.onnx")  # compares with torch before it writes
    assert written.comparison is not None and written.comparison.problem is None
    ours, theirs = detc.load(SPEC), detc.load(written.path)
    photo = SHARED / "photos" / "dog.jpg"
    (a,), (b,) = ours.predict(photo), theirs.predict(photo)
    assert a.names == b.names and len(a) >= 5
    np.testing.assert_allclose(a.boxes, b.boxes, atol=0.05)
    np.testing.assert_allclose(a.scores, b.scores, atol=1e-4)
