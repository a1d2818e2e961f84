"""VOC's average precision on cases with published answers."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from detc.runtime.metrics.voc import average_precision, class_ap, match
from tests.data.making import shared


def read(folder: Path) -> list[tuple[str, list[float]]]:
    """(image, numbers after the class name) of every line of the text files."""
    return [
        (file.stem, [float(v) for v in line.split()[1:]])
        for file in sorted(folder.glob("*.txt"))
        for line in file.read_text().splitlines()
        if line.strip()
    ]


@pytest.mark.parametrize("iou", [0.3, 0.5])
@pytest.mark.parametrize(
    ("mode", "name"), [("area", "EVERY_POINT_INTERPOLATION"), ("11points", "ELEVEN_POINT_INTERPOLATION")]
)
def test_the_worked_example(iou: float, mode: str, name: str) -> None:
    root = shared("voc_ap_toy")
    truth: dict[str, list[list[float]]] = {}
    for image, (x, y, w, h) in read(root / "groundtruths"):
        truth.setdefault(image, []).append([x, y, x + w, y + h])
    boxes = {k: (np.array(v), np.zeros(len(v), bool)) for k, v in truth.items()}
    found = [(i, s, np.array([x, y, x + w, y + h])) for i, (s, x, y, w, h) in read(root / "detections")]
    hits, misses, count = match(found, boxes, iou, inclusive=True)
    expected = json.loads((root / "expected.json").read_text())["measured"][f"{name}@{iou}"]["mAP"]
    assert (len(found), count) == (24, 15)
    assert class_ap(hits, misses, count, mode) == pytest.approx(expected, abs=1e-8)


def test_area_is_that_under_the_envelope() -> None:
    recall, precision = np.array([0.5, 0.5, 1.0]), np.array([1.0, 0.5, 2 / 3])
    assert average_precision(recall, precision, "area") == pytest.approx(0.5 + 0.5 * 2 / 3)
    assert average_precision(recall, precision, "11points") == pytest.approx((6 + 5 * 2 / 3) / 11)


def test_no_detections_score_nothing() -> None:
    none = np.zeros(0)
    assert average_precision(none, none, "area") == average_precision(none, none, "11points") == 0.0
