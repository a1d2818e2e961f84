"""Where tokens lie: the grid of a padded pyramid, sine codes of positions and boxes, learned codes of levels."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from pydantic import Field, PositiveInt

from detc.compiler.dims import dim
from detc.compiler.ops.base import Function, Op, Port
from detc.compiler.ops.tensor import points_in
from detc.compiler.types import BATCH, Image, Map, Mismatch, Pyramid, Struct, Tensor, Type, struct, tensor

if TYPE_CHECKING:
    from torch import nn


class LevelGrid(Op):
    """Where the positions of a pyramid lie on the content of each image, and which of them are padding.

    `valid` [B, S] is true on the content, `ratio` [B, L, 2] says what share of each level's width and height
    it takes, and `points` [B, S, 2] are the cells' centres (x, y) in fractions of the content. Positions are
    listed by level, row and column, as `FlattenPoints` does. `padded = false` takes the whole map as content.
    """

    module = "std.ops"
    inputs = (Port("levels", Pyramid), Port("image", Image))

    padded: bool = True

    def infer(self, levels: Pyramid, image: Image) -> Struct:
        """S is the number of positions of all levels, L the number of levels."""
        s = points_in(levels)
        return struct(
            "grid",
            valid=tensor(BATCH, s, dtype="bool"),
            ratio=tensor(BATCH, len(levels.maps), 2),
            points=tensor(BATCH, s, 2),
        )

    def torch(self, levels: Pyramid, image: Image) -> Function:  # type: ignore[override]
        """Ranges and comparisons."""
        return Function("detc.compiler.functional.position:level_grid", {"padded": self.padded})


class SinePosition(Op):
    """Sine code of each position, [B, S, width], y before x (Carion et al., DETR, 2020, appendix A.4).

    Positions count from 1 within each level's content, `offset` moved (-0.5 is the cell's centre), and are
    scaled to 2 pi. `width` is the levels' channels by default.
    """

    module = "std.ops"
    inputs = (Port("levels", Pyramid), Port("grid", Struct, kinds=("grid",)))

    width: PositiveInt | None = None
    temperature: float = Field(default=10000.0, gt=0)
    offset: float = 0.0

    def _width(self, levels: Pyramid) -> int:
        width = self.width or levels.maps[0].channels
        if width % 4:
            raise Mismatch(
                f"a sine code of {width} numbers cannot be shared by sine and cosine of x and y",
                code="DET0302",
                inputs=((0, f"{width} channels come from here"),),
                param="width",
            )
        return width

    def infer(self, levels: Pyramid, grid: Struct) -> Tensor:
        """[B, S, width]."""
        return tensor(BATCH, points_in(levels), self._width(levels))

    def torch(self, levels: Pyramid, grid: Struct) -> Function:  # type: ignore[override]
        """Sines and cosines of rows and of columns, spread over the map."""
        return Function(
            "detc.compiler.functional.position:sine_position",
            {"width": self._width(levels), "temperature": self.temperature, "offset": self.offset},
        )


class BoxPosition(Op):
    """Sine code of points or boxes in fractions of the image: `width` numbers for each coordinate.

    `order` says which coordinate's code comes first: Deformable DETR's proposals have x, y, w, h, the anchors
    of DAB-DETR and DINO y, x, w, h.
    """

    module = "std.ops"
    inputs = (Port("boxes", Tensor),)

    width: PositiveInt = 128
    temperature: float = Field(default=10000.0, gt=0)
    order: Literal["xywh", "yxwh"] = "xywh"

    def infer(self, boxes: Tensor) -> Tensor:
        """[..., D] to [..., D width]; D is 2 or 4."""
        if not boxes.shape or boxes.shape[-1] not in (dim(2), dim(4)):
            raise Mismatch(
                f"these are no points or boxes: {boxes}", code="DET0303", inputs=((0, f"{boxes}"),)
            )
        if self.width % 2:
            raise Mismatch(f"{self.width} numbers cannot be shared by sine and cosine", param="width")
        return replace(boxes, shape=(*boxes.shape[:-1], boxes.shape[-1] * self.width), kind="tensor")

    def torch(self, boxes: Tensor) -> Function:  # type: ignore[override]
        """Sines and cosines."""
        return Function(
            "detc.compiler.functional.position:box_position",
            {"width": self.width, "temperature": self.temperature, "order": self.order},
        )


class LevelEmbedding(Op):
    """A learned row for each level, repeated at all of its positions: [S, C]."""

    module = "std.ops"
    weighted = True
    inputs = (Port("levels", Pyramid),)

    std: float = Field(default=1.0, gt=0)
    frozen: bool = False

    def infer(self, levels: Pyramid) -> Tensor:
        """C is the levels' channels."""
        channels = {m.channels for m in levels.maps}
        if len(channels) > 1:
            raise Mismatch(
                f"levels of {' and '.join(map(str, sorted(channels)))} channels",
                code="DET0302",
                inputs=((0, f"{levels}"),),
            )
        return tensor(points_in(levels), channels.pop())

    def torch(self, levels: Pyramid) -> nn.Module:  # type: ignore[override]
        """A module whose `value` is [L, C]."""
        from detc.compiler.functional.position import LevelEmbedding as Embedding

        made = Embedding(len(levels.maps), levels.maps[0].channels, self.std)
        return made.requires_grad_(not self.frozen)

    def parameter_shapes(self, *inputs: Type) -> dict[str, tuple[int, ...]] | None:
        """A row for each level."""
        levels = inputs[0]
        assert isinstance(levels, Pyramid)
        return {"value": (len(levels.maps), levels.maps[0].channels)}


class ForEachImage(Op):
    """The same tensor for each image of the batch: [...] to [B, ...]; for free parameters."""

    module = "std.ops"
    inputs = (Port("x", Tensor), Port("image", Image))

    def infer(self, x: Tensor, image: Type) -> Tensor:
        """[B, ...]."""
        return replace(x, shape=(BATCH, *x.shape))

    def torch(self, x: Tensor, image: Type) -> Function:  # type: ignore[override]
        """`expand`."""
        return Function("detc.compiler.functional.position:for_each_image")


class FromRows(Op):
    """Rows [B, S, C] as the maps that they were flattened from: the inverse of `FlattenPoints`."""

    module = "std.ops"
    inputs = (Port("rows", Tensor), Port("levels", Pyramid))

    def infer(self, rows: Tensor, levels: Pyramid) -> Pyramid | Map:
        """Maps of the levels' sizes and strides."""
        s = points_in(levels)
        if len(rows.shape) != 3 or not rows.shape[-1].is_const:
            raise Mismatch(f"these are no rows [B, S, C]: {rows}", code="DET0303", inputs=((0, f"{rows}"),))
        apart = rows.shape[1] - s
        if apart.is_const and int(apart):
            raise Mismatch(
                f"{rows.shape[1]} rows do not fill levels of {s} positions",
                code="DET0303",
                inputs=((0, f"{rows.shape[1]} rows"), (1, f"{s} positions")),
            )
        return Pyramid(tuple(m.with_channels(int(rows.shape[-1])) for m in levels.maps))

    def torch(self, rows: Tensor, levels: Pyramid) -> Function:  # type: ignore[override]
        """Split and reshape."""
        return Function("detc.compiler.functional.position:from_rows")
