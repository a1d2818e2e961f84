"""What all evaluators of detections share: collecting them, in pixels of the image files."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sized
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from detc.compiler.spec import DataSpec
from detc.dsl.diagnostics import error
from detc.runtime.data.collate import to_original
from detc.runtime.data.dataset import DetectionDataset
from detc.runtime.data.options import options

Array = np.ndarray[Any, Any]
ImageId = int | str
PIXELS = 1 << 26  # of masks that are drawn at once


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
                [B, K], as the infer graph returns them; perhaps `box_masks` [B, K, m, m], probabilities over
                each box, or `masks` [B, K, h, w] over the canvas, probabilities or bool.
            meta: the batch's, see `data.collate`.
        """
        host = {k: v.detach().cpu() for k, v in detections.items()}
        for b, info in enumerate(meta):
            keep = host["valid"][b]
            boxes = to_original(host["boxes"][b][keep].double(), info)
            rles = None
            if "box_masks" in host:
                rles = encode_box_masks(host["box_masks"][b][keep], boxes, info)
            elif "masks" in host:
                rles = encode_masks(host["masks"][b][keep], info)
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

    def require_images(self, given: Sized | None = None) -> None:
        """Refuse to compute numbers of nothing.

        Raises:
            DetError: DET0905 if no image was given.
        """
        if not (self.found if given is None else given):
            raise error(
                "DET0905",
                f"no image of split `{self.dataset.split}` could be evaluated",
                help="`detc data report SPEC --verify` names the files that are broken",
            )

    def compute(self) -> dict[str, float]:
        """The numbers by name, as fractions; classes under `AP/<class>`. Undefined ones are left out."""
        raise NotImplementedError


def _encode(
    count: int, meta: Mapping[str, Any], make: Callable[[slice], torch.Tensor]
) -> list[dict[str, Any]]:
    """Run-length codes of `count` bitmaps that `make` draws, few enough at a time to bound the memory."""
    from detc.nativeops.ops.rle import masks_to_coco

    height, width = meta["size"]
    step = max(1, PIXELS // max(height * width, 1))
    found: list[dict[str, Any]] = []
    for start in range(0, count, step):
        found += masks_to_coco(make(slice(start, start + step)))
    return found


def encode_box_masks(
    masks: torch.Tensor, boxes: torch.Tensor, meta: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Probabilities [K, m, m] over boxes [K, 4] in pixels of the file, as run-length codes of the file."""
    from detc.nativeops import ops

    height, width = meta["size"]
    boxes = boxes.to(masks.dtype)
    return _encode(len(masks), meta, lambda s: ops.mask_paste(masks[s], boxes[s], height=height, width=width))


def encode_masks(masks: torch.Tensor, meta: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Masks [K, h, w] over the network's canvas, as run-length codes of the file.

    Bitmaps must be of the canvas' own size; probabilities may be coarser and are sampled bilinearly.
    """
    from pycocotools import mask as coco_mask

    if not len(masks):
        return []
    if masks.dtype != torch.bool:
        return _encode(len(masks), meta, lambda s: _resampled(masks[s], meta))
    height, width = meta["size"]
    matrix = np.asarray(meta["matrix"])
    rows = sources(height, matrix[1, 1], matrix[1, 2], masks.shape[1])
    columns = sources(width, matrix[0, 0], matrix[0, 2], masks.shape[2])
    full = masks[:, rows][:, :, columns]
    packed = np.asfortranarray(full.permute(1, 2, 0).numpy().astype(np.uint8))
    return list(coco_mask.encode(packed))


def _resampled(masks: torch.Tensor, meta: Mapping[str, Any]) -> torch.Tensor:
    from detc.compiler.functional.masks import resample_masks

    matrix = np.asarray(meta["matrix"])
    canvas = meta.get("canvas", masks.shape[1:])
    scale, shift = (float(matrix[1, 1]), float(matrix[0, 0])), (float(matrix[1, 2]), float(matrix[0, 2]))
    return resample_masks(masks[None], canvas, scale, shift, *meta["size"])[0]


def sources(count: int, scale: float, shift: float, limit: int) -> torch.Tensor:
    """The canvas pixel under the centre of each of `count` pixels of the file, along one axis."""
    at = ((torch.arange(count, dtype=torch.float64) + 0.5) * scale + shift).floor().long()
    return at.clamp(0, limit - 1)


def evaluators(data: DataSpec, split: str, dataset: DetectionDataset) -> dict[str, Evaluator]:
    """The metrics that a declaration binds to a split, by name; COCO's box AP if it binds none."""
    from detc.runtime.metrics.schema import CocoBox, Metric

    named = {
        k: m
        for k, m in options(data.fields).evaluate.items()
        if isinstance(m, Metric) and m.on == split and not m.video
    }
    return {name: metric.build(dataset) for name, metric in (named or {"coco": CocoBox()}).items()}  # type: ignore[call-arg]
