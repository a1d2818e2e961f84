"""Panoptic data: COCO's own sample and the sample set's; segments, classes, evaluation of maps."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from detc.compiler.spec import Size
from detc.dsl.diagnostics import DetError
from detc.runtime.data.dataset import DetectionDataset, open_dataset
from detc.runtime.data.grounds import STUFF
from detc.runtime.data.loader import make_loader
from detc.runtime.data.segment_map import MapSegment, ids_of, read_ids, rgb_of, write_ids
from detc.runtime.data.semantic import UNKNOWN, class_map, segment_map
from detc.runtime.data.shapes import CLASSES
from detc.runtime.data.sources import CocoJson, PanopticJson
from detc.runtime.data.steps import Boxes, Classes, HFlip, Load, Masks, Pad, Resize
from detc.runtime.data.synth import generate
from detc.runtime.images import ImageError
from detc.runtime.metrics import PanopticPQ, SemanticIoU
from tests.data.making import shared, spec, steps

PLAIN = steps(load=Load(), boxes=Boxes(), masks=Masks())


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("x") / "synth"
    return generate(root, 6, 1, val=3, smallest=64, largest=96, panoptic=True, workers=1)


def synth(root: Path) -> PanopticJson:
    split = {"images": "train/", "ann": "annotations/panoptic_train.json"}
    return PanopticJson(root=str(root), train=split, val=split)


def coco_sample() -> tuple[PanopticJson, list[str]]:
    root = shared("panoptic_coco")
    source = PanopticJson(root=str(root), val={"images": "input_images/", "ann": "panoptic_examples.json"})
    return source, [c["name"] for c in json.loads((root / "panoptic_coco_categories.json").read_text())]


def opened(source: PanopticJson, classes: list[str], train: bool = False) -> DetectionDataset:
    return open_dataset(spec(source, tuple(classes), PLAIN), "train" if train else "val", train=train)


def test_numbers_survive_the_png(tmp_path: Path) -> None:
    ids = np.array([[0, 255, 256], [65535, 65536, 2**24 - 1]])
    assert np.array_equal(ids_of(rgb_of(ids)), ids)
    write_ids(tmp_path / "m.png", ids)
    assert np.array_equal(read_ids(str(tmp_path / "m.png")), ids)
    with pytest.raises(ImageError, match="no such segment map"):
        read_ids(str(tmp_path / "absent.png"))
    (tmp_path / "text.png").write_text("x")
    with pytest.raises(ImageError, match="not a segment map"):
        read_ids(str(tmp_path / "text.png"))
    with pytest.raises(ValueError, match=r"\[2, 3\] on an image of \[4, 4\]"):
        MapSegment(str(tmp_path / "m.png"), 255).bitmap(4, 4)


def test_cocos_sample_is_read_as_it_is_written() -> None:
    source, classes = coco_sample()
    dataset = opened(source, classes)
    raw = json.loads((shared("panoptic_coco") / "panoptic_examples.json").read_text())
    assert sum(len(r.labels) for r in dataset.records) == sum(
        len(a["segments_info"]) for a in raw["annotations"]
    )
    assert len(dataset.stuff) == 53 and min(dataset.stuff) == 80
    for record, entry in zip(dataset.records, raw["annotations"], strict=True):
        masks = [s.bitmap(record.height, record.width) for s in record.segments or ()]
        assert [int(m.sum()) for m in masks] == [s["area"] for s in entry["segments_info"]]
        assert record.crowd.tolist() == [bool(s["iscrowd"]) for s in entry["segments_info"]]


def test_maps_of_the_sample_set_agree_with_its_instances(made: Path) -> None:
    split = {"images": "train/", "ann": "annotations/train.json"}
    plain = CocoJson(root=str(made), train=split).open("train", None)
    whole = synth(made).open("train", None)
    assert whole.classes == (*CLASSES, *STUFF)
    assert whole.stuff == frozenset(range(len(CLASSES), len(whole.classes)))
    for one, two in zip(plain.records, whole.records, strict=True):
        things = ~np.isin(two.labels, list(whole.stuff))
        assert one.labels.tolist() == two.labels[things].tolist()
        assert np.allclose(one.boxes, two.boxes[things])
        assert (two.labels[~things] >= 0).any(), "every image has a ground"
        ids, infos = segment_map(two, two.height, two.width)
        assert (ids > 0).mean() > 0.98 and len(infos) == len(two.labels)
        assert len(set(two.labels[~things])) == (~things).sum(), "stuff has one segment a class"
    assert {int(x) for r in whole.records for x in r.labels} >= whole.stuff


def test_a_batch_holds_padded_masks_of_all_segments(made: Path) -> None:
    train = steps(
        load=Load(), boxes=Boxes(), masks=Masks(), resize=Resize(size=Size(64, 64)), flip=HFlip(p=1.0),
        pad=Pad(size=Size(64, 64)),
    )  # fmt: skip
    data = spec(synth(made), (*CLASSES, *STUFF), train)
    batch = next(iter(make_loader(data, "train", 3, train=True, workers=0, quiet=True)))
    truth = batch["truth"]
    assert truth["masks"].shape == (3, 16, 64, 64)
    assert not truth["masks"][~truth["valid"]].any()
    assert truth["masks"].sum(1).max() == 1, "segments do not overlap"
    inside = [int(h * w) for h, w in batch["image"]["size"].tolist()]
    assert all(int(m.sum()) > 0.97 * n for m, n in zip(truth["masks"], inside, strict=True))


def test_classes_are_joined(made: Path) -> None:
    source = synth(made)
    joined = steps(load=Load(), boxes=Boxes(), masks=Masks(), classes=Classes())
    dataset = open_dataset(spec(source, (*CLASSES, *STUFF), joined), "train", train=True)
    for i, record in enumerate(dataset.records):
        (sample,) = dataset.pipeline("train").run([i], 0)
        assert sample.labels is not None and sample.masks is not None and sample.boxes is not None
        assert sample.labels.tolist() == sorted(set(record.labels.tolist()))
        known = class_map(record, sample.height, sample.width)
        for label, mask, box in zip(sample.labels, sample.masks.rasterise(), sample.boxes, strict=True):
            assert np.array_equal(mask, known == label)
            assert box[0] == np.flatnonzero(mask.any(0))[0]
        assert set(np.unique(known)) <= {UNKNOWN, *sample.labels}


def meta(record: object, scale: float = 1.0) -> dict[str, object]:
    matrix = np.diag([scale, scale, 1.0]).tolist()
    return {"id": record.id, "size": (record.height, record.width), "matrix": matrix}  # type: ignore[attr-defined]


def test_the_evaluator_gives_the_reference_pq_of_cocos_sample() -> None:
    source, classes = coco_sample()
    dataset = opened(source, classes)
    root = shared("panoptic_coco")
    raw = json.loads((root / "pred_perturbed.json").read_text())
    categories = {
        c["id"]: i for i, c in enumerate(json.loads((root / "panoptic_coco_categories.json").read_text()))
    }
    evaluator = PanopticPQ().build(dataset)
    by_image = {a["image_id"]: a for a in raw["annotations"]}
    for record in dataset.records:
        entry = by_image[record.id]
        ids = read_ids(str(root / "pred_perturbed" / entry["file_name"]))
        numbers = [s["id"] for s in entry["segments_info"]]
        ranks = np.zeros_like(ids)
        for k, number in enumerate(numbers):
            ranks[ids == number] = k + 1
        labels = [categories[s["category_id"]] for s in entry["segments_info"]]
        found = {"panoptic": torch.from_numpy(ranks)[None], "labels": torch.tensor([labels])}
        evaluator.update(found, [meta(record)])
    numbers = evaluator.compute()
    assert numbers["PQ"] == pytest.approx(0.44871987, abs=6e-9)
    assert numbers["PQ_stuff"] == pytest.approx(0.76280806, abs=6e-9)
    assert any(name.startswith("PQ/") for name in numbers)
    again = PanopticPQ().build(dataset)
    again.merge([evaluator.state()])
    assert again.compute() == numbers


def test_maps_on_a_larger_canvas_come_back_to_the_files_size(made: Path) -> None:
    dataset = opened(synth(made), [*CLASSES, *STUFF])
    quality, classes = PanopticPQ().build(dataset), SemanticIoU().build(dataset)
    for record in dataset.records:
        assert record.height is not None and record.width is not None
        ids, _ = segment_map(record, record.height, record.width)
        known = class_map(record, record.height, record.width)
        grown, padded = (np.pad(x.repeat(2, 0).repeat(2, 1), ((0, 9), (0, 5))) for x in (ids, known))
        labels = torch.from_numpy(record.labels)[None]
        found = {"panoptic": torch.from_numpy(grown)[None], "labels": labels}
        quality.update(found, [meta(record, 2.0)])
        classes.update({"semantic": torch.from_numpy(padded)[None], "labels": labels}, [meta(record, 2.0)])
    assert quality.compute()["PQ"] == 1.0
    assert classes.compute()["mIoU"] == 1.0 == classes.compute()["accuracy"]


def test_iou_of_classes_by_hand(made: Path) -> None:
    dataset = opened(synth(made), [*CLASSES, *STUFF])
    record = dataset.records[0]
    known = class_map(record, record.height, record.width)
    evaluator = SemanticIoU().build(dataset)
    zeros = torch.zeros(1, record.height, record.width, dtype=torch.int64)
    evaluator.update({"semantic": zeros, "labels": torch.zeros(1, 1)}, [meta(record)])
    numbers = evaluator.compute()
    there = set(np.unique(known[known != UNKNOWN])) | {0}
    share = float((known == 0).sum() / (known != UNKNOWN).sum())
    assert numbers["IoU/circle"] == pytest.approx(share) == numbers["accuracy"]
    assert numbers["mIoU"] == pytest.approx(share / len(there))
    with pytest.raises(ValueError, match="no `semantic` map"):
        evaluator.update({"labels": torch.zeros(1, 1)}, [meta(record)])


def test_a_model_that_finds_nothing_has_quality_zero(made: Path) -> None:
    dataset: DetectionDataset = opened(synth(made), [*CLASSES, *STUFF])
    evaluator = PanopticPQ().build(dataset)
    with pytest.raises(DetError, match="DET0905"):
        evaluator.compute()
    record = dataset.records[0]
    empty = torch.zeros(1, record.height, record.width, dtype=torch.int64)
    evaluator.update({"panoptic": empty, "labels": torch.zeros(1, 4)}, [meta(record)])
    assert evaluator.compute()["PQ"] == 0.0


def test_broken_entries_are_named(made: Path, tmp_path: Path) -> None:
    raw = json.loads((made / "annotations/panoptic_train.json").read_text())
    del raw["annotations"][0]["segments_info"][0]["bbox"]
    raw["annotations"][1]["image_id"] = 77
    raw["annotations"][2]["segments_info"][0]["category_id"] = 99
    (tmp_path / "a.json").write_text(json.dumps(raw))
    split = {"images": str(made / "train"), "ann": "a.json"}
    found = PanopticJson(root=str(tmp_path), train=split).open("train", None)
    assert [p.reason.split("(")[1] for p in found.tally.problems] == [
        "no field or image 'bbox')", "no field or image 77)", "no field or image 99)",
    ]  # fmt: skip
    assert len(found.records) == 3 and found.tally.images.total() == 1
