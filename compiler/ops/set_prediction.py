"""Detection as prediction of a set (Carion et al., DETR, 2020): matching, refinement, choice of queries.

Boxes of these ops are (center x, center y, width, height) in fractions of the image's content, unless they say
otherwise.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from pydantic import Field, PositiveInt

from detc.compiler.dims import DimLike, dim
from detc.compiler.ops.attention import rows, same_count
from detc.compiler.ops.base import Function, Op, Port
from detc.compiler.ops.tensor import points_in
from detc.compiler.types import BATCH, Image, Mismatch, Pyramid, Struct, Tensor, Type, struct, tensor

BOX = 4


def check_boxes(boxes: Tensor, index: int, numbers: tuple[int, ...] = (BOX,)) -> None:
    """Check that input number `index` holds rows of boxes in fractions, [B, N, 4].

    Raises:
        Mismatch: naming what it is.
    """
    if len(boxes.shape) != 3 or boxes.shape[-1] not in [dim(n) for n in numbers]:
        wanted = " or ".join(str(n) for n in numbers)
        raise Mismatch(
            f"boxes [B, N, {wanted}] are wanted, not {boxes}", code="DET0303", inputs=((index, f"{boxes}"),)
        )
    if boxes.kind == "boxes":
        raise Mismatch(
            "these boxes are in pixels; boxes in fractions of the image are wanted",
            inputs=((index, "in pixels"),),
            help="take them from before `ToPixels`",
        )


def set_targets(n: DimLike) -> Struct:
    """What each of `n` queries should predict, as `Hungarian` documents it."""
    labels = tensor(BATCH, n, dtype="int64", kind="labels")
    return struct(
        "targets",
        labels=labels,
        boxes=tensor(BATCH, n, BOX, kind="boxes"),
        codes=struct("deltas", values=tensor(BATCH, n, BOX), labels=labels),
        positive=tensor(BATCH, n),
    )


class Hungarian(Op):
    """One-to-one matching of queries and objects at the least total cost, batched on the device.

    A pair costs `cls` times the cost of the object's class, `l1` times the L1 distance of the boxes and `giou`
    times minus their generalised IoU. The class costs minus its probability with `softmax` (DETR; the last
    column is the background), else the change of the focal loss (Deformable DETR).

    Gives `labels` [B, N] (-1: no object), `boxes` [B, N, 4] (xyxy, pixels), `codes` (the same boxes as they are
    predicted, with the labels, which is what `L1` takes) and `positive` [B, N] (1 or 0).
    """

    module = "std.detr"
    phase = "train"
    inputs = (
        Port("logits", Tensor),
        Port("boxes", Tensor),
        Port("truth", Struct, kinds=("instances",)),
        Port("image", Image),
    )

    cls: float = Field(default=2.0, ge=0)
    l1: float = Field(default=5.0, ge=0)
    giou: float = Field(default=2.0, ge=0)
    softmax: bool = False
    alpha: float = Field(default=0.25, ge=0, le=1)
    gamma: float = Field(default=2.0, ge=0)
    ## Whether all objects are of one class, the first: proposals that know no classes.
    agnostic: bool = False

    def infer(self, logits: Tensor, boxes: Tensor, truth: Struct, image: Image) -> Struct:
        """Logits [B, N, C] and boxes [B, N, 4] to targets of N queries."""
        n, _ = rows("logits", logits, 0)
        check_boxes(boxes, 1)
        same_count("each query has one box", n, 0, boxes.shape[1], 1)
        if self.cls == self.l1 == self.giou == 0:
            raise Mismatch("a matching needs a cost: `cls`, `l1` and `giou` are all 0", param="cls")
        return set_targets(n)

    def torch(self, logits: Tensor, boxes: Tensor, truth: Struct, image: Image) -> Function:  # type: ignore[override]
        """The native assignment."""
        kwargs = {name: getattr(self, name) for name in type(self).model_fields}
        return Function("detc.compiler.functional.set_prediction:hungarian", kwargs)


class Refine(Op):
    """Boxes near a reference: sigmoid(delta + logit(reference)); the iterative refinement of Deformable DETR.

    The reference is a box or a point, which says nothing about width and height. `eps` keeps logits finite.
    """

    module = "std.detr"
    inputs = (Port("delta", Tensor), Port("reference", Tensor))

    eps: float = Field(default=1e-5, gt=0, lt=0.5)

    def infer(self, delta: Tensor, reference: Tensor) -> Tensor:
        """[B, N, 4] and [B, N, 2 or 4] to [B, N, 4]."""
        check_boxes(delta, 0)
        check_boxes(reference, 1, (2, BOX))
        same_count("each delta has one reference", delta.shape[1], 0, reference.shape[1], 1)
        return replace(delta, kind="fractions")

    def torch(self, delta: Tensor, reference: Tensor) -> Function:  # type: ignore[override]
        """A sum of logits."""
        return Function("detc.compiler.functional.set_prediction:refine", {"eps": self.eps})


class ToPixels(Op):
    """Boxes in fractions of the image's content as xyxy in pixels; `clip` ends them at its border."""

    module = "std.detr"
    inputs = (Port("boxes", Tensor), Port("image", Image))

    clip: bool = False

    def infer(self, boxes: Tensor, image: Image) -> Tensor:
        """[B, N, 4] boxes."""
        check_boxes(boxes, 0)
        return replace(boxes, kind="boxes")

    def torch(self, boxes: Tensor, image: Image) -> Function:  # type: ignore[override]
        """A product with the image's size."""
        return Function("detc.compiler.functional.set_prediction:to_pixels", {"clip": self.clip})


