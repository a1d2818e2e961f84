"""COCO's metrics equal pycocotools' own on its own files, whatever the source of the annotations."""

from __future__ import annotations

import io
import json
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from detc.compiler.spec import DataSpec, Size
from detc.dsl.diagnostics import DetError
from detc.runtime.data.dataset import DetectionDataset, open_dataset
from detc.runtime.data.loader import make_loader
from detc.runtime.data.sources import CocoJson, PascalVoc, YoloTxt
from detc.runtime.data.steps import Boxes, Load, Pad, Resize
from detc.runtime.metrics import CocoBox, VocBox
from detc.runtime.metrics.base import Evaluator, evaluators
from detc.runtime.metrics.coco import CocoEvaluator
from tests.data.making import record, shared, spec, steps

PLAIN = steps(load=Load(), boxes=Boxes())


def noisy(dataset: DetectionDataset, seed: int = 0) -> dict[Any, tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Detections for every image: most objects, twice, moved a little, some of a wrong class."""
    rng = np.random.default_rng(seed)
    out = {}
    for r in dataset.records:
        whole = r.scaled(640, 480) if r.normalized else r
        boxes, labels = whole.boxes, whole.labels
        picked = rng.random(len(boxes)) < 0.8
        boxes, labels = np.tile(boxes[picked], (2, 1)), np.tile(labels[picked], 2)
        sides = np.tile(boxes[:, 2:] - boxes[:, :2], 2)
        boxes = boxes + sides * rng.normal(0, 0.06, boxes.shape)
        wrong = rng.random(len(labels)) < 0.1
        labels = np.where(wrong, rng.integers(len(dataset.classes), size=len(labels)), labels)
        out[r.id] = (boxes, rng.random(len(labels)), labels)
    return out


def coco64() -> tuple[Path, CocoJson, list[str]]:
    root = shared("coco64")
    source = CocoJson(root=str(root), val={"images": "images/", "ann": "instances.json"})
    return root, source, source.read_classes() or []


def test_numbers_equal_pycocotools_on_the_file_itself() -> None:
    root, source, names = coco64()
    dataset = open_dataset(spec(source, tuple(names), PLAIN), "val", train=False)
    found = noisy(dataset)
    metric = CocoBox().build(dataset)
    for image, (boxes, scores, labels) in found.items():
        metric.add(image, boxes, scores, labels)
    ours = metric.compute()

    with redirect_stdout(io.StringIO()):
        truth = COCO(str(root / "instances.json"))
        ids = {c["name"]: c["id"] for c in truth.dataset["categories"]}
        results = [
            {"image_id": i, "category_id": ids[names[k]], "bbox": [a, b, c - a, d - b], "score": float(s)}
            for i, (bs, ss, ls) in found.items()
            for (a, b, c, d), s, k in zip(bs.tolist(), ss, ls, strict=True)
        ]
        run = COCOeval(truth, truth.loadRes(results), "bbox")
        run.evaluate()
        run.accumulate()
        run.summarize()
    keys = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")
    np.testing.assert_allclose([ours[k] for k in keys], run.stats, atol=1e-12)
    assert 0.1 < ours["AP"] < 0.9
    precision = run.eval["precision"][:, :, :, 0, -1]
    for k, name in enumerate(names):
        at = sorted(ids.values()).index(ids[name])
        values = precision[:, :, at][precision[:, :, at] > -1]
        assert (f"AP/{name}" in ours) == bool(values.size)
        if values.size:
            assert ours[f"AP/{name}"] == pytest.approx(values.mean())
        del k


def test_json_and_yolo_text_give_the_same_numbers() -> None:
    root, coco, names = coco64()
    txt = YoloTxt(root=str(root), val={"images": "images/", "labels": "labels_yolo_seg/"})
    a = open_dataset(spec(coco, tuple(names), PLAIN), "val", train=False)
    b = open_dataset(spec(txt, tuple(names), PLAIN), "val", train=False)
    by_name = {Path(r.path).name: r.id for r in b.records}
    one, other = CocoBox().build(a), CocoBox().build(b)
    for r in a.records:
        boxes, scores, labels = noisy(a)[r.id]
        one.add(r.id, boxes, scores, labels)
        other.add(by_name[Path(r.path).name], boxes, scores, labels)
    first, second = one.compute(), other.compute()
    assert first.keys() == second.keys()
    # the JSON has two decimals: a detection at an IoU bound may fall on the other side, 1/630 of AP each
    for key in ("AP", "AP50", "AP75", "AR100"):
        assert first[key] == pytest.approx(second[key], abs=3.5e-3), key


def toy(objects: list[tuple[list[float], int, str]]) -> DetectionDataset:
    """One image of 100 x 100 with (box, label, kind) objects."""
    r = record(boxes=[b for b, *_ in objects], size=(100, 100))
    r.labels = np.array([label for _, label, _ in objects])
    r.crowd = np.array([kind == "crowd" for *_, kind in objects])
    r.ignore = np.array([kind == "difficult" for *_, kind in objects])
    from detc.runtime.data.options import DataFields
    from detc.runtime.data.records import Tally

    return DetectionDataset("val", ("a", "b"), [r], Tally(), DataFields(), {}, train=False)


@pytest.mark.parametrize("metric", [CocoBox(), VocBox()])
@pytest.mark.parametrize("kind", ["crowd", "difficult"])
def test_crowds_and_difficult_objects_count_neither_way(metric: Any, kind: str) -> None:
    for extra in ([], [([50, 50, 90, 90], 0, kind)]):
        run: Evaluator = metric.build(toy([([10, 10, 40, 40], 0, ""), *extra]))
        boxes = [[10, 10, 40, 40]] + ([[50, 50, 90, 90]] if extra else [])
        run.add(1, np.array(boxes), np.array([0.5, 0.9][: len(boxes)]), np.zeros(len(boxes), int))
        numbers = run.compute()
        assert numbers["AP"] == pytest.approx(1.0) and numbers["AP/a"] == pytest.approx(1.0)
        assert "AP/b" not in numbers  # it has no objects


def test_an_image_without_detections_counts_and_one_never_given_does_not() -> None:
    dataset = toy([([10, 10, 40, 40], 0, "")])
    run = CocoEvaluator(dataset)
    with pytest.raises(DetError, match="DET0905"):
        run.compute()
    run.add(1, np.zeros((0, 4)), np.zeros(0), np.zeros(0, int))
    assert run.compute()["AP"] == 0.0


def test_states_of_ranks_merge_without_counting_twice() -> None:
    dataset = toy([([10, 10, 40, 40], 0, "")])
    a, b = CocoEvaluator(dataset), CocoEvaluator(dataset)
    for run in (a, b):
        run.add(1, np.array([[10, 10, 40, 40]]), np.ones(1), np.zeros(1, int))
    a.merge([b.state()])
    assert a.compute()["AP"] == pytest.approx(1.0)
    a.reset()
    assert not a.found


def test_evaluators_follow_the_declaration() -> None:
    source = PascalVoc(root="x", val={"list": "l"})
    plain = spec(source, ("a",), PLAIN)
    dataset = toy([])
    assert list(evaluators(plain, "val", dataset)) == ["coco"]
    named = spec(source, ("a",), PLAIN, evaluate={"v": VocBox(), "t": CocoBox(on="test")})
    assert list(evaluators(named, "val", dataset)) == ["v"]


def bccd_val() -> DataSpec:
    root = shared("bccd")
    source = PascalVoc(root=str(root), first=0, val={"list": "ImageSets/Main/test.txt"})
    side = Size(320, 320)
    val = steps(load=Load(), boxes=Boxes(), resize=Resize(size=side), pad=Pad(size=side, fill=114.0))
    return spec(source, ("Platelets", "RBC", "WBC"), val, val)


def test_the_truth_sent_through_the_pipeline_and_back_scores_one() -> None:
    loader = make_loader(bccd_val(), "val", 8, train=False)
    metric = CocoBox().build(loader.dataset)
    voc = VocBox(iou=0.9).build(loader.dataset)
    for batch in loader:
        truth = batch["truth"]
        scores = torch.rand(truth["labels"].shape)
        for run in (metric, voc):
            run.update({**truth, "scores": scores}, batch["meta"])
    assert metric.compute()["AP"] == pytest.approx(1.0)
    assert voc.compute()["AP"] == pytest.approx(1.0)


@pytest.mark.parametrize("kind", ["bbox", "segm"])
@pytest.mark.parametrize("most", [1, 10, 300])
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_random_sets_equal_pycocotools(tmp_path: Path, seed: int, most: int, kind: str) -> None:
    """Crowds, areas unlike the boxes', equal scores on several images, ids and categories in no order."""
    draw = np.random.default_rng(seed)
    ids, cats = [int(i) for i in draw.permutation(500)[:5]], [int(c) for c in draw.permutation(90)[:3] + 1]
    truth: list[dict[str, Any]] = []
    found: list[dict[str, Any]] = []
    for image in ids:
        Image.new("RGB", (160, 120)).save(tmp_path / f"{image}.png")
        for _ in range(int(draw.integers(1, 5))):
            w, h = (float(v) for v in np.exp(draw.uniform(2, 4.6, 2)).round(2))
            x, y = (float(v) for v in draw.uniform(0, 1, 2) * (160 - w, 120 - h))
            crowd, cat = int(draw.random() < 0.25), int(draw.choice(cats))
            truth.append(
                {"id": len(truth) + 1, "image_id": image, "category_id": cat, "bbox": [x, y, w, h],
                 "area": w * h * float(draw.uniform(0.5, 1)), "iscrowd": crowd,
                 "segmentation": bitmap([x, y, w, h]) if crowd else [[x, y, x + w, y, x + w, y + h, x, y + h]]}
            )  # fmt: skip
            for _ in range(int(draw.integers(0, 4))):
                box = [
                    float(v) for v in np.array([x, y, w, h]) + draw.normal(0, 0.1, 4) * (w, h, w / 2, h / 2)
                ]
                score = round(float(draw.random()), 1)
                found.append({"image_id": image, "category_id": cat, "bbox": box, "score": score})
    names = [{"id": c, "name": f"c{c}"} for c in cats]
    entries = [{"id": i, "file_name": f"{i}.png", "width": 160, "height": 120} for i in ids]
    text = json.dumps({"images": entries, "annotations": truth, "categories": names})
    (tmp_path / "a.json").write_text(text)
    split = {"images": "", "ann": "a.json"}
    source = CocoJson(root=str(tmp_path), val=split)
    classes = tuple(source.read_classes() or ())
    plain = steps(load=Load(), boxes=Boxes(), pad=Pad(align=32))
    run = CocoEvaluator(open_dataset(spec(source, classes, plain), "val", train=False), kind, most)
    for image in ids:
        mine = sorted((d for d in found if d["image_id"] == image), key=lambda d: -d["score"])
        boxes = np.array([d["bbox"] for d in mine]).reshape(-1, 4)
        labels = np.array([classes.index(f"c{d['category_id']}") for d in mine], int)
        boxes[:, 2:] += boxes[:, :2]
        scores = np.array([d["score"] for d in mine])
        run.add(image, boxes, scores, labels, [bitmap(d["bbox"]) for d in mine])
    with redirect_stdout(io.StringIO()):
        coco = COCO(str(tmp_path / "a.json"))
        fields = "bbox" if kind == "bbox" else "segmentation"
        ordered = sorted(found, key=lambda d: -d["score"])
        results = [{**d, "segmentation": bitmap(d["bbox"])} for d in ordered]
        for one in results:
            one.pop("segmentation" if fields == "bbox" else "bbox")
        peer = COCOeval(coco, coco.loadRes(results), kind)
        peer.params.maxDets = sorted({1, min(10, most), most})
        peer.evaluate()
        peer.accumulate()
    precision, recall, end = peer.eval["precision"], peer.eval["recall"], "" if kind == "bbox" else "_mask"
    wanted = {"AP": precision[..., 0, -1], "AP50": precision[0, ..., 0, -1], "APs": precision[..., 1, -1],
              "APm": precision[..., 2, -1], "APl": precision[..., 3, -1], f"AR{most}": recall[:, :, 0, -1]}  # fmt: skip
    numbers = run.compute()
    for name, values in wanted.items():
        known = values[values > -1]
        assert numbers.get(f"{name}{end}") == (pytest.approx(known.mean(), abs=1e-12) if known.size else None)


def bitmap(box: list[float]) -> dict[str, Any]:
    """A box as the run-length code of a mask on 160x120."""
    x, y, w, h = box
    mask = np.zeros((120, 160), np.uint8, order="F")
    mask[max(0, int(y)) : int(y + h) + 1, max(0, int(x)) : int(x + w) + 1] = 1
    code = coco_mask.encode(mask)
    return {"size": code["size"], "counts": code["counts"].decode()}
