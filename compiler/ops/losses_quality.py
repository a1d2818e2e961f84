"""Losses whose targets are numbers between 0 and 1. Each is a sum over max(norm, `least`)."""

from __future__ import annotations

from pydantic import Field, PositiveInt

from detc.compiler.ops.base import Function, Op, Port
from detc.compiler.ops.losses_iou import check_pair
from detc.compiler.ops.points import check_predictions
from detc.compiler.types import Mismatch, Pyramid, Tensor, Type, tensor

LOGITS = Port("logits", (Tensor, Pyramid))
NORM = Port("norm", Tensor, optional=True)
WEIGHT = Port("weight", Tensor, optional=True)
PACKAGE = "detc.compiler.functional.losses_quality"


def _check_dense(logits: Tensor | Pyramid, target: Tensor) -> None:
    """A prediction of C classes at each point against a target [B, N, C]."""
    if len(target.shape) != 3 or not target.shape[-1].is_const:
        raise Mismatch(
            f"targets are [B, N, C], not {target}", code="DET0303", inputs=((1, f"{target} comes from here"),)
        )
    classes = int(target.shape[-1])
    if isinstance(logits, Tensor):
        check_pair("logits", logits, target)
    else:
        check_predictions("logits", logits, classes, None, 0)


class _Dense(Op):
    """`(logits, target, norm?)`: logits [B, N, C] or a pyramid of C channels, target [B, N, C] in [0, 1]."""

    inputs = (LOGITS, Port("target", Tensor), NORM)

    def infer(self, logits: Tensor | Pyramid, target: Tensor, norm: Type | None = None) -> Tensor:
        """A scalar."""
        _check_dense(logits, target)
        return tensor()


class QualityFocal(_Dense):
    """|target - p| ** beta times binary cross entropy (Li et al., generalised focal loss, 2020)."""

    module = "std.losses"

    beta: float = Field(default=2.0, ge=0)
    least: float = Field(default=1.0, gt=0)

    def torch(  # type: ignore[override]
        self, logits: Tensor | Pyramid, target: Tensor, norm: Type | None = None
    ) -> Function:
        """The native op, summed."""
        return Function(f"{PACKAGE}:quality_focal", {"beta": self.beta, "least": self.least})


class Varifocal(_Dense):
    """Varifocal loss (Zhang et al., VarifocalNet, 2021): positives are weighted by their target."""

    module = "std.losses"

    alpha: float = Field(default=0.75, ge=0)
    gamma: float = Field(default=2.0, ge=0)
    least: float = Field(default=1.0, gt=0)

    def torch(  # type: ignore[override]
        self, logits: Tensor | Pyramid, target: Tensor, norm: Type | None = None
    ) -> Function:
        """The native op, summed."""
        kwargs = {"alpha": self.alpha, "gamma": self.gamma, "least": self.least}
        return Function(f"{PACKAGE}:varifocal", kwargs)


class BinaryCrossEntropy(Op):
    """`(logits, target, weight?, norm?)`: binary cross entropy against numbers in [0, 1].

    Logits are of the target's shape, [B, N, 1] for a target [B, N], or a pyramid. Weights are of the target's
    shape; `norm` is their sum by default.
    """

    module = "std.losses"
    inputs = (LOGITS, Port("target", Tensor), WEIGHT, NORM)

    least: float = Field(default=1.0, gt=0)

    def infer(
        self, logits: Tensor | Pyramid, target: Tensor, weight: Type | None = None, norm: Type | None = None
    ) -> Tensor:
        """A scalar."""
        if isinstance(logits, Pyramid):
            wide = len(target.shape) == 3 and target.shape[-1].is_const
            check_predictions("logits", logits, int(target.shape[-1]) if wide else 1, None, 0)
        elif len(logits.shape) == len(target.shape) + 1:
            check_predictions("logits", logits, 1, None, 0)
        else:
            check_pair("logits", logits, target)
        return tensor()

    def torch(  # type: ignore[override]
        self, logits: Tensor | Pyramid, target: Tensor, weight: Type | None = None, norm: Type | None = None
    ) -> Function:
        """From logits, in float32."""
        return Function(f"{PACKAGE}:binary_cross_entropy", {"least": self.least})


class DistributionFocal(Op):
    """`(logits, target, weight?, norm?)`: cross entropy of distances as distributions (Li et al., 2020).

    Logits are [B, N, 4 (bins + 1)] or a pyramid; the target [B, N, 4] holds distances in bins.
    """

    module = "std.losses"
    inputs = (LOGITS, Port("target", Tensor), WEIGHT, NORM)

    bins: PositiveInt = 16
    least: float = Field(default=1.0, gt=0)

    def infer(
        self, logits: Tensor | Pyramid, target: Tensor, weight: Type | None = None, norm: Type | None = None
    ) -> Tensor:
        """A scalar."""
        check_predictions("logits", logits, 4 * (self.bins + 1), None, 0)
        check_predictions("distances", target, 4, None, 1)
        return tensor()

    def torch(  # type: ignore[override]
        self, logits: Tensor | Pyramid, target: Tensor, weight: Type | None = None, norm: Type | None = None
    ) -> Function:
        """Two bins a side."""
        return Function(f"{PACKAGE}:distribution_focal", {"bins": self.bins, "least": self.least})