class GridProposals(Op):
    """A box around each position of a pyramid, `side` of the content wide and high on the finest level and
    twice that on each next one (Deformable DETR, appendix A.4).

    `valid` [B, S] is false for padding and for boxes at the very border, which are all 1.
    """

    module = "std.detr"
    inputs = (Port("levels", Pyramid), Port("grid", Struct, kinds=("grid",)))

    side: float = Field(default=0.05, gt=0, le=1)

    def infer(self, levels: Pyramid, grid: Struct) -> Struct:
        """S is the number of positions of all levels."""
        s = points_in(levels)
        return struct("places", boxes=tensor(BATCH, s, BOX), valid=tensor(BATCH, s, dtype="bool"))

    def torch(self, levels: Pyramid, grid: Struct) -> Function:  # type: ignore[override]
        """Concatenation."""
        return Function("detc.compiler.functional.set_prediction:grid_proposals", {"side": self.side})


class KeepRows(Op):
    """Rows [B, N, C], 0 where `valid` [B, N] is false."""

    module = "std.ops"
    inputs = (Port("rows", Tensor), Port("valid", Tensor))

    def infer(self, rows: Tensor, valid: Tensor) -> Tensor:
        """The shape stays."""
        if valid.dtype != "bool" or len(valid.shape) != 2 or len(rows.shape) != 3:
            raise Mismatch(
                f"rows [B, N, C] and a bool mask [B, N] are wanted, not {rows} and {valid}",
                inputs=((0, f"{rows}"), (1, f"{valid}")),
            )
        same_count("one truth value a row", rows.shape[1], 0, valid.shape[1], 1)
        return rows

    def torch(self, rows: Type, valid: Type) -> Function:  # type: ignore[override]
        """`masked_fill`."""
        return Function("detc.compiler.functional.set_prediction:keep_rows")


class BestRows(Op):
    """The indices [B, keep] of the rows [B, N, C] with the highest score, `by` their best or their first column."""

    module = "std.ops"
    inputs = (Port("scores", Tensor),)

    keep: PositiveInt
    by: Literal["max", "first"] = "max"

    def infer(self, scores: Tensor) -> Tensor:
        """int64, best first. With fewer rows than `keep` some come again."""
        rows("scores", scores, 0)
        return tensor(BATCH, self.keep, dtype="int64")

    def torch(self, scores: Tensor) -> Function:  # type: ignore[override]
        """`topk`."""
        return Function(
            "detc.compiler.functional.set_prediction:best_rows", {"keep": self.keep, "by": self.by}
        )


class Embedding(Op):
    """A learned row for each of `count` whole numbers."""

    module = "std.ops"
    weighted = True
    inputs = (Port("index", Tensor),)

    count: PositiveInt
    width: PositiveInt
    frozen: bool = False

    def infer(self, index: Tensor) -> Tensor:
        """[...] int64 to [..., width]."""
        if index.dtype != "int64":
            raise Mismatch(
                f"an embedding is for whole numbers, not {index.dtype} {index}", inputs=((0, f"{index}"),)
            )
        return Tensor((*index.shape, dim(self.width)))

    def torch(self, index: Tensor):  # type: ignore[no-untyped-def, override]
        """`nn.Embedding`."""
        from torch import nn

        return nn.Embedding(self.count, self.width).requires_grad_(not self.frozen)

    def parameter_shapes(self, *inputs: Type) -> dict[str, tuple[int, ...]] | None:
        """One row for each number."""
        return {"weight": (self.count, self.width)}


class ContrastiveDenoising(Op):
    """Noisy copies of the objects as further queries, in groups that do not see each other (Zhang et al., DINO,
    ICLR 2023, section 3.3).

    Each group holds every object twice: moved by less than half its size, which is to be repaired, and by more,
    which is to be no object. A share of `label_noise` / 2 of the labels is drawn anew. There are as many groups
    as fit into `count` pairs, at least one. The noisy queries come before the `queries` others.

    Gives `labels` [B, D], `boxes` [B, D, 4], `mask` [B, D + queries, D + queries] (true where a query may look
    at another: noisy ones at their group and the others, these at each other) and the `target` of the noisy
    queries, whose padding is ignored; its fields are those of `Hungarian`.
    """

    module = "std.detr"
    phase = "train"
    inputs = (Port("truth", Struct, kinds=("instances",)), Port("image", Image))

    classes: PositiveInt
    queries: PositiveInt
    count: PositiveInt = 100
    label_noise: float = Field(default=0.5, ge=0, le=1)
    box_noise: float = Field(default=1.0, ge=0)
    ## Boxes are kept so far from 0 and 1.
    eps: float = Field(default=1e-3, gt=0, lt=0.5)

    def infer(self, truth: Struct, image: Image) -> Struct:
        """D follows from the capacity of the padded truth."""
        d, total = dim("D"), dim("D") + self.queries
        return struct(
            "denoising",
            labels=tensor(BATCH, d, dtype="int64", kind="labels"),
            boxes=tensor(BATCH, d, BOX),
            mask=tensor(BATCH, total, total, dtype="bool"),
            target=set_targets(d),
        )

    def torch(self, truth: Struct, image: Image) -> Function:  # type: ignore[override]
        """Copies and noise from torch's global generator."""
        kwargs = {name: getattr(self, name) for name in type(self).model_fields}
        return Function("detc.compiler.functional.denoise:contrastive_denoising", kwargs)
