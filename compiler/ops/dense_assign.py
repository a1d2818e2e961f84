"""Assigners of detectors with one prediction a point. They give `targets`, see each op."""

from __future__ import annotations

from pydantic import Field, PositiveInt

from detc.compiler.dims import DimLike
from detc.compiler.ops.base import Function, Op, Port
from detc.compiler.ops.points import check_predictions, point_count
from detc.compiler.types import BATCH, Pyramid, Struct, Tensor, struct, tensor

POINTS = Port("points", Struct, kinds=("points",))
TRUTH = Port("truth", Struct, kinds=("instances",))


def _centered_targets(n: DimLike) -> Struct:
    """What FCOS and ATSS give."""
    return struct(
        "targets",
        labels=tensor(BATCH, n, dtype="int64", kind="labels"),
        boxes=tensor(BATCH, n, 4, kind="boxes"),
        centerness=tensor(BATCH, n),
        positive=tensor(BATCH, n),
        total=tensor(),
        index=tensor(BATCH, n, dtype="int64"),
    )


class FCOSAssign(Op):
    """A point learns the smallest object that it lies in and that suits its level (Tian et al., 2019).

    An object suits a level if the largest of the point's distances to its sides lies between `scale / 2` and
    `scale` strides (no lower bound on the finest level, no upper one on the coarsest), bounds included if
    `inclusive`. `radius` narrows an object to so many strides around its centre.

    Gives `labels` [B, N] (-1: background), `boxes` [B, N, 4], `centerness` [B, N] (0 for background),
    `positive` [B, N] (1 or 0), `total`, the number of positives, and `index` [B, N], which truth (-1: none).
    """

    module = "std.dense"
    phase = "train"
    inputs = (POINTS, TRUTH)

    radius: float | None = Field(default=None, gt=0)
    scale: float = Field(default=8.0, gt=0)
    inclusive: bool = True

    def infer(self, points: Struct, truth: Struct) -> Struct:
        """Targets for each point of each image."""
        return _centered_targets(point_count(points))

    def torch(self, points: Struct, truth: Struct) -> Function:  # type: ignore[override]
        """Batched over images, masked over padded truth."""
        return Function(
            "detc.compiler.functional.dense_assign:fcos_assign",
            {"radius": self.radius, "scale": self.scale, "inclusive": self.inclusive},
        )


class ATSSAssign(Op):
    """ATSS (Zhang et al., 2020) with one square anchor of `scale` strides at each point.

    Gives what `FCOSAssign` gives.
    """

    module = "std.dense"
    phase = "train"
    inputs = (Port("levels", Pyramid), POINTS, TRUTH)

    topk: PositiveInt = 9
    scale: float = Field(default=8.0, gt=0)

    def infer(self, levels: Pyramid, points: Struct, truth: Struct) -> Struct:
        """Targets for each point of each image."""
        return _centered_targets(point_count(points))

    def torch(self, levels: Pyramid, points: Struct, truth: Struct) -> Function:  # type: ignore[override]
        """Batched over images, masked over padded truth."""
        return Function(
            "detc.compiler.functional.dense_assign:atss_assign", {"topk": self.topk, "scale": self.scale}
        )


class DynamicSoftLabel(Op):
    """RTMDet's assigner (Lyu et al., 2022): dynamic k from IoU, soft labels, a soft centre prior.

    Gives `labels` [B, N] (-1: background), `scores` [B, N, C] (the IoU with the object at its class),
    `boxes` [B, N, 4], `weight` [B, N] (the IoU, 0 for background), `total`, the sum of the weights, and `index`
    [B, N], which truth (-1: none).
    """

    module = "std.dense"
    phase = "train"
    inputs = (POINTS, Port("logits", (Tensor, Pyramid)), Port("boxes", Tensor, kinds=("boxes",)), TRUTH)

    topk: PositiveInt = 13
    radius: float = Field(default=3.0, ge=0)
    iou_weight: float = Field(default=3.0, ge=0)

    def infer(self, points: Struct, logits: Tensor | Pyramid, boxes: Tensor, truth: Struct) -> Struct:
        """Targets for each point of each image."""
        n = point_count(points)
        classes = check_predictions("logits", logits, None, n, 1)
        check_predictions("box numbers", boxes, 4, n, 2)
        return struct(
            "targets",
            labels=tensor(BATCH, n, dtype="int64", kind="labels"),
            scores=tensor(BATCH, n, classes),
            boxes=tensor(BATCH, n, 4, kind="boxes"),
            weight=tensor(BATCH, n),
            total=tensor(),
            index=tensor(BATCH, n, dtype="int64"),
        )

    def torch(  # type: ignore[override]
        self, points: Struct, logits: Tensor | Pyramid, boxes: Tensor, truth: Struct
    ) -> Function:
        """Batched over images, masked over padded truth."""
        return Function(
            "detc.compiler.functional.soft_label:dynamic_soft_label",
            {
                "classes": check_predictions("logits", logits, None, None, 1),
                "topk": self.topk,
                "radius": self.radius,
                "iou_weight": self.iou_weight,
            },
        )
