"""ONNX files as detectors, around the session: layouts, dtypes, fixed batches, files of others."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from detc.dsl.diagnostics import DetError
from detc.runtime import onnx as onnx_module
from detc.runtime.detector import Detector
from detc.runtime.onnx import OnnxGraph, load_onnx


class Session:
    """Answers like an InferenceSession: one box, as large as the image; remembers what it was fed."""

    def __init__(self, shape=("batch", 3, "height", "width"), kind="tensor(uint8)", outputs=None) -> None:
        self.shape, self.kind = list(shape), kind
        self.names = outputs or ["boxes", "scores", "labels", "valid"]
        self.fed: list[np.ndarray] = []

    def get_inputs(self):
        return [SimpleNamespace(name="image", shape=self.shape, type=self.kind)]

    def get_outputs(self):
        return [SimpleNamespace(name=n) for n in self.names]

    def get_modelmeta(self):
        return SimpleNamespace(custom_metadata_map={"classes": '["cat", "dog"]'})

    def run(self, names, feeds):
        self.fed.append(feeds["image"])
        n = len(feeds["image"])
        h, w = feeds["image"].shape[1:3] if self.shape[3] == 3 else feeds["image"].shape[2:]
        boxes = np.tile(np.array([0, 0, w, h], np.float32), (n, 1, 1))
        ones = np.ones((n, 1), np.float32)
        return [boxes, 0.9 * ones, ones.astype(np.int64), ones.astype(bool)]


@pytest.mark.parametrize(
    "shape", [("b", 3, "h", "w"), ("b", "h", "w", 3), (4, 3, "h", "w"), (1, 3, "h", "w")]
)
@pytest.mark.parametrize("kind", ["tensor(uint8)", "tensor(float)"])
def test_every_layout_gives_the_same(monkeypatch, tmp_path, shape, kind):
    session = Session(shape, kind)
    monkeypatch.setattr(onnx_module, "open_session", lambda *a, **k: session)
    detector = load_onnx(tmp_path / "m.onnx")
    assert isinstance(detector, Detector) and detector.backend == "onnxruntime"
    images = [np.full((20, 30, 3), i, np.uint8) for i in range(3)]
    results = detector.predict(images, batch=3)
    assert [r.boxes.tolist() for r in results] == [[[0, 0, 30, 20]]] * 3
    assert [r.names for r in results] == [["dog"]] * 3
    assert all(f.dtype == (np.uint8 if kind == "tensor(uint8)" else np.float32) for f in session.fed)
    assert all(len(f) == shape[0] for f in session.fed if isinstance(shape[0], int))


def test_float_pixels_are_rounded_for_a_file_that_wants_bytes():
    session = Session()
    OnnxGraph(session)(torch.full((1, 3, 4, 4), 99.7))
    assert session.fed[0].dtype == np.uint8 and (session.fed[0] == 100).all()
    OnnxGraph(session)(torch.full((1, 3, 4, 4), 300.0))
    assert (session.fed[1] == 255).all()


def test_files_of_others_are_refused(monkeypatch, tmp_path):
    monkeypatch.setattr(onnx_module, "open_session", lambda *a, **k: Session(outputs=["logits"]))
    with pytest.raises(DetError, match="not a detector that detc compiled"):
        load_onnx(tmp_path / "m.onnx")
