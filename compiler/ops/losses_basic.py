"""Classification and regression losses of anchor and region heads.

Labels are classes, -1 background, -2 ignored. Each loss is a sum over rows divided by a count (`average`):
"samples" are rows that are not ignored, "positives" rows with a class, "positives_per_image" divides each
image by its own positives and averages over images. Where nothing counts the loss is 0.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from detc.compiler.ops.base import Function, Op, Port
from detc.compiler.types import Mismatch, Struct, Tensor, Type, tensor

Average = Literal["samples", "positives", "positives_per_image"]


def _scores(logits: Tensor, labels: Tensor) -> None:
    if len(logits.shape) != 3 or len(labels.shape) != 2:
        raise Mismatch(
            f"the loss needs scores [B, N, C] and labels [B, N], not {logits} and {labels}",
            code="DET0303",
            inputs=((0, f"{logits}"), (1, f"{labels}")),
        )
    same_rows(logits, labels)


def same_rows(pred: Tensor, target: Tensor) -> None:
    """Check that dimension 1 (rows) of both agrees where both are numbers.

    Raises:
        Mismatch: naming both.
    """
    a, b = pred.shape[1], target.shape[1]
    if a.differs(b):
        raise Mismatch(
            f"{a} predictions for {b} targets", code="DET0303", inputs=((0, f"{pred}"), (1, f"{target}"))
        )


class CrossEntropy(Op):
    """Cross entropy of class scores.

    The softmax form takes C + 1 columns, background last; without `background` there is no such column, and
    background rows do not count. With `sigmoid` each of C columns is a yes-or-no question of its own.
    `background_weight` is what a background row counts, in the sum and in the number of samples.
    """

    module = "std.losses"
    phase = "train"
    inputs = (Port("logits", Tensor), Port("labels", Tensor))

    sigmoid: bool = False
    background: bool = True
    average: Average = "samples"
    smoothing: float = Field(default=0.0, ge=0, lt=1)
    background_weight: float = Field(default=1.0, ge=0)

    def infer(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Scores [B, N, C] and labels [B, N] to a scalar."""
        if self.sigmoid and self.smoothing:
            raise Mismatch("`smoothing` belongs to the softmax form", param="smoothing")
        _scores(logits, labels)
        return tensor()

    def torch(self, logits: Type, labels: Type) -> Function:  # type: ignore[override]
        """torch's cross entropy, masked and averaged."""
        if self.sigmoid:
            return Function("detc.compiler.functional.losses:sigmoid_cross_entropy", {"by": self.average})
        kwargs: dict[str, object] = {"by": self.average, "smoothing": self.smoothing}
        if not self.background:
            kwargs["background"] = False
        if self.background_weight != 1.0:
            kwargs["background_weight"] = self.background_weight
        return Function("detc.compiler.functional.losses:cross_entropy", kwargs)


class Focal(Op):
    """Sigmoid focal loss (Lin et al., 2017)."""

    module = "std.losses"
    phase = "train"
    inputs = (Port("logits", Tensor), Port("labels", Tensor))

    alpha: float = Field(default=0.25, ge=0, le=1)
    gamma: float = Field(default=2.0, ge=0)
    average: Average = "positives"

    def infer(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Scores [B, N, C], no background column, and labels [B, N] to a scalar."""
        _scores(logits, labels)
        return tensor()

    def torch(self, logits: Type, labels: Type) -> Function:  # type: ignore[override]
        """The native focal loss, masked and averaged."""
        return Function(
            "detc.compiler.functional.losses:focal",
            {"alpha": self.alpha, "gamma": self.gamma, "by": self.average},
        )


class SmoothL1(Op):
    """Smooth L1 (Girshick, 2015): quadratic below `beta`, of slope 1 above.

    The target is a tensor, all of which counts, or the `deltas` of `DeltaEncode`, whose background rows do
    not. Predictions for each class, [B, N, C, 4], are judged at the class of the label.
    """

    module = "std.losses"
    phase = "train"
    inputs = (Port("pred", Tensor), Port("target", (Tensor, Struct)))

    beta: float = Field(default=1.0, ge=0)
    average: Average = "samples"

    def infer(self, pred: Tensor, target: Tensor | Struct) -> Tensor:
        """Predictions [B, N, D] or [B, N, C, D] and targets [B, N, D] to a scalar."""
        values = target.get("values") if isinstance(target, Struct) else target
        labelled = isinstance(target, Struct) and target.get("labels") is not None
        if not isinstance(values, Tensor) or (isinstance(target, Struct) and not labelled):
            raise Mismatch(
                f"the target must be a tensor or encoded deltas, not {target}",
                inputs=((1, f"{target}"),),
                help="use the `deltas` of DeltaEncode",
            )
        if len(pred.shape) not in ((3, 4) if labelled else (3,)) or pred.shape[-1] != values.shape[-1]:
            raise Mismatch(
                f"predictions {pred} do not fit targets {values}",
                code="DET0303",
                inputs=((0, f"{pred}"), (1, f"{target}")),
            )
        same_rows(pred, values)
        return tensor()

    def torch(self, pred: Type, target: Type) -> Function:  # type: ignore[override]
        """torch's smooth L1, masked and averaged."""
        return Function("detc.compiler.functional.losses:smooth_l1", {"beta": self.beta, "by": self.average})


class L1(SmoothL1):
    """The absolute difference; inputs as for `SmoothL1`."""

    module = "std.losses"

    beta: float = Field(default=0.0, ge=0, le=0)
