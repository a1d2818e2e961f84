"""Sides of boxes as distributions over distances (generalised focal loss, Li et al., NeurIPS 2020)."""

from __future__ import annotations

from dataclasses import replace

from pydantic import Field, PositiveInt

from detc.compiler.ops.base import Function, Op, Port
from detc.compiler.ops.points import LTRB, check_predictions, point_count
from detc.compiler.types import BATCH, Mismatch, Pyramid, Struct, Tensor, Type, tensor

PACKAGE = "detc.compiler.functional.distribution"


class DistanceMean(Op):
    """The expected distance of each side: softmax over `bins` + 1 whole distances, in strides."""

    module = "std.dense"
    inputs = (Port("sides", Pyramid),)

    bins: PositiveInt = 16

    def infer(self, sides: Pyramid) -> Pyramid:
        """Maps of 4 (bins + 1) channels to maps of 4."""
        check_predictions("distances", sides, LTRB * (self.bins + 1), None, 0)
        return Pyramid(tuple(replace(m, channels=LTRB) for m in sides.maps))

    def torch(self, sides: Type) -> Function:  # type: ignore[override]
        """A softmax and a weighted sum."""
        return Function(f"{PACKAGE}:distance_mean", {"bins": self.bins})


class DistanceEncode(Op):
    """Distances from points to the sides of boxes, in strides, between 0 and `bins`: the inverse of decoding."""

    module = "std.dense"
    phase = "train"
    inputs = (Port("points", Struct, kinds=("points",)), Port("boxes", Tensor, kinds=("boxes",)))

    bins: PositiveInt = 16

    def infer(self, points: Struct, boxes: Tensor) -> Tensor:
        """Boxes [B, N, 4] to distances [B, N, 4]."""
        check_predictions("boxes", boxes, LTRB, point_count(points), 1)
        return tensor(*boxes.shape)

    def torch(self, points: Type, boxes: Type) -> Function:  # type: ignore[override]
        """Subtractions and a clamp."""
        return Function(f"{PACKAGE}:distance_encode", {"bins": self.bins})


class QualityTarget(Op):
    """What quality focal loss learns: at the class of each positive row the overlap of its box, else 0."""

    module = "std.dense"
    phase = "train"
    inputs = (
        Port("labels", Tensor),
        Port("boxes", Tensor, kinds=("boxes",)),
        Port("target", Tensor, kinds=("boxes",)),
    )

    classes: PositiveInt

    def infer(self, labels: Tensor, boxes: Tensor, target: Tensor) -> Tensor:
        """Labels [B, N] and boxes [B, N, 4] to [B, N, C]."""
        if len(labels.shape) != 2:
            raise Mismatch(f"labels are [B, N], not {labels}", code="DET0303", inputs=((0, f"{labels}"),))
        return tensor(BATCH, labels.shape[1], self.classes)

    def torch(self, labels: Type, boxes: Type, target: Type) -> Function:  # type: ignore[override]
        """Overlaps, row by row, without gradient."""
        return Function(f"{PACKAGE}:quality_target", {"classes": self.classes})


class BestScore(Op):
    """The best class probability of each positive row, without gradient, 0 elsewhere: how much its box counts."""

    module = "std.dense"
    phase = "train"
    inputs = (Port("logits", (Tensor, Pyramid)), Port("positive", Tensor))

    def infer(self, logits: Tensor | Pyramid, positive: Tensor) -> Tensor:
        """[B, N]."""
        return tensor(*positive.shape)

    def torch(self, logits: Type, positive: Type) -> Function:  # type: ignore[override]
        """A sigmoid and a maximum."""
        return Function(f"{PACKAGE}:best_score")


class DistributionKD(Op):
    """Localisation distillation (Zheng et al., CVPR 2022): the relative entropy of a teacher's distributions.

    `(student, teacher, weight, norm?)`: sides as maps or [B, N, 4 (bins + 1)], weight [B, N]. Softened by `tau`,
    times tau squared, the mean of the four sides, weighted and divided by `norm` (by default the weights' sum).
    """

    module = "std.losses"
    phase = "train"
    inputs = (
        Port("student", (Tensor, Pyramid)),
        Port("teacher", (Tensor, Pyramid)),
        Port("weight", Tensor),
        Port("norm", Tensor, optional=True),
    )

    bins: PositiveInt = 16
    tau: float = Field(default=10.0, gt=0)
    least: float = Field(default=1.0, gt=0)

    def infer(
        self,
        student: Tensor | Pyramid,
        teacher: Tensor | Pyramid,
        weight: Tensor,
        norm: Type | None = None,
    ) -> Tensor:
        """A scalar."""
        check_predictions("distances", student, LTRB * (self.bins + 1), None, 0)
        check_predictions("distances", teacher, LTRB * (self.bins + 1), None, 1)
        if isinstance(student, Pyramid) and isinstance(teacher, Pyramid):
            ours, theirs = ([m.stride for m in p.maps] for p in (student, teacher))
            if ours != theirs:
                shown = [", ".join(map(str, s)) for s in (ours, theirs)]
                raise Mismatch(
                    f"the student has the strides {shown[0]}, the teacher {shown[1]}",
                    code="DET0303",
                    inputs=((0, f"{student}"), (1, f"{teacher}")),
                    help="student and teacher need the same levels: give the necks the same",
                )
        return tensor()

    def torch(  # type: ignore[override]
        self, student: Type, teacher: Type, weight: Type, norm: Type | None = None
    ) -> Function:
        """Relative entropies, in float32."""
        kwargs = {"bins": self.bins, "tau": self.tau, "least": self.least}
        return Function(f"{PACKAGE}:distribution_kd", kwargs)
