"""Masks of objects: targets, losses and what detections carry (He et al., Mask R-CNN, ICCV 2017)."""

from __future__ import annotations

from fractions import Fraction
from typing import Literal

from pydantic import Field, PositiveInt

from detc.compiler.ops.base import Function, Op, Port
from detc.compiler.ops.boxes import boxes_of
from detc.compiler.ops.losses_basic import same_rows
from detc.compiler.types import BATCH, Map, Mismatch, Struct, Tensor, Type, detections, tensor


class FoldRegions(Op):
    """The features of regions as maps, images and regions together in the batch, for convolutions."""

    module = "std.ops"
    inputs = (Port("x", Tensor),)

    def infer(self, x: Tensor) -> Map:
        """[B, K, C, H, W] to maps [B K, C, H, W]; their stride is counted from the region's own grid."""
        if len(x.shape) != 5 or not x.shape[2].is_const:
            raise Mismatch(
                f"features of regions are [B, K, C, H, W], not {x}",
                code="DET0303",
                inputs=((0, f"{x}"),),
                help="RoIAlign gives such features",
            )
        return Map(int(x.shape[2]), Fraction(1), x.shape[3], x.shape[4])

    def torch(self, x: Tensor) -> Function:  # type: ignore[override]
        """`flatten`."""
        return Function("detc.compiler.functional.masks:fold_regions")


class UnfoldRegions(Op):
    """The inverse of `FoldRegions`; images and regions are counted from its second input."""

    module = "std.ops"
    inputs = (Port("x", Map), Port("like", Tensor))

    def infer(self, x: Map, like: Tensor) -> Tensor:
        """Maps [B K, C, H, W] and [B, K, ...] to [B, K, C, H, W]."""
        if len(like.shape) < 2:
            raise Mismatch(f"{like} has no regions to count", code="DET0303", inputs=((1, f"{like}"),))
        return tensor(like.shape[0], like.shape[1], x.channels, x.height, x.width)

    def torch(self, x: Map, like: Tensor) -> Function:  # type: ignore[override]
        """`unflatten`."""
        return Function("detc.compiler.functional.masks:unfold_regions")


class MaskTargets(Op):
    """What the mask of each region should be: its truth's mask inside of it, on a grid, by RoIAlign.

    size: side of the grid. threshold: targets are 0 or 1; without it they are the covered share
    (torchvision's). aligned: half-pixel centres.
    """

    module = "std.ops"
    phase = "train"
    inputs = (Port("rois", (Tensor, Struct)), Port("index", Tensor), Port("masks", Tensor))

    size: PositiveInt = 28
    threshold: float | None = Field(default=0.5, gt=0, le=1)
    aligned: bool = True

    def infer(self, rois: Tensor | Struct, index: Tensor, masks: Tensor) -> Tensor:
        """Regions [B, K, 4], the index of each one's truth [B, K] and masks [B, G, H, W] to [B, K, size, size]."""
        boxes = boxes_of(rois)
        if index.dtype != "int64" or len(index.shape) != 2:
            raise Mismatch(
                f"the truth of each region is an index [B, K], not {index}",
                code="DET0303",
                inputs=((1, f"{index}"),),
                help="`index` of the target of MatchAndSample",
            )
        if len(masks.shape) != 4 or masks.dtype != "bool":
            raise Mismatch(
                f"the truth's masks are [B, G, H, W], not {masks}",
                code="DET0303",
                inputs=((2, f"{masks}"),),
                help="write truth.masks",
            )
        same_rows(boxes, index)
        return tensor(BATCH, boxes.shape[1], self.size, self.size)

    def torch(self, *inputs: Type) -> Function:
        """One RoIAlign over all masks of the batch."""
        kwargs = {"size": self.size, "aligned": self.aligned, "threshold": self.threshold}
        return Function("detc.compiler.functional.masks:mask_targets", kwargs)


class ClassMasks(Op):
    """Of the masks that a region has for each class, the one of its own class."""

    module = "std.ops"
    inputs = (Port("masks", Tensor), Port("labels", Tensor))

    def infer(self, masks: Tensor, labels: Tensor) -> Tensor:
        """[B, K, C, m, m] and labels [B, K] to [B, K, m, m]; with C = 1 there is one mask for all classes."""
        _masks_for_classes(masks)
        same_rows(masks, labels)
        return tensor(*masks.shape[:2], *masks.shape[3:])

    def torch(self, *inputs: Type) -> Function:
        """`gather`."""
        return Function("detc.compiler.functional.masks:class_masks")


def _masks_for_classes(masks: Tensor) -> None:
    if len(masks.shape) != 5:
        raise Mismatch(
            f"masks for each class are [B, K, C, m, m], not {masks}",
            code="DET0303",
            inputs=((0, f"{masks}"),),
        )


class MaskBCE(Op):
    """Binary cross entropy of masks: only the mask of the label's class counts, and only in labelled regions.

    The mean over the pixels of a region, then over regions: [B, K, C, m, m] against [B, K, m, m].
    """

    module = "std.losses"
    phase = "train"
    inputs = (Port("logits", Tensor), Port("target", Tensor), Port("labels", Tensor))

    def infer(self, logits: Tensor, target: Tensor, labels: Tensor) -> Tensor:
        """A scalar."""
        _masks_for_classes(logits)
        if len(target.shape) != 4 or target.shape[2:] != logits.shape[3:]:
            raise Mismatch(
                f"masks of {_side(logits)} do not fit targets of {_side(target)}",
                code="DET0303",
                inputs=((0, f"{logits}"), (1, f"{target}")),
                help="give MaskTargets the side of the head's masks",
            )
        same_rows(logits, target)
        same_rows(logits, labels)
        return tensor()

    def torch(self, *inputs: Type) -> Function:
        """torch's binary cross entropy, masked and averaged."""
        return Function("detc.compiler.functional.masks:mask_bce")


def _side(masks: Tensor) -> str:
    return " x ".join(map(str, masks.shape[-2:]))


class WithMasks(Op):
    """Detections that carry masks, as probabilities.

    over: "box": each mask is stretched over its box; "image": over the whole input of the network, padding
    included, at any resolution.
    """

    module = "std.post"
    inputs = (Port("found", Struct, kinds=("detections",)), Port("masks", Tensor))

    over: Literal["box", "image"] = "box"

    def infer(self, found: Struct, masks: Tensor) -> Struct:
        """Detections [B, K] and masks [B, K, h, w] to detections."""
        boxes = boxes_of(found)
        if len(masks.shape) != 4:
            raise Mismatch(
                f"detections carry masks [B, K, h, w], not {masks}",
                code="DET0303",
                inputs=((1, f"{masks}"),),
                help="ClassMasks takes the mask of each detection's class",
            )
        if self.over == "box" and not all(side.is_const for side in masks.shape[2:]):
            raise Mismatch(
                f"masks of {_side(masks)} grow with the image, and those of boxes have one size",
                code="DET0303",
                inputs=((1, f"{masks}"),),
                param="over",
                help='write over = "image"',
            )
        same_rows(boxes, masks)
        name = "box_masks" if self.over == "box" else "masks"
        return detections(boxes.shape[1], **{name: tensor(BATCH, *masks.shape[1:])})

    def torch(self, *inputs: Type) -> Function:
        """A dict with one more field."""
        return Function("detc.compiler.functional.masks:with_masks", {"over": self.over})
