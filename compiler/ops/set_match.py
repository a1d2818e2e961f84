"""One-to-one matching of queries and truth (Carion et al., DETR, ECCV 2020): costs, the match, what it says."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from detc.compiler.ops.base import Function, Op, Port
from detc.compiler.types import BATCH, Mismatch, Struct, Tensor, Type, struct, tensor

PACKAGE = "detc.compiler.functional.set_match"


class ClassCost(Op):
    """What it costs to match each query with each truth, by the score of the truth's class: [B, N, G].

    "softmax": minus the probability (DETR), the last column is no object. "focal": the focal loss of saying yes
    less that of saying no (Deformable DETR), each column a question of its own.
    """

    module = "std.ops"
    phase = "train"
    inputs = (Port("logits", Tensor), Port("truth", Struct, kinds=("instances",)))

    kind: Literal["softmax", "focal"] = "softmax"
    alpha: float = Field(default=0.25, ge=0, le=1)
    gamma: float = Field(default=2.0, ge=0)

    def infer(self, logits: Tensor, truth: Struct) -> Tensor:
        """Logits [B, N, C] and truth [B, G] to [B, N, G]."""
        if len(logits.shape) != 3:
            raise Mismatch(
                f"class scores of queries are [B, N, C], not {logits}",
                code="DET0303",
                inputs=((0, f"{logits}"),),
            )
        labels = truth.get("labels")
        assert isinstance(labels, Tensor)
        return tensor(BATCH, logits.shape[1], labels.shape[1])

    def torch(self, logits: Type, truth: Type) -> Function:  # type: ignore[override]
        """Scores gathered by label."""
        return Function(
            f"{PACKAGE}:class_cost", {"kind": self.kind, "alpha": self.alpha, "gamma": self.gamma}
        )


class HungarianMatch(Op):
    """The cheapest one-to-one match of queries and truth, on the device.

    `index` [B, N] is the truth of each query (-1: none), `row` [B, G] the query of each truth (-1: none), `labels`
    [B, N] the class of each query's truth (-1: none) and `valid` [B, G] says which truths found a query.
    """

    module = "std.ops"
    phase = "train"
    inputs = (Port("cost", Tensor), Port("truth", Struct, kinds=("instances",)))

    def infer(self, cost: Tensor, truth: Struct) -> Struct:
        """Costs [B, N, G] to a match."""
        if len(cost.shape) != 3:
            raise Mismatch(
                f"costs are [B, N, G], not {cost}",
                code="DET0303",
                inputs=((0, f"{cost}"),),
                help="add up costs: ClassCost, MaskCost, …",
            )
        n, g = cost.shape[1:]
        return struct(
            "match",
            index=tensor(BATCH, n, dtype="int64"),
            row=tensor(BATCH, g, dtype="int64"),
            labels=tensor(BATCH, n, dtype="int64", kind="labels"),
            valid=tensor(BATCH, g, dtype="bool"),
        )

    def torch(self, cost: Type, truth: Type) -> Function:  # type: ignore[override]
        """The native assignment."""
        return Function(f"{PACKAGE}:hungarian_match")


class SetCrossEntropy(Op):
    """Softmax cross entropy of queries, those without a truth for the last column with weight `background`.

    The weighted mean over all queries of the batch (DETR, section 3.1).
    """

    module = "std.losses"
    phase = "train"
    inputs = (Port("logits", Tensor), Port("labels", Tensor))

    background: float = Field(default=0.1, gt=0)

    def infer(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Logits [B, N, C + 1] and labels [B, N] to a scalar."""
        if len(logits.shape) != 3 or len(labels.shape) != 2:
            raise Mismatch(
                f"the loss needs scores [B, N, C + 1] and labels [B, N], not {logits} and {labels}",
                code="DET0303",
                inputs=((0, f"{logits}"), (1, f"{labels}")),
                help="a match's `labels` are such labels",
            )
        return tensor()

    def torch(self, logits: Type, labels: Type) -> Function:  # type: ignore[override]
        """torch's cross entropy with one weight a class."""
        return Function(f"{PACKAGE}:set_cross_entropy", {"background": self.background})
