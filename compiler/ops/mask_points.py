"""Masks at points: where to look, and what is there (Kirillov et al., PointRend, CVPR 2020)."""

from __future__ import annotations

from pydantic import Field, PositiveInt

from detc.compiler.ops.base import Function, Op, Port
from detc.compiler.ops.losses_basic import same_rows
from detc.compiler.types import BATCH, Image, Map, Mismatch, Struct, Tensor, Type, tensor

PACKAGE = "detc.compiler.functional.mask_points"


def mask_shape(masks: Map | Tensor, index: int) -> Tensor:
    """The type of masks as a tensor [B, N, H, W]; a map has one mask a channel.

    Raises:
        Mismatch: if they have another rank.
    """
    if isinstance(masks, Map):
        return tensor(BATCH, masks.channels, masks.height, masks.width)
    if len(masks.shape) != 4:
        raise Mismatch(
            f"masks are [B, N, H, W], not {masks}",
            code="DET0303",
            inputs=((index, f"{masks} comes from here"),),
            help="the truth's masks are truth.masks" if masks.dtype == "bool" else None,
        )
    return masks


class RandomPoints(Op):
    """`count` points of each image, [B, count, 2] as (x, y) in fractions of the input, drawn uniformly."""

    module = "std.ops"
    phase = "train"
    inputs = (Port("image", Image),)

    count: PositiveInt = 12544

    def infer(self, image: Image) -> Tensor:
        """[B, count, 2]."""
        return tensor(BATCH, self.count, 2, kind="points")

    def torch(self, image: Type) -> Function:  # type: ignore[override]
        """torch's global generator."""
        return Function(f"{PACKAGE}:random_points", {"count": self.count})


class UncertainPoints(Op):
    """`count` points of each mask, most of them where its logits are near zero.

    Of `count * oversample` points drawn uniformly, the `importance` share of `count` of least certain ones stay;
    the rest are drawn anew (PointRend, section 3.1). No gradient goes through the choice.
    """

    module = "std.ops"
    phase = "train"
    inputs = (Port("masks", (Map, Tensor)),)

    count: PositiveInt = 12544
    oversample: float = Field(default=3.0, ge=1, le=100)
    importance: float = Field(default=0.75, ge=0, le=1)

    def infer(self, masks: Map | Tensor) -> Tensor:
        """Logits [B, N, H, W] to points [B, N, count, 2]."""
        return tensor(BATCH, mask_shape(masks, 0).shape[1], self.count, 2, kind="points")

    def torch(self, masks: Type) -> Function:  # type: ignore[override]
        """Top-k over samples."""
        return Function(
            f"{PACKAGE}:uncertain_points",
            {"count": self.count, "oversample": self.oversample, "importance": self.importance},
        )


class PointSample(Op):
    """Masks at points, between pixels bilinearly; outside of the mask there is zero.

    Points [B, P, 2] are the same for all masks of an image, [B, N, P, 2] each mask's own.
    """

    module = "std.ops"
    inputs = (Port("masks", (Map, Tensor)), Port("points", Tensor, kinds=("points",)))

    def infer(self, masks: Map | Tensor, points: Tensor) -> Tensor:
        """[B, N, P]."""
        shape = mask_shape(masks, 0)
        if len(points.shape) not in (3, 4) or str(points.shape[-1]) != "2":
            raise Mismatch(
                f"points are [B, P, 2] or [B, N, P, 2], not {points}",
                code="DET0303",
                inputs=((1, f"{points}"),),
            )
        if len(points.shape) == 4:
            same_rows(shape, points)
        return tensor(BATCH, shape.shape[1], points.shape[-2])

    def torch(self, masks: Type, points: Type) -> Function:  # type: ignore[override]
        """The native sampler."""
        return Function(f"{PACKAGE}:at_points")


class TakeMasks(Op):
    """The masks that a match gives to each truth: [B, N, H, W] to [B, G, H, W].

    The match says for each truth which row found it (`row`); a truth that none found gets the first one's.
    """

    module = "std.ops"
    phase = "train"
    inputs = (Port("masks", (Map, Tensor)), Port("match", Struct, kinds=("match",)))

    def infer(self, masks: Map | Tensor, match: Struct) -> Tensor:
        """G is the number of truths."""
        shape = mask_shape(masks, 0)
        row = match.get("row")
        if not isinstance(row, Tensor):
            raise Mismatch(
                "this match does not say which row found each truth",
                inputs=((1, f"{match}"),),
                help="a one-to-one match does: HungarianMatch",
            )
        return tensor(BATCH, row.shape[1], *shape.shape[2:])

    def torch(self, masks: Type, match: Type) -> Function:  # type: ignore[override]
        """`gather`."""
        return Function(f"{PACKAGE}:take_masks")
