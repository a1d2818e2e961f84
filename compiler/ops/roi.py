"""Regions: the region proposal network's selection and the features of a region."""

from __future__ import annotations

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt

from detc.compiler.dims import dim
from detc.compiler.ops.base import Function, Op, Port
from detc.compiler.ops.boxes import Std, boxes_of
from detc.compiler.types import BATCH, Image, Mismatch, Pyramid, Struct, Tensor, Type, proposals, tensor


class Proposals(Op):
    """The best anchors of each level, decoded, clipped, and thinned out level by level (Ren et al., 2015).

    before: anchors of each level that take part. keep: capacity of the result, over all levels.
    iou: of two boxes of one level that overlap more, the better stays. min_size: of both sides, in pixels.
    """

    module = "std.ops"
    inputs = (
        Port("anchors", Tensor, kinds=("boxes",)),
        Port("logits", Pyramid),
        Port("deltas", Pyramid),
        Port("image", Image),
    )

    before: PositiveInt = 1000
    keep: PositiveInt = 1000
    iou: float = Field(default=0.7, ge=0, le=1)
    min_size: float = Field(default=0.001, ge=0)
    std: Std = [1.0, 1.0, 1.0, 1.0]

    def infer(self, anchors: Tensor, logits: Pyramid, deltas: Pyramid, image: Image) -> Struct:
        """Anchors [N, 4], logits [B, A, H, W] and deltas [B, 4 A, H, W] to proposals [B, keep]."""
        boxes_of(anchors)
        if len(logits.maps) != len(deltas.maps):
            raise Mismatch(
                f"{len(logits.maps)} levels of logits and {len(deltas.maps)} of deltas",
                inputs=((1, f"{logits}"), (2, f"{deltas}")),
            )
        for x, y in zip(logits.maps, deltas.maps, strict=True):
            if y.channels != 4 * x.channels:
                raise Mismatch(
                    f"{x.channels} scores and {y.channels} deltas at each position; deltas come in fours",
                    code="DET0302",
                    inputs=((1, f"{x.channels} channels"), (2, f"{y.channels} channels")),
                )
        apart = anchors.shape[0] - sum((m.height * m.width * m.channels for m in logits.maps), dim(0))
        if apart != dim(0):
            raise Mismatch(
                f"{anchors.shape[0]} anchors do not fit {logits.maps[0].channels} scores at each position",
                inputs=((0, "the anchors"), (1, f"{logits.maps[0].channels} channels")),
            )
        return proposals(self.keep)

    def torch(self, *inputs: Type) -> Function:
        """Top-k and one batched suppression over all levels."""
        return Function(
            "detc.compiler.functional.proposals:select_proposals",
            {
                "before": self.before,
                "keep": self.keep,
                "iou": self.iou,
                "min_size": self.min_size,
                "std": list(self.std),
            },
        )


class RoIAlign(Op):
    """Pools each region to a fixed grid by bilinear sampling (He et al., 2017).

    A region whose side (root of its area) is `canonical_size` is pooled from the level of stride
    2^`canonical_level`; each doubling goes one level up (FPN, Lin et al., 2017, equation 1).

    levels: how many of the finest levels take part.
    sampling: points of each bin and axis; 0 takes as many as there are pixels.
    aligned: half-pixel centres (Detectron2's correction); torchvision's detectors leave it out.
    """

    module = "std.roi"
    inputs = (Port("feats", Pyramid), Port("rois", (Tensor, Struct)))

    size: PositiveInt = 7
    levels: PositiveInt = 4
    sampling: NonNegativeInt = 0
    aligned: bool = True
    canonical_size: PositiveFloat = 224.0
    canonical_level: float = 4.0

    def infer(self, feats: Pyramid, rois: Tensor | Struct) -> Tensor:
        """Maps [B, C, H, W] and regions [B, K, 4] to [B, K, C, size, size]."""
        boxes = boxes_of(rois)
        if len(boxes.shape) != 3:
            raise Mismatch(f"regions are [B, K, 4], not {boxes}", code="DET0303", inputs=((1, f"{rois}"),))
        used = feats.maps[: self.levels]
        for m in used:
            if m.channels != used[0].channels:
                raise Mismatch(
                    f"the levels have {used[0].channels} and {m.channels} channels",
                    code="DET0302",
                    inputs=((0, f"{feats}"),),
                )
        return tensor(BATCH, boxes.shape[1], used[0].channels, self.size, self.size)

    def torch(self, feats: Pyramid, rois: Type) -> Function:  # type: ignore[override]
        """One native op over all levels."""
        return Function(
            "detc.compiler.functional.roi:roi_align",
            {
                "size": self.size,
                "strides": [float(m.stride) for m in feats.maps[: self.levels]],
                "sampling": self.sampling,
                "aligned": self.aligned,
                "canonical_size": self.canonical_size,
                "canonical_level": self.canonical_level,
            },
        )
