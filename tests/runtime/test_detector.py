"""Prediction around the network: inputs of all kinds, order, batches, broken files, ONNX Runtime."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from detc.runtime.bench import measure, quantile
from detc.runtime.detector import Detector
from detc.runtime.images import ImageError
from detc.runtime.load import find, load


class Brightest(nn.Module):
    """A stand-in for a deployed graph: finds one box from the brightest pixel; remembers batch sizes."""

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[int] = []

    def forward(self, image):
        self.batches.append(len(image))
        b, w = len(image), image.shape[3]
        place = image.float().mean(1).flatten(1).argmax(1)
        y, x = place // w, place % w
        box = torch.stack([x, y, x + 1, y + 1], -1).float()
        return {
            "boxes": torch.stack([box, torch.zeros_like(box), box], 1),
            "scores": torch.tensor([[0.9, 0.4, 0.8]]).repeat(b, 1),
            "labels": torch.tensor([[1, 0, 0]]).repeat(b, 1),
            "valid": torch.tensor([[True, True, False]]).repeat(b, 1),
        }


@pytest.fixture
def detector() -> Detector:
    return Detector(Brightest(), ["cat", "dog"])


def picture(x: int, y: int, size=(30, 20)) -> np.ndarray:
    image = np.zeros((size[1], size[0], 3), np.uint8)
    image[y, x] = 255
    return image


def test_results_are_those_of_their_images(detector, tmp_path):
    Image.fromarray(picture(4, 5)).save(tmp_path / "b.png")
    Image.fromarray(picture(7, 2, (40, 40))).save(tmp_path / "a.png")
    mixed = [tmp_path, picture(9, 9), torch.from_numpy(picture(1, 1)).permute(2, 0, 1)]
    for batch in (1, 2, 8):
        results = detector.predict(mixed, batch=batch)
        assert [r.boxes[0, :2].tolist() for r in results] == [[7, 2], [4, 5], [9, 9], [1, 1]]
        assert [r.size for r in results] == [(40, 40), (20, 30), (20, 30), (20, 30)]
    assert results[0].name.endswith("a.png") and results[2].name == "image 0"
    assert results[0].names == ["dog", "cat"], "padding is dropped"
    assert max(detector.deployed.batches) == 3


def test_score_threshold(detector):
    assert detector.predict(picture(1, 1), score=0.5)[0].names == ["dog"]
    assert len(detector.predict(picture(1, 1), score=0.95)[0]) == 0


def test_broken_images_are_named_and_skipped(detector, tmp_path):
    Image.fromarray(picture(4, 5)).save(tmp_path / "a.jpg", quality=95)
    (tmp_path / "b.jpg").write_bytes((tmp_path / "a.jpg").read_bytes()[:100])
    with pytest.raises(ImageError, match=r"b\.jpg"):
        detector.predict(tmp_path)
    faults = []
    results = detector.predict(tmp_path, batch=4, on_error=faults.append)
    assert len(results) == 1 and [f.name.rsplit("/", 1)[1] for f in faults] == ["b.jpg"]


def test_a_result_draws_itself(detector, tmp_path):
    Image.fromarray(picture(4, 5)).save(tmp_path / "a.png")
    drawn = detector.predict(tmp_path / "a.png")[0].draw(line=1)
    assert drawn.size == (30, 20)
    assert isinstance(detector, nn.Module) and "2 classes" in repr(detector)


def test_load_says_what_it_needs(tmp_path):
    from detc.dsl.diagnostics import DetError

    with pytest.raises(DetError, match="no checkpoint"):
        find(tmp_path)
    with pytest.raises(DetError, match="no file"):
        find(tmp_path / "gone.det")
    (tmp_path / "last.pt").write_bytes(b"")
    assert find(tmp_path).name == "last.pt"
    (tmp_path / "m.onnx").write_bytes(b"")
    with pytest.raises(ValueError, match="`sets` goes with a"):
        load(tmp_path / "m.onnx", sets=["a.b=1"])


def test_measuring():
    timing = measure(lambda: sum(range(2000)), warmup=1, runs=30, seconds=0)
    assert 0 < timing.p5 <= timing.median <= timing.p95 and timing.runs == 30
    assert quantile([1.0, 2.0, 3.0, 5.0], 0.5) == 2.5
    assert quantile([4.0], 0.95) == 4.0


def test_detecting_leaves_a_detector_as_it_is():
    """A batch norm in training mode would learn the statistics of what is predicted."""

    class Normed(Brightest):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.BatchNorm2d(3)

        def forward(self, image):
            return super().forward(self.norm(image.float()))

    deployed = Normed()
    detector = Detector(deployed, ["cat", "dog"])
    assert detector.train() is detector
    detector.predict(picture(1, 1))
    assert deployed.norm.num_batches_tracked == 0
