"""Panoptic quality equals the reference on COCO's sample, and obeys its definition on small maps."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from detc.runtime.data.segment_map import ids_of
from detc.runtime.metrics.panoptic import PanopticQuality
from tests.data.making import shared


@pytest.mark.parametrize(
    ("file", "folder", "case"),
    [
        ("panoptic_examples.json", "panoptic_examples", "gt vs gt"),
        ("pred_perturbed.json", "pred_perturbed", "gt vs pred_perturbed"),
    ],
)
def test_the_coco_sample(file: str, folder: str, case: str) -> None:
    root = shared("panoptic_coco")
    categories = json.loads((root / "panoptic_coco_categories.json").read_text())
    quality = PanopticQuality(
        frozenset(c["id"] for c in categories if c["isthing"]), frozenset(c["id"] for c in categories)
    )
    truth = json.loads((root / "panoptic_examples.json").read_text())["annotations"]
    found = {a["image_id"]: a for a in json.loads((root / file).read_text())["annotations"]}
    for one in truth:
        other = found[one["image_id"]]
        maps = [
            ids_of(np.asarray(Image.open(root / where / a["file_name"]).convert("RGB")))
            for where, a in (("panoptic_examples", one), (folder, other))
        ]
        quality.add(maps[0], one["segments_info"], maps[1], other["segments_info"])
    ours = quality.compute()
    expected = json.loads((root / "expected_pq.json").read_text())["panopticapi 7bb4655 pq_compute"][case]
    for group, suffix in (("All", ""), ("Things", "_things"), ("Stuff", "_stuff")):
        for name in ("pq", "sq", "rq"):
            assert ours[name.upper() + suffix] == pytest.approx(expected[group][name], abs=6e-9)
    if case == "gt vs pred_perturbed":
        assert ours["PQ"] == pytest.approx(0.44871987, abs=6e-9)


def halves(left: int, right: int) -> np.ndarray:
    out = np.full((10, 10), left)
    out[:, 5:] = right
    return out


def quality() -> PanopticQuality:
    return PanopticQuality(frozenset({1}), frozenset({1, 2}))


def test_a_wrong_class_is_a_miss_and_a_ghost() -> None:
    q = quality()
    q.add(halves(5, 0), [{"id": 5, "category_id": 1}], halves(8, 0), [{"id": 8, "category_id": 2}])
    assert q.compute()["PQ"] == 0.0
    assert q.compute().keys() >= {"PQ_things", "PQ_stuff"}


def test_void_and_crowds_excuse_predictions() -> None:
    q = quality()
    segments = [{"id": 5, "category_id": 1}]
    q.add(halves(5, 0), segments, halves(5, 9), [*segments, {"id": 9, "category_id": 1}])
    assert q.compute()["PQ"] == 1.0
    q.add(
        halves(5, 6),
        [*segments, {"id": 6, "category_id": 1, "iscrowd": 1}],
        halves(5, 9),
        [*segments, {"id": 9, "category_id": 1}],
    )
    assert q.compute()["PQ"] == 1.0


def test_maps_and_lists_have_to_agree() -> None:
    with pytest.raises(ValueError, match="not listed"):
        quality().add(halves(5, 0), [], halves(8, 9), [{"id": 8, "category_id": 1}])
    with pytest.raises(ValueError, match="not in the map"):
        quality().add(halves(5, 0), [], halves(8, 0), [{"id": i, "category_id": 1} for i in (8, 9)])
    with pytest.raises(ValueError, match="unknown"):
        quality().add(halves(5, 0), [], halves(8, 0), [{"id": 8, "category_id": 3}])
    with pytest.raises(ValueError, match="for an image of"):
        quality().add(halves(5, 0), [], np.zeros((3, 3), int), [])
