"""Points of a pyramid and the distance code of anchor-free detectors."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from detc.compiler.dims import Dim
from detc.compiler.ops.base import Function, Op, Port
from detc.compiler.ops.tensor import points_in
from detc.compiler.types import BATCH, Image, Mismatch, Pyramid, Struct, Tensor, Type, struct, tensor

LTRB = 4


class PointGrid(Op):
    """One point for each position of a pyramid: `xy` [N, 2] in pixels, and its level's `stride` [N].

    `offset` says where in its cell a point lies: 0 is the corner (RTMDet, torchvision), 0.5 the centre
    (FCOS). `measured` takes the distance of two points from the image's size divided by the map's, rounded
    down, as torchvision does; it needs the image as second input.
    """

    module = "std.dense"
    inputs = (Port("levels", Pyramid), Port("image", Image, optional=True))

    offset: float = Field(default=0.5, ge=0, le=1)
    measured: bool = False

    def infer(self, levels: Pyramid, image: Image | None = None) -> Struct:
        """N is the number of positions of all levels."""
        if self.measured and image is None:
            raise Mismatch("PointGrid(measured = true) needs the image as its second input", param="measured")
        n = points_in(levels)
        return struct("points", xy=tensor(n, 2), stride=tensor(n))

    def torch(self, levels: Pyramid, image: Image | None = None) -> Function:  # type: ignore[override]
        """Ranges, stacked."""
        kwargs = {"strides": [float(m.stride) for m in levels.maps], "offset": self.offset}
        if self.measured:
            kwargs["measured"] = True
        return Function("detc.compiler.functional.points:point_grid", kwargs)


class DistanceDecode(Op):
    """Boxes from points and their distances to the four sides (Tian et al., FCOS, 2019).

    Distances are in pixels, or in strides of the point's level with `by_stride`. `clip` limits boxes to the
    content of the image, the third input.
    """

    module = "std.dense"
    inputs = (
        Port("points", Struct, kinds=("points",)),
        Port("ltrb", (Tensor, Pyramid)),
        Port("image", Image, optional=True),
    )

    by_stride: bool = False
    clip: bool = False

    def infer(self, points: Struct, ltrb: Tensor | Pyramid, image: Image | None = None) -> Tensor:
        """[B, N, 4] boxes."""
        if self.clip and image is None:
            raise Mismatch("DistanceDecode(clip = true) needs the image as its third input", param="clip")
        n = point_count(points)
        check_predictions("distances", ltrb, LTRB, n, 1)
        return tensor(BATCH, n, LTRB, kind="boxes")

    def torch(  # type: ignore[override]
        self, points: Struct, ltrb: Tensor | Pyramid, image: Image | None = None
    ) -> Function:
        """Additions and one concatenation."""
        kwargs = {name: True for name in ("by_stride", "clip") if getattr(self, name)}
        return Function("detc.compiler.functional.points:distance_decode", kwargs)


class CenterDecode(Op):
    """Boxes from their centres and sizes: the code of the YOLO line (Redmon & Farhadi, 2018; Ge et al., 2021).

    `shift` is the way from a point to the centre, in strides of its level. `size` is width and height: in
    strides, in pixels, or as fractions of the image's content (the fourth input). `clip` limits boxes to it.
    """

    module = "std.dense"
    inputs = (
        Port("points", Struct, kinds=("points",)),
        Port("shift", (Tensor, Pyramid)),
        Port("size", (Tensor, Pyramid)),
        Port("image", Image, optional=True),
    )

    unit: Literal["stride", "pixel", "image"] = "stride"
    clip: bool = False

    def infer(
        self,
        points: Struct,
        shift: Tensor | Pyramid,
        size: Tensor | Pyramid,
        image: Image | None = None,
    ) -> Tensor:
        """[B, N, 4] boxes."""
        if image is None and (self.clip or self.unit == "image"):
            what = "clip = true" if self.clip else 'unit = "image"'
            raise Mismatch(
                f"CenterDecode({what}) needs the image as its fourth input",
                param="clip" if self.clip else "unit",
            )
        n = point_count(points)
        check_predictions("shifts", shift, 2, n, 1)
        check_predictions("sizes", size, 2, n, 2)
        return tensor(BATCH, n, LTRB, kind="boxes")

    def torch(  # type: ignore[override]
        self, points: Struct, shift: Type, size: Type, image: Image | None = None
    ) -> Function:
        """Additions and one concatenation."""
        return Function(
            "detc.compiler.functional.points:center_decode", {"unit": self.unit, "clip": self.clip}
        )


def point_count(points: Struct) -> Dim:
    """N of a `points` struct."""
    xy = points.get("xy")
    assert isinstance(xy, Tensor)
    return xy.shape[0]


def check_predictions(what: str, value: Type, width: int | None, count: Dim | None, index: int) -> int:
    """Check that `value` holds one prediction of `width` numbers for each of `count` points.

    Args:
        what: what the numbers are, for the message.
        value: a tensor [B, N, width], or a pyramid with `width` channels.
        width: numbers for each point; None takes them as they come.
        count: N, or None where it is not known.
        index: which input `value` is.

    Returns:
        The width found.

    Raises:
        Mismatch: naming both numbers.
    """
    if isinstance(value, Pyramid):
        found = value.maps[0].channels
        n = points_in(value)
        for m in value.maps:
            if m.channels != found:
                raise Mismatch(
                    f"levels of {found} and {m.channels} {what}",
                    code="DET0302",
                    inputs=((index, f"{value} comes from here"),),
                )
    elif isinstance(value, Tensor) and len(value.shape) == 3 and value.shape[-1].is_const:
        found, n = int(value.shape[-1]), value.shape[1]
    else:
        raise Mismatch(
            f"{what} must be [B, N, {width or 'C'}] or a pyramid, not {value}",
            code="DET0303",
            inputs=((index, f"{value} comes from here"),),
        )
    if width is not None and found != width:
        raise Mismatch(
            f"{width} {what} for each point expected, {found} found",
            code="DET0302",
            inputs=((index, f"{found} come from here"),),
        )
    if count is not None:
        apart = n - count
        if apart.is_const and int(apart):
            raise Mismatch(
                f"{what} for {n} points, but there are {count} points",
                code="DET0304",
                inputs=((index, f"{n} points"), (0, f"{count} points")),
            )
    return found
