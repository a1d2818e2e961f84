"""Masks of queries (Cheng et al., Mask2Former, CVPR 2022): how they are drawn, attended with and matched."""

from __future__ import annotations

from pydantic import Field

from detc.compiler.ops.base import Function, Op, Port
from detc.compiler.ops.losses_basic import same_rows
from detc.compiler.types import BATCH, Map, Mismatch, Tensor, Type, tensor

PACKAGE = "detc.compiler.functional.mask_queries"


class QueryMasks(Op):
    """The product of each query with each pixel's embedding: one channel of logits a query."""

    module = "std.ops"
    inputs = (Port("query", Tensor), Port("pixels", Map))

    def infer(self, query: Tensor, pixels: Map) -> Map:
        """Queries [B, Q, C] and a map of C channels to a map of Q channels."""
        if len(query.shape) != 3 or not query.shape[1].is_const or not query.shape[2].is_const:
            raise Mismatch(f"queries are [B, Q, C], not {query}", code="DET0303", inputs=((0, f"{query}"),))
        width = int(query.shape[2])
        if width != pixels.channels:
            raise Mismatch(
                f"queries of width {width} and pixels of {pixels.channels} channels have no product",
                code="DET0302",
                inputs=((0, f"width {width}"), (1, f"{pixels.channels} channels")),
            )
        return pixels.with_channels(int(query.shape[1]))

    def torch(self, query: Type, pixels: Type) -> Function:  # type: ignore[override]
        """One product of matrices."""
        return Function(f"{PACKAGE}:query_masks")


class MaskedView(Op):
    """Where a query's mask lets it look on a map, for `MultiHeadAttention`: [B, Q, H W] bool.

    The mask is brought to the map's size bilinearly; a query whose mask is nowhere above one half looks everywhere.
    """

    module = "std.ops"
    inputs = (Port("masks", Map), Port("like", Map))

    def infer(self, masks: Map, like: Map) -> Tensor:
        """A map of Q channels of logits, and the map that is looked at."""
        return tensor(BATCH, masks.channels, like.height * like.width, dtype="bool")

    def torch(self, masks: Type, like: Type) -> Function:  # type: ignore[override]
        """`interpolate` and a comparison."""
        return Function(f"{PACKAGE}:masked_view")


class MaskCost(Op):
    """What it costs to match each row of mask logits with each truth: [B, N, G].

    `bce` times binary cross entropy plus `dice` times dice (smoothed by 1), both over the same points.
    """

    module = "std.ops"
    phase = "train"
    inputs = (Port("logits", Tensor), Port("target", Tensor))

    bce: float = Field(default=5.0, ge=0)
    dice: float = Field(default=5.0, ge=0)

    def infer(self, logits: Tensor, target: Tensor) -> Tensor:
        """Logits [B, N, P] and truth [B, G, P] at the same points to [B, N, G]."""
        for i, x in enumerate((logits, target)):
            if len(x.shape) != 3:
                raise Mismatch(
                    f"masks at points are [B, N, P], not {x}",
                    code="DET0303",
                    inputs=((i, f"{x}"),),
                    help="PointSample gives such masks",
                )
        if logits.shape[2] != target.shape[2]:
            raise Mismatch(
                f"masks at {logits.shape[2]} points against masks at {target.shape[2]}",
                code="DET0303",
                inputs=((0, f"{logits}"), (1, f"{target}")),
            )
        return tensor(BATCH, logits.shape[1], target.shape[1])

    def torch(self, logits: Type, target: Type) -> Function:  # type: ignore[override]
        """Products of matrices."""
        return Function(f"{PACKAGE}:mask_cost", {"bce": self.bce, "dice": self.dice})


class RowBCE(Op):
    """Binary cross entropy of masks: the mean over each one's pixels or points, then over the rows that count."""

    module = "std.losses"
    phase = "train"
    inputs = (Port("logits", Tensor), Port("target", Tensor), Port("weight", Tensor, optional=True))

    def infer(self, logits: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
        """Logits [B, N, ...], targets of the same shape and which rows count [B, N] to a scalar."""
        if len(logits.shape) < 3 or len(logits.shape) != len(target.shape):
            raise Mismatch(
                f"logits {logits} do not fit targets {target}",
                code="DET0303",
                inputs=((0, f"{logits}"), (1, f"{target}")),
            )
        same_rows(logits, target)
        if weight is not None:
            same_rows(logits, weight)
        return tensor()

    def torch(self, *inputs: Type) -> Function:
        """torch's binary cross entropy, averaged."""
        return Function(f"{PACKAGE}:row_bce")
