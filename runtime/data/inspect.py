"""Looking at data: counts, faults, and what a pipeline makes of the images."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from detc.compiler.spec import DataSpec
from detc.runtime.data.dataset import DetectionDataset, file_size, open_dataset
from detc.runtime.data.pixels import load_pixels
from detc.runtime.data.records import Problem
from detc.runtime.images import ImageError

if TYPE_CHECKING:
    from PIL import Image


@dataclass
class SplitReport:
    """A split in numbers. `sides`: the 5, 25, 50, 75, 95 % quantiles of the roots of box areas, in pixels."""

    split: str
    images: int
    empty: int
    boxes: dict[str, int]
    crowds: int
    difficult: int
    sides: list[float]
    sizes: list[tuple[str, int]]
    dropped: list[str] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return {**self.__dict__, "problems": [p.__dict__ for p in self.problems]}


def describe(data: DataSpec, split: str, *, train: bool, verify: bool = False) -> SplitReport:
    """Count what a split holds after its filters.

    Args:
        train: apply the filters of training.
        verify: decode every image too.

    Raises:
        DetError: see `dataset.open_dataset`.
    """
    dataset = open_dataset(data, split, train=train)
    counts: Counter[str] = Counter()
    sides, sizes = [], Counter[str]()
    for record in dataset.records:
        width, height = file_size(record)
        sizes[f"{width}x{height}"] += 1
        boxes = record.scaled(width, height).boxes
        sides.append(np.sqrt((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])))
        counts.update(dataset.classes[i] for i in record.labels)
    joined = np.concatenate(sides) if sides else np.zeros(0)
    problems = list(dataset.tally.problems)
    if verify:
        problems += unreadable(dataset)
    return SplitReport(
        split=split,
        images=len(dataset),
        empty=sum(1 for r in dataset.records if not len(r.labels)),
        boxes={name: counts[name] for name in dataset.classes},
        crowds=sum(int(r.crowd.sum()) for r in dataset.records),
        difficult=sum(int(r.ignore.sum()) for r in dataset.records),
        sides=[round(float(q), 1) for q in np.percentile(joined, [5, 25, 50, 75, 95])] if len(joined) else [],
        sizes=sizes.most_common(5),
        dropped=dataset.tally.lines(),
        problems=problems,
    )


def unreadable(dataset: DetectionDataset) -> list[Problem]:
    """The images of a data set that cannot be decoded, or are not of the size that their annotation says."""
    found = []
    for record in dataset.records:
        declared = (record.width, record.height) if record.width and record.height else None
        try:
            load_pixels(record.path, declared)
        except ImageError as fault:
            found.append(Problem(fault.name, fault.reason))
    return found


def pictures(
    data: DataSpec, split: str, count: int, *, pipeline: str | None = None, seed: int = 0, epoch: int = 0
) -> list[tuple[str, Image.Image]]:
    """What a pipeline makes of `count` images of a split: captions and pictures with boxes and masks.

    The pipeline in use is the default; `val` is run as in evaluation.

    Raises:
        DetError: see `dataset.open_dataset`; DET0908 if there is no such pipeline.
    """
    import dataclasses

    from PIL import Image

    from detc.runtime.draw import draw
    from detc.runtime.results import Detections

    name = pipeline or (data.active if split == "train" else "val")
    data = dataclasses.replace(data, fields={**data.fields, "cache": "none"})
    dataset = open_dataset(data, split, train=name != "val", seed=seed)
    chosen = np.random.default_rng(seed).permutation(len(dataset))[:count]
    out = []
    for sample in dataset.pipeline(name).run([int(i) for i in chosen], epoch):
        image = sample.image.permute(1, 2, 0).round().byte().numpy()
        boxes, labels = sample.truth()
        masks = sample.masks.rasterise() if sample.masks is not None else None
        truth = Detections(boxes, np.ones(len(labels)), labels, data.classes, image.shape[:2], masks)
        drawn = draw(Image.fromarray(image), truth, score=0.0, scores=False, alpha=0.3)
        caption = (
            f"{sample.record.path.rsplit('/', 1)[-1]}: {len(labels)} boxes, {image.shape[1]}x{image.shape[0]}"
        )
        out.append((caption, drawn))
    return out
