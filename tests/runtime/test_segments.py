"""Maps of segments in results: how they follow a choice, convert, are drawn and written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from detc.runtime.data.segment_map import read_ids
from detc.runtime.detector import Detector
from detc.runtime.draw import class_color, draw
from detc.runtime.predict import predict_to
from detc.runtime.results import Detections

CLASSES = ("cat", "dog", "sky")
MAP = np.array([[1, 1, 0, 2], [1, 3, 3, 2], [3, 3, 3, 3]], np.int32).repeat(20, 0).repeat(20, 1)


def found() -> Detections:
    boxes = [[0, 0, 40, 40], [60, 0, 80, 40], [0, 20, 80, 60]]
    return Detections(boxes, [0.9, 0.8, 0.4], [0, 0, 2], CLASSES, (60, 80), segments=MAP)


def test_a_choice_renumbers_the_map() -> None:
    best = found().filter(0.5)
    assert len(best) == 2 and set(np.unique(best.segments)) == {0, 1, 2}
    second = found()[[1]]
    assert np.array_equal(second.segments, (MAP == 2).astype(np.int32))
    assert found()[-1].mask is not None and found()[-1].mask.sum() == (MAP == 3).sum()  # type: ignore[union-attr]
    assert not found()[[]].segments.any()  # type: ignore[union-attr]


def test_each_detection_has_its_pixels() -> None:
    from pycocotools import mask as coco_mask

    entries = found().to_dict()["objects"]
    for k, entry in enumerate(entries):
        assert np.array_equal(coco_mask.decode(entry["mask"]).astype(bool), MAP == k + 1)
    panoptic = found().to_panoptic("x.png", category_ids=[7, 8, 9])
    assert panoptic["file_name"] == "x.png"
    assert [s["category_id"] for s in panoptic["segments_info"]] == [7, 7, 9]
    assert [s["area"] for s in panoptic["segments_info"]] == [int((MAP == k).sum()) for k in (1, 2, 3)]
    with pytest.raises(ValueError, match="no map"):
        Detections([], [], [], CLASSES, (60, 80)).to_panoptic()


def test_segments_are_filled_with_the_colour_of_their_class() -> None:
    grey = np.full((60, 80, 3), 120, np.uint8)
    pixels = np.asarray(draw(grey, found(), score=0.0, labels=False, alpha=1.0))
    for label, place in ((0, (10, 10)), (0, (10, 70)), (2, (50, 50))):
        assert tuple(pixels[place]) == class_color(label)
    assert tuple(pixels[10, 50]) == (120, 120, 120)
    small = np.asarray(draw(grey, found(), score=0.5, labels=True, zoom=2))
    assert small.shape == (120, 160, 3)


class Deployed(nn.Module):
    """Gives one map, of segments or of classes, for every image."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind

    def forward(self, image: torch.Tensor) -> dict[str, torch.Tensor]:
        labels = torch.tensor([[0, 0, 2]]) if self.kind == "panoptic" else torch.tensor([[2, 1, 0]])
        ids = torch.from_numpy(MAP).long()[None]
        maps = {"panoptic": ids, "semantic": ids.clamp(max=2) - 1}
        return {
            "boxes": torch.zeros(1, 3, 4),
            "scores": torch.tensor([[0.9, 0.8, 0.4]]),
            "labels": labels,
            "valid": torch.ones(1, 3, dtype=torch.bool),
            self.kind: maps[self.kind],
        }


@pytest.mark.parametrize("kind", ["panoptic", "semantic"])
def test_predictions_carry_their_maps(kind: str, tmp_path: Path) -> None:
    Image.fromarray(np.zeros((60, 80, 3), np.uint8)).save(tmp_path / "a.png")
    detector = Detector(Deployed(kind), CLASSES)
    (written,) = predict_to(detector, tmp_path / "a.png", tmp_path / "out", score=0.3)
    ids = read_ids(str(tmp_path / "out" / "a.png"))
    data: Any = json.loads(written.json.read_text())
    if kind == "panoptic":
        assert np.array_equal(ids, MAP)
    else:  # class 0 is the third detection, class 1 the second, no class nothing
        assert np.array_equal(ids, np.array([0, 3, 2])[np.clip(MAP, 0, 2)])
    assert len(data["objects"]) == 3 and all("mask" in o for o in data["objects"])
    assert written.picture is not None and written.picture.is_file()
    (above,) = detector.predict(tmp_path / "a.png", score=0.5)
    assert len(above) == 2 and set(np.unique(above.segments)) <= {0, 1, 2}
