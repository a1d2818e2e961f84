"""COCO's AP and AR (Lin et al., ECCV 2014), by pycocotools, over any source of annotations."""

from __future__ import annotations

import io
from contextlib import redirect_stdout
from operator import attrgetter
from typing import Any

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from detc.runtime.data.dataset import DetectionDataset, file_size
from detc.runtime.data.masks import Array
from detc.runtime.data.records import Record
from detc.runtime.data.segment_map import MapSegment
from detc.runtime.metrics.base import Evaluator, Found, ImageId

AREAS = ("all", "small", "medium", "large")


class _Eval(COCOeval):  # type: ignore[misc]
    """COCO's evaluation that also knows objects that count neither way without being crowds."""

    def _prepare(self) -> None:
        super()._prepare()
        for objects in self._gts.values():
            for one in objects:
                one["ignore"] = int(one["ignore"] or one["difficult"])


class CocoEvaluator(Evaluator):
    """AP, AP50, AP75, APs, APm, APl, AR1, AR10, AR<most>, ARs, ARm, ARl, and `AP/<class>`.

    `kind` is "bbox" or "segm"; names of the latter end in `_mask`.
    """

    def __init__(self, dataset: DetectionDataset, kind: str = "bbox", most: int = 100) -> None:
        super().__init__(dataset)
        self.kind, self.most = kind, most
        self.primary = "AP" if kind == "bbox" else "AP_mask"

    def compute(self) -> dict[str, float]:
        """See `Evaluator.compute`.

        Raises:
            DetError: DET0905 if no image was given.
            ValueError: if mask AP was asked for without masks.
        """
        self.require_images()
        with redirect_stdout(io.StringIO()):  # pycocotools reports on stdout
            truth, numbers = ground_truth(self.dataset, set(self.found))
            run = _Eval(truth, self._results(truth, numbers), self.kind)
            run.params.maxDets = sorted({1, min(10, self.most), self.most})
            run.evaluate()
            run.accumulate()
        return self._numbers(run)

    def _results(self, truth: COCO, numbers: dict[ImageId, int]) -> COCO:
        items: list[dict[str, Any]] = []
        for image, found in self.found.items():
            if image in numbers:
                items += _result_items(found, numbers[image], self.kind)
        for i, item in enumerate(items, 1):
            item["id"] = i
        results = COCO()
        results.dataset = {**truth.dataset, "annotations": items}
        results.createIndex()
        return results

    def _numbers(self, run: COCOeval) -> dict[str, float]:
        precision_TRKAM = run.eval["precision"]
        recall_TKAM = run.eval["recall"]
        ious = run.params.iouThrs
        end = "" if self.kind == "bbox" else "_mask"
        out: dict[str, float] = {}

        def put(name: str, values: Array) -> None:
            values = values[values > -1]
            if values.size:
                out[name] = float(values.mean())

        put(f"AP{end}", precision_TRKAM[..., 0, -1])
        for level in (50, 75):
            at = np.flatnonzero(np.isclose(ious, level / 100))
            put(f"AP{level}{end}", precision_TRKAM[at, :, :, 0, -1])
        for a, area in enumerate(AREAS[1:], 1):
            put(f"AP{area[0]}{end}", precision_TRKAM[:, :, :, a, -1])
        for m, most in enumerate(run.params.maxDets):
            put(f"AR{most}{end}", recall_TKAM[:, :, 0, m])
        for a, area in enumerate(AREAS[1:], 1):
            put(f"AR{area[0]}{end}", recall_TKAM[:, :, a, -1])
        for k, name in enumerate(self.dataset.classes):
            put(f"AP{end}/{name}", precision_TRKAM[:, :, k, 0, -1])
        return out


def _result_items(found: Found, image: int, kind: str) -> list[dict[str, Any]]:
    x1, y1, x2, y2 = found.boxes.T
    areas = (x2 - x1) * (y2 - y1)
    boxes = np.stack([x1, y1, x2 - x1, y2 - y1], 1).tolist()
    items = []
    for i, (box, score, label) in enumerate(
        zip(boxes, found.scores.tolist(), found.labels.tolist(), strict=True)
    ):
        item = {"image_id": image, "category_id": label + 1, "score": score, "bbox": box, "iscrowd": 0}
        if kind == "segm":
            if found.rles is None:
                raise ValueError("mask AP needs masks, the model's detections have none")
            item["segmentation"] = found.rles[i]
        item["area"] = float(areas[i]) if kind == "bbox" else _mask_area(item["segmentation"])
        items.append(item)
    return items


def _mask_area(code: dict[str, Any]) -> float:
    from pycocotools import mask as coco_mask

    return float(coco_mask.area(code))


def _pixels(polygons: list[list[float]], height: int, width: int) -> float:
    from pycocotools import mask as coco_mask

    return _mask_area(coco_mask.merge(coco_mask.frPyObjects(polygons, height, width)))


def ground_truth(dataset: DetectionDataset, images: set[ImageId]) -> tuple[COCO, dict[ImageId, int]]:
    """The annotations of `images` as a COCO object, and the number that stands for each image id.

    Category ids are labels + 1. Images are numbered in the order of their ids, which decides between detections of
    one score on several images as it does with the file itself.
    """
    numbers: dict[ImageId, int] = {}
    entries: list[dict[str, Any]] = []
    objects: list[dict[str, Any]] = []
    records = [r for r in dataset.records if r.id in images]
    if len({type(r.id) for r in records}) == 1:
        records.sort(key=attrgetter("id"))
    for record in records:
        number = numbers[record.id] = len(numbers) + 1
        width, height = file_size(record)
        entries.append({"id": number, "width": width, "height": height, "file_name": record.path})
        for item in _truth_items(record.scaled(width, height), number):
            item["id"] = len(objects) + 1
            if (
                record.normalized and "segmentation" in item
            ):  # the file states no areas: count pixels, as COCO does
                item["area"] = _pixels(item["segmentation"], height, width)
            objects.append(item)
    truth = COCO()
    categories = [{"id": i, "name": name} for i, name in enumerate(dataset.classes, 1)]
    truth.dataset = {"images": entries, "annotations": objects, "categories": categories}
    truth.createIndex()
    return truth, numbers


def coco_code(segment: Any, record: Record) -> dict[str, Any]:
    """A run-length code as it is; a part of a segment map as one."""
    if not isinstance(segment, MapSegment):
        code: dict[str, Any] = segment
        return code
    from pycocotools import mask as coco_mask

    assert record.height is not None and record.width is not None
    bitmap = segment.bitmap(record.height, record.width)
    encoded: dict[str, Any] = coco_mask.encode(np.asfortranarray(bitmap.astype(np.uint8)))
    return encoded


def _truth_items(record: Record, image: int) -> list[dict[str, Any]]:
    items = []
    for i, (x1, y1, x2, y2) in enumerate(record.boxes.tolist()):
        item = {
            "image_id": image,
            "category_id": int(record.labels[i]) + 1,
            "bbox": [x1, y1, x2 - x1, y2 - y1],
            "area": float(record.areas[i]),
            "iscrowd": int(record.crowd[i]),
            "difficult": int(record.ignore[i]),
        }
        if record.segments is not None:
            segment = record.segments[i]
            item["segmentation"] = (
                [p.reshape(-1).tolist() for p in segment]
                if isinstance(segment, list)
                else coco_code(segment, record)
            )
        items.append(item)
    return items
