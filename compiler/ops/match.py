"""Assigning truth to boxes or anchors by overlap."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from detc.compiler.ops.base import Function, Op, Port
from detc.compiler.ops.boxes import boxes_of
from detc.compiler.types import BATCH, Mismatch, Struct, Tensor, Type, struct, tensor


class MaxIoU(Op):
    """Each box takes the truth that it overlaps most (Ren et al., 2015).

    At least `positive`: matched. Below `negative`: background. Between: ignored. `low_quality` lets each
    truth whose best overlap is at least `min_positive` keep all the boxes that reach it:
    "truth" gives them to that truth (MMDetection), "own" to the truth that they overlap most (torchvision),
    "none" does neither.
    """

    module = "std.ops"
    phase = "train"
    inputs = (Port("boxes", (Tensor, Struct)), Port("truth", Struct, kinds=("instances",)))

    positive: float = Field(default=0.5, gt=0, le=1)
    negative: float | None = Field(default=None, ge=0, le=1)
    min_positive: float = Field(default=0.0, ge=0, le=1)
    low_quality: Literal["none", "truth", "own"] = "none"

    def infer(self, boxes: Tensor | Struct, truth: Struct) -> Struct:
        """Boxes [N, 4] or [B, N, 4] to `index` [B, N] (-1 background, -2 ignored) and `iou` [B, N]."""
        if self.negative is not None and self.negative > self.positive:
            raise Mismatch(
                f"negative = {self.negative} is above positive = {self.positive}", param="negative"
            )
        n = boxes_of(boxes).shape[-2]
        return struct("match", index=tensor(BATCH, n, dtype="int64"), iou=tensor(BATCH, n))

    def torch(self, boxes: Type, truth: Type) -> Function:  # type: ignore[override]
        """The native assigner."""
        return Function(
            "detc.compiler.functional.match:max_iou",
            {
                "positive": self.positive,
                "negative": self.positive if self.negative is None else self.negative,
                "min_positive": self.min_positive,
                "low_quality": self.low_quality,
            },
        )


class MatchedTruth(Op):
    """What each matched box should become: `boxes`, `labels` (-1 background, -2 ignored) and `index`, its truth.

    With a sample as the third input only the sampled boxes. `agnostic` makes every label 0.
    """

    module = "std.ops"
    phase = "train"
    inputs = (
        Port("match", Struct, kinds=("match",)),
        Port("truth", Struct, kinds=("instances",)),
        Port("pick", Struct, kinds=("sample",), optional=True),
    )

    agnostic: bool = False

    def infer(self, match: Struct, truth: Struct, pick: Struct | None = None) -> Struct:
        """A match of N boxes to matched truth [B, N]; with a sample of K to [B, K]."""
        index = (match if pick is None else pick).get("index")
        assert isinstance(index, Tensor)
        n = index.shape[-1]
        return struct(
            "matched",
            boxes=tensor(BATCH, n, 4, kind="boxes"),
            labels=tensor(BATCH, n, dtype="int64", kind="labels"),
            index=tensor(BATCH, n, dtype="int64"),
        )

    def torch(self, match: Type, truth: Type, pick: Type | None = None) -> Function:  # type: ignore[override]
        """Gathers from the padded truth."""
        return Function("detc.compiler.functional.match:matched_truth", {"agnostic": self.agnostic})
