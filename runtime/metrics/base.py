"""What all evaluators of detections share: collecting them, in pixels of the image files."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from detc.compiler.spec import DataSpec
from detc.runtime.data.collate import to_original
from detc.runtime.data.dataset import DetectionDataset
from detc.runtime.data.options import options

Array = np.ndarray[Any, Any]
ImageId = int | str


@dataclass
class Found:
    """Detections on one image: boxes float64 [K, 4] xyxy in pixels of the file, best first."""

    boxes: Array
    scores: Array
    labels: Array
    rles: list[dict[str, Any]] | None = None


class Evaluator:
    """Collects detections image by image; `compute` turns them into numbers.

    `primary` names the number that "best checkpoint" goes by (larger is better). An image that was never
    given is not part of the evaluation; one given twice counts once.
    """

    primary = "AP"

    def __init__(self, dataset: DetectionDataset) -> None:
        self.dataset = dataset
        self.found: dict[ImageId, Found] = {}

    def reset(self) -> None:
        """Forget all detections."""
        self.found.clear()

    def update(self, detections: Mapping[str, torch.Tensor], meta: Iterable[Mapping[str, Any]]) -> None:
        """Add a batch.

        Args:
            detections: `boxes` [B, K, 4] in pixels of the network's input, `scores`, `labels`, `valid`
                [B, K], as the infer graph returns them; perhaps `masks` bool [B, K, H, W] on the same canvas.
            meta: the batch's, see `data.collate`.
        """
        host = {k: v.detach().cpu() for k, v in detections.items()}
        for b, info in enumerate(meta):
            keep = host["valid"][b]
            boxes = to_original(host["boxes"][b][keep].double(), info)  # type: ignore[arg-type]
            rles = encode_masks(host["masks"][b][keep], info) if "masks" in host else None
            self.add(
                info["id"],
                boxes.numpy(),
                host["scores"][b][keep].numpy(),
                host["labels"][b][keep].numpy(),
                rles,
            )

    def add(
        self,
        image: ImageId,
        boxes: Array,
        scores: Array,
        labels: Array,
        rles: list[dict[str, Any]] | None = None,
    ) -> None:
        """Add one image's detections, already in pixels of the file: boxes [K, 4] xyxy."""
        self.found[image] = Found(
            np.asarray(boxes, np.float64).reshape(-1, 4),
            np.asarray(scores, np.float64),
            np.asarray(labels),
            rles,
        )

    def state(self) -> dict[ImageId, Found]:
        """What other ranks need of this one; see `merge`."""
        return self.found

    def merge(self, states: Iterable[dict[ImageId, Found]]) -> None:
        """Add what other ranks collected."""
        for state in states:
            self.found.update(state)

    def compute(self) -> dict[str, float]:
        """The numbers by name, as fractions; classes under `AP/<class>`. Undefined ones are left out."""
        raise NotImplementedError


def encode_masks(masks: torch.Tensor, meta: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Masks [K, H, W] (bool or probabilities) on the network's canvas, as run-length codes of the file."""
    from pycocotools import mask as coco_mask

    if not len(masks):
        return []
    height, width = meta["size"]
    matrix = np.asarray(meta["matrix"])
    rows = _sources(height, matrix[1, 1], matrix[1, 2], masks.shape[1])
    columns = _sources(width, matrix[0, 0], matrix[0, 2], masks.shape[2])
    full = (masks if masks.dtype == torch.bool else masks >= 0.5)[:, rows][:, :, columns]
    packed = np.asfortranarray(full.permute(1, 2, 0).numpy().astype(np.uint8))
    return list(coco_mask.encode(packed))


def _sources(count: int, scale: float, shift: float, limit: int) -> torch.Tensor:
    """The canvas pixel under the centre of each of `count` pixels of the file, along one axis."""
    at = ((torch.arange(count, dtype=torch.float64) + 0.5) * scale + shift).floor().long()
    return at.clamp(0, limit - 1)


def evaluators(data: DataSpec, split: str, dataset: DetectionDataset) -> dict[str, Evaluator]:
    """The metrics that a declaration binds to a split, by name; COCO's box AP if it binds none."""
    from detc.runtime.metrics.schema import CocoBox, Metric

    named = {
        k: m for k, m in options(data.fields).evaluate.items() if isinstance(m, Metric) and m.on == split
    }
    return {name: metric.build(dataset) for name, metric in (named or {"coco": CocoBox()}).items()}  # type: ignore[call-arg]
