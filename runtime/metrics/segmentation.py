"""Evaluators of whole-image segmentation: panoptic quality and the mean IoU of classes.

The model's maps are on the canvas of its input; they are brought to the size of the image file before they are
compared with the truth.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch

from detc.runtime.data.dataset import DetectionDataset, file_size
from detc.runtime.data.records import Record
from detc.runtime.data.semantic import UNKNOWN, class_map, segment_map
from detc.runtime.metrics.base import Evaluator, ImageId, sources
from detc.runtime.metrics.panoptic import PanopticQuality

Array = np.ndarray[Any, Any]


def to_file(map_HW: torch.Tensor, meta: Mapping[str, Any]) -> Array:
    """A map on the network's canvas at the size of the image file, by the nearest pixel."""
    height, width = meta["size"]
    matrix = np.asarray(meta["matrix"])
    rows = sources(height, matrix[1, 1], matrix[1, 2], map_HW.shape[0])
    columns = sources(width, matrix[0, 0], matrix[0, 2], map_HW.shape[1])
    return map_HW[rows][:, columns].numpy()


class MapEvaluator(Evaluator):
    """What evaluators of maps share. `parts` holds what each image adds to the result."""

    field = ""

    def __init__(self, dataset: DetectionDataset) -> None:
        super().__init__(dataset)
        self.records = {r.id: r for r in dataset.records}
        self.parts: dict[ImageId, Any] = {}

    def reset(self) -> None:
        """Forget all maps."""
        self.parts.clear()

    def update(self, detections: Mapping[str, torch.Tensor], meta: Iterable[Mapping[str, Any]]) -> None:
        """Add a batch; see `Evaluator.update`.

        Raises:
            ValueError: if the model gives no such map.
        """
        if self.field not in detections:
            raise ValueError(f"the model's detections have no `{self.field}` map")
        maps = detections[self.field].detach().cpu()
        labels = detections["labels"].detach().cpu().numpy()
        for b, info in enumerate(meta):
            record = self.records[info["id"]]
            width, height = file_size(record)
            part = self.judge(to_file(maps[b], info), labels[b], record.scaled(width, height))
            self.parts[info["id"]] = part

    def judge(self, found_HW: Array, labels_K: Array, record: Record) -> Any:
        """What an image adds. `labels_K` are the classes of the detections."""
        raise NotImplementedError

    def state(self) -> dict[ImageId, Any]:
        """See `Evaluator.state`."""
        return self.parts

    def merge(self, states: Iterable[dict[ImageId, Any]]) -> None:
        """See `Evaluator.merge`."""
        for state in states:
            self.parts.update(state)


class PanopticEvaluator(MapEvaluator):
    """PQ, SQ and RQ, over all classes, things and stuff (Kirillov et al., CVPR 2019), and `PQ/<class>`.

    The model's `panoptic` map [B, H, W] holds 0 for nothing and k + 1 for its detection k.
    """

    primary = "PQ"
    field = "panoptic"

    def judge(self, found_HW: Array, labels_K: Array, record: Record) -> PanopticQuality:
        """The counts of one image."""
        quality = self._quality()
        truth, wanted = segment_map(record, *found_HW.shape)
        numbers = [int(n) for n in np.unique(found_HW) if n > 0]
        given = [{"id": n, "category_id": int(labels_K[n - 1])} for n in numbers]
        quality.add(truth, wanted, found_HW.astype(np.int64), given)
        return quality

    def _quality(self) -> PanopticQuality:
        every = frozenset(range(len(self.dataset.classes)))
        return PanopticQuality(every - self.dataset.stuff, every)

    def compute(self) -> dict[str, float]:
        """See `Evaluator.compute`."""
        self.require_images(self.parts)
        total = self._quality()
        for part in self.parts.values():
            total.merge(part)
        each = {f"PQ/{self.dataset.classes[k]}": v for k, v in total.by_class().items()}
        return {**total.compute(), **each}


class SemanticEvaluator(MapEvaluator):
    """The mean over classes of intersection over union ("mIoU"), "accuracy", and `IoU/<class>`.

    The model's `semantic` map [B, H, W] holds class numbers. Pixels whose class the truth does not know count
    neither way; classes that occur neither in truth nor in predictions are left out of the mean.
    """

    primary = "mIoU"
    field = "semantic"

    def judge(self, found_HW: Array, labels_K: Array, record: Record) -> tuple[Array, Array]:
        """Pairs of true and found class that occur, as one number each, and their pixels."""
        count = len(self.dataset.classes)
        truth = class_map(record, *found_HW.shape)
        known = truth != UNKNOWN
        codes = truth[known].astype(np.int64) * count + found_HW[known]
        return np.unique(codes, return_counts=True)

    def compute(self) -> dict[str, float]:
        """See `Evaluator.compute`."""
        self.require_images(self.parts)
        count = len(self.dataset.classes)
        flat = np.zeros(count * count, np.int64)
        for codes, counts in self.parts.values():
            flat[codes] += counts
        pixels_TF = flat.reshape(count, count)
        both = np.diag(pixels_TF)
        union = pixels_TF.sum(0) + pixels_TF.sum(1) - both
        there = union > 0
        if not there.any():
            return {}
        iou = both[there] / union[there]
        out = {"mIoU": float(iou.mean()), "accuracy": float(both.sum() / pixels_TF.sum())}
        names = np.array(self.dataset.classes, object)[there]
        return {**out, **{f"IoU/{n}": float(v) for n, v in zip(names, iou, strict=True)}}
