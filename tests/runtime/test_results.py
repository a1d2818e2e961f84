"""The result object: access, filtering, printing, conversions."""

from __future__ import annotations

import json

import numpy as np
import pytest

from detc.runtime.results import Detections


@pytest.fixture
def found() -> Detections:
    masks = np.zeros((3, 40, 60), bool)
    masks[0, 2:12, 5:25] = True
    return Detections(
        boxes=[[5, 2, 25, 12], [30, 10, 50, 38], [0, 0, 4, 4]],
        scores=[0.9, 0.6, 0.2],
        labels=[1, 0, 1],
        classes=("cat", "dog"),
        size=(40, 60),
        masks=masks,
        name="shots/yard one.jpg",
    )


def test_access(found):
    assert len(found) == 3
    assert [d.name for d in found] == ["dog", "cat", "dog"]
    first = found[0]
    assert first.box == (5.0, 2.0, 25.0, 12.0) and first.area == 200.0
    assert found[-1].score == pytest.approx(0.2)
    assert len(found[1:]) == 2 and found[[2, 0]].names == ["dog", "dog"]
    assert len(found[[]]) == 0
    assert found.stem == "yard_one"


def test_filter(found):
    assert found.filter(0.5).names == ["dog", "cat"]
    assert found.filter(0.6).names == ["dog", "cat"], "the threshold itself is in"
    assert found.filter(classes=["dog"]).scores.tolist() == pytest.approx([0.9, 0.2])
    assert found.filter(classes=[0]).names == ["cat"]
    assert found.filter(limit=1).names == ["dog"]
    assert found.filter(0.5).masks.shape == (2, 40, 60)
    with pytest.raises(ValueError, match="no class `dgo`; did you mean `dog`"):
        found.filter(classes=["dgo"])


def test_prints(found):
    assert repr(found) == "<Detections shots/yard one.jpg: 2 dog, 1 cat>"
    text = str(found).splitlines()
    assert text[0] == "shots/yard one.jpg, 60 x 40: 2 dog, 1 cat"
    assert text[1] == "  dog  0.900  (5.0, 2.0) - (25.0, 12.0)"
    assert "nothing" in str(found.filter(0.95))


def test_coco_is_what_pycocotools_reads(found, tmp_path):
    from pycocotools import mask as coco_mask

    entries = found.to_coco(7, category_ids=[11, 22])
    assert entries[1] == {
        "image_id": 7,
        "category_id": 11,
        "bbox": [30.0, 10.0, 20.0, 28.0],
        "score": pytest.approx(0.6),
        "segmentation": entries[1]["segmentation"],
    }
    assert found.to_coco(7)[0]["category_id"] == 2
    decoded = coco_mask.decode(json.loads(json.dumps(entries[0]["segmentation"])))
    assert (decoded.astype(bool) == found.masks[0]).all()


def test_dict_survives_json(found):
    back = json.loads(json.dumps(found.to_dict()))
    assert (back["width"], back["height"], len(back["objects"])) == (60, 40, 3)
    assert back["objects"][1]["name"] == "cat" and back["objects"][1]["box"] == [30, 10, 50, 38]


@pytest.mark.filterwarnings("ignore:OpenCV")
def test_supervision(found):
    supervision = pytest.importorskip("supervision")
    theirs = found.to_supervision()
    assert isinstance(theirs, supervision.Detections)
    assert theirs.xyxy.tolist() == found.boxes.tolist()
    assert theirs.data["class_name"].tolist() == ["dog", "cat", "dog"]
    assert theirs.mask.sum() == 200


def test_empty():
    nothing = Detections([], [], [], ("a",), (10, 10))
    assert nothing.boxes.shape == (0, 4) and list(nothing) == [] and nothing.to_coco(1) == []
    assert nothing.to_dict()["objects"] == [] and nothing.summary() == "nothing"


def test_unequal_lengths_are_refused():
    with pytest.raises(ValueError, match="as many of each"):
        Detections([[0, 0, 1, 1]], [0.5, 0.4], [0], ("a",), (10, 10))


def test_drawing_needs_an_image(found):
    with pytest.raises(ValueError, match="does not remember its image"):
        found.draw()
