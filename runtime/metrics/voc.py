"""Pascal VOC's average precision (Everingham et al., IJCV 2010)."""

from __future__ import annotations

from typing import Any

import numpy as np

from detc.runtime.data.dataset import DetectionDataset, file_size
from detc.runtime.metrics.base import Evaluator

Array = np.ndarray[Any, Any]


def average_precision(recall: Array, precision: Array, mode: str) -> float:
    """The area under the precision envelope, or the mean of the envelope at recalls 0, 0.1, …, 1.

    Args:
        recall, precision: [K], over detections by falling score.
        mode: "area" or "11points".
    """
    if mode == "11points":
        best = [precision[recall >= r].max(initial=0.0) for r in np.linspace(0, 1, 11)]
        return float(np.mean(best))
    r = np.concatenate([[0.0], recall, [1.0]])
    p = np.concatenate([[0.0], precision, [0.0]])
    p = np.maximum.accumulate(p[::-1])[::-1]
    return float(((r[1:] - r[:-1]) * p[1:]).sum())


def pairwise_iou(a: Array, b: Array, inclusive: bool = False) -> Array:
    """IoU [N, M] of xyxy boxes; `inclusive`: right and bottom edges are pixels that belong to the box."""
    one = 1.0 if inclusive else 0.0
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    both = (high - low + one).clip(min=0).prod(2)
    area_a, area_b = ((x[:, 2:] - x[:, :2] + one).prod(1) for x in (a, b))
    return both / (area_a[:, None] + area_b[None] - both)


def match(
    detections: list[tuple[Any, float, Array]],
    truth: dict[Any, tuple[Array, Array]],
    iou: float,
    inclusive: bool = False,
) -> tuple[Array, Array, int]:
    """Match the detections of one class as VOC's development kit does.

    Args:
        detections: (image, score, box [4]), any order.
        truth: image -> (boxes [G, 4], difficult bool [G]).

    Returns:
        hits and misses, bool [K] by falling score (a detection of a difficult object is neither), and the
        number of objects that are not difficult.
    """
    order = sorted(range(len(detections)), key=lambda i: -detections[i][1])
    taken = {image: np.zeros(len(boxes), bool) for image, (boxes, _) in truth.items()}
    hits, misses = np.zeros(len(order), bool), np.zeros(len(order), bool)
    for rank, i in enumerate(order):
        image, _, box = detections[i]
        boxes, hard = truth.get(image, (np.zeros((0, 4)), np.zeros(0, bool)))
        overlap = pairwise_iou(box[None], boxes, inclusive)[0] if len(boxes) else np.zeros(0)
        best = int(overlap.argmax()) if len(overlap) else -1
        if best < 0 or overlap[best] < iou:
            misses[rank] = True
        elif hard[best]:
            continue
        elif taken[image][best]:
            misses[rank] = True
        else:
            taken[image][best] = hits[rank] = True
    return hits, misses, sum(int((~hard).sum()) for _, hard in truth.values())


def class_ap(hits: Array, misses: Array, count: int, mode: str) -> float:
    """AP from what `match` returns; `count` objects."""
    good, bad = np.cumsum(hits), np.cumsum(misses)
    recall = good / count
    precision = good / np.maximum(good + bad, 1)
    return average_precision(recall, precision, mode)


class VocEvaluator(Evaluator):
    """`AP` (mean over classes that occur) and `AP/<class>` at one IoU."""

    def __init__(self, dataset: DetectionDataset, iou: float = 0.5, mode: str = "area") -> None:
        super().__init__(dataset)
        self.iou, self.mode = iou, mode

    def compute(self) -> dict[str, float]:
        """See `Evaluator.compute`."""
        records = [r.scaled(*file_size(r)) for r in self.dataset.records if r.id in self.found]
        out: dict[str, float] = {}
        for label, name in enumerate(self.dataset.classes):
            truth = {}
            for record in records:
                mine = record.labels == label
                truth[record.id] = (record.boxes[mine], (record.ignore | record.crowd)[mine])
            detections = [
                (image, float(score), box)
                for image, found in self.found.items()
                for box, score, own in zip(found.boxes, found.scores, found.labels, strict=True)
                if own == label
            ]
            hits, misses, count = match(detections, truth, self.iou)
            if count:
                out[f"AP/{name}"] = class_ap(hits, misses, count, self.mode)
        if out:
            out = {"AP": float(np.mean(list(out.values()))), **out}
        return out
