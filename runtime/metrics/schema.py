"""The metrics that a `data` declaration may name: `evaluate { coco: CocoBox(on = "val") }`. Torch-free."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from detc.compiler.primitives import Primitive

if TYPE_CHECKING:
    from detc.runtime.data.dataset import DetectionDataset
    from detc.runtime.metrics.base import Evaluator


class Metric(Primitive):
    """Base of metrics.

    reads: the fields of the graph's detections that it needs; truth: those of the data.
    on: the split that it is computed on.
    """

    module: ClassVar[str | None] = None
    reads: ClassVar[tuple[str, ...]] = ("boxes", "scores", "labels")
    truth: ClassVar[tuple[str, ...]] = ("boxes", "labels")
    output: ClassVar[str] = "detections"  # which of the model's outputs it reads
    video: ClassVar[bool] = False  # computed over sequences, by `detc run val`; not while training
    on: Literal["train", "val", "test"] = "val"

    def numbers(self) -> tuple[str, ...]:
        """The names of what it computes, as logs have them and `best` may name them; () if they are not known."""
        return ()

    def build(self, dataset: DetectionDataset) -> Evaluator:
        """An evaluator over the annotations of `dataset`."""
        raise NotImplementedError


def _coco_numbers(most: int, end: str) -> tuple[str, ...]:
    """AP at all and at single overlaps, AR at so many detections, both also by area."""
    counts = sorted({1, min(10, most), most})
    precision = ["ap", "ap50", "ap75", "ap_s", "ap_m", "ap_l"]
    return tuple(f"{n}{end}" for n in [*precision, *(f"ar_{c}" for c in counts), "ar_s", "ar_m", "ar_l"])


class CocoBox(Metric):
    """COCO's box AP and AR, computed by pycocotools; `most` detections an image count."""

    module = "std.data"
    most: int = Field(100, ge=1)

    def build(self, dataset: DetectionDataset) -> Evaluator:
        from detc.runtime.metrics.coco import CocoEvaluator

        return CocoEvaluator(dataset, "bbox", self.most)

    def numbers(self) -> tuple[str, ...]:
        return _coco_numbers(self.most, "")


class CocoMask(Metric):
    """COCO's mask AP and AR, computed by pycocotools."""

    module = "std.data"
    reads = ("boxes", "scores", "labels", "masks")
    truth = ("boxes", "labels", "masks")
    most: int = Field(100, ge=1)

    def build(self, dataset: DetectionDataset) -> Evaluator:
        from detc.runtime.metrics.coco import CocoEvaluator

        return CocoEvaluator(dataset, "segm", self.most)

    def numbers(self) -> tuple[str, ...]:
        return _coco_numbers(self.most, "_mask")


class PanopticPQ(Metric):
    """Panoptic quality (Kirillov et al., 2019) of the model's map of segments."""

    module = "std.data"
    reads = ("labels", "panoptic")
    truth = ("boxes", "labels", "masks")

    def build(self, dataset: DetectionDataset) -> Evaluator:
        from detc.runtime.metrics.segmentation import PanopticEvaluator

        return PanopticEvaluator(dataset)

    def numbers(self) -> tuple[str, ...]:
        return tuple(f"{n}{group}" for group in ("", "_things", "_stuff") for n in ("PQ", "SQ", "RQ"))


class SemanticIoU(Metric):
    """The mean IoU of classes of the model's map of class numbers."""

    module = "std.data"
    reads = ("labels", "semantic")
    truth = ("boxes", "labels", "masks")

    def build(self, dataset: DetectionDataset) -> Evaluator:
        from detc.runtime.metrics.segmentation import SemanticEvaluator

        return SemanticEvaluator(dataset)

    def numbers(self) -> tuple[str, ...]:
        return ("mIoU", "accuracy", "IoU")


class VocBox(Metric):
    """Pascal VOC's AP at one IoU: area under the curve (VOC 2010 on) or the mean at 11 recalls (VOC 2007)."""

    module = "std.data"
    iou: float = Field(0.5, gt=0, lt=1)
    mode: Literal["area", "11points"] = "area"

    def build(self, dataset: DetectionDataset) -> Evaluator:
        from detc.runtime.metrics.voc import VocEvaluator

        return VocEvaluator(dataset, self.iou, self.mode)

    def numbers(self) -> tuple[str, ...]:
        return ("ap",)


class TrackMetrics(Metric):
    """HOTA, CLEAR MOT (MOTA) and IDF1 of the tracks that a model reports, over the sequences of a split.

    mot17: apply the rules of MOT16 and MOT17: distractors are taken out, only pedestrians count.
    """

    module = "std.data"
    reads = ("boxes", "ids")
    output = "tracks"
    video = True
    mot17: bool = False
