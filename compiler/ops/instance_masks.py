"""Masks over the whole image, drawn by weights that each object predicts (CondInst, Tian et al., ECCV 2020)."""

from __future__ import annotations

from pydantic import Field, NonNegativeInt, PositiveInt

from detc.compiler.dims import Dim
from detc.compiler.ops.base import Function, Op, Port
from detc.compiler.ops.losses_basic import same_rows
from detc.compiler.types import BATCH, Map, Mismatch, Struct, Tensor, Type, struct, tensor

PACKAGE = "detc.compiler.functional.instance_masks"


class BestSample(Op):
    """The `n` rows of largest weight, as a sample for `Take`; rows of weight 0 are not valid."""

    module = "std.ops"
    phase = "train"
    inputs = (Port("weight", Tensor),)

    n: PositiveInt

    def infer(self, weight: Tensor) -> Struct:
        """Weights [B, N] to a sample of n rows."""
        if len(weight.shape) != 2:
            raise Mismatch(
                f"weights of rows are [B, N], not {weight}", code="DET0303", inputs=((0, f"{weight}"),)
            )
        flags = tensor(BATCH, self.n, dtype="bool")
        return struct("sample", index=tensor(BATCH, self.n, dtype="int64"), positive=flags, valid=flags)

    def torch(self, weight: Type) -> Function:  # type: ignore[override]
        """Top-k."""
        return Function(f"{PACKAGE}:best_sample", {"n": self.n})


class RepeatRegions(Op):
    """The map of each image once for each of its regions, images and regions together in the batch.

    Regions are counted from the second input, [B, K, ...]. `UnfoldRegions` takes the batch apart again.
    """

    module = "std.ops"
    inputs = (Port("x", Map), Port("like", Tensor))

    def infer(self, x: Map, like: Tensor) -> Map:
        """[B, C, H, W] to [B K, C, H, W]."""
        _regions(like, 1)
        return x

    def torch(self, x: Map, like: Type) -> Function:  # type: ignore[override]
        """`repeat_interleave`."""
        return Function(f"{PACKAGE}:repeat_regions")


class RelativeGrid(Op):
    """The way from each pixel of a map to the point of each region: two channels, x and y.

    It is counted in multiples of `size` strides of the region's own level, and `offset` says where in its cell
    a pixel of the map lies. Points [B, K, 2] are in pixels of the input, strides [B, K].
    """

    module = "std.ops"
    inputs = (Port("x", Map), Port("xy", Tensor), Port("stride", Tensor))

    size: float = Field(default=8.0, gt=0)
    offset: float = Field(default=0.0, ge=0, le=1)

    def infer(self, x: Map, xy: Tensor, stride: Tensor) -> Map:
        """A map [B, C, H, W] and K points an image to maps [B K, 2, H, W]."""
        if len(xy.shape) != 3 or str(xy.shape[-1]) != "2":
            raise Mismatch(
                f"points of regions are [B, K, 2], not {xy}", code="DET0303", inputs=((1, f"{xy}"),)
            )
        if len(stride.shape) != 2:
            raise Mismatch(
                f"strides of regions are [B, K], not {stride}", code="DET0303", inputs=((2, f"{stride}"),)
            )
        same_rows(xy, stride)
        return x.with_channels(2)

    def torch(self, x: Map, xy: Type, stride: Type) -> Function:  # type: ignore[override]
        """Ranges and differences."""
        kwargs = {"step": float(x.stride), "size": self.size, "offset": self.offset}
        return Function(f"{PACKAGE}:relative_grid", kwargs)


class SampledMasks(Op):
    """The truth's mask of each row, at every `stride`-th pixel, beginning with the middle of the first cell."""

    module = "std.ops"
    phase = "train"
    inputs = (Port("index", Tensor), Port("masks", Tensor))

    stride: PositiveInt = 4

    def infer(self, index: Tensor, masks: Tensor) -> Tensor:
        """The index of each row's truth [B, K] and masks [B, G, H, W] to [B, K, H / stride, W / stride]."""
        if index.dtype != "int64" or len(index.shape) != 2 or index.kind == "labels":
            raise Mismatch(
                f"the truth of each row is an index [B, K], not {index}",
                code="DET0303",
                inputs=((0, f"{index}"),),
                help="`index` of an assigner's target",
            )
        if len(masks.shape) != 4 or masks.dtype != "bool":
            raise Mismatch(
                f"the truth's masks are [B, G, H, W], not {masks}",
                code="DET0303",
                inputs=((1, f"{masks}"),),
                help="write truth.masks",
            )
        height, width = ((d + (self.stride - self.stride // 2 - 1)) // self.stride for d in masks.shape[2:])
        return tensor(BATCH, index.shape[1], height, width)

    def torch(self, *inputs: Type) -> Function:
        """A strided slice and a gather."""
        return Function(f"{PACKAGE}:sampled_masks", {"stride": self.stride})


class Dice(Op):
    """1 - 2 |p t| / (|p| + |t|) of each mask (Milletari et al., V-Net, 2016); p is the sigmoid of the logits.

    The mean over the rows that count (the third input, [B, K] bool or weights; all by default). `squared` puts
    squares into the denominator, as V-Net and CondInst have it. `smooth` is added to both sides of the fraction,
    `eps` to each sum of the denominator.
    """

    module = "std.losses"
    inputs = (Port("logits", Tensor), Port("target", Tensor), Port("weight", Tensor, optional=True))

    squared: bool = True
    smooth: float = Field(default=0.0, ge=0)
    eps: float = Field(default=5e-6, ge=0)

    def infer(self, logits: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
        """Masks [B, K, ...] against masks of the same shape to a scalar."""
        same = len(logits.shape) == len(target.shape) >= 3
        for a, b in zip(logits.shape, target.shape, strict=False):
            apart: Dim = a - b
            same = same and not (apart.is_const and int(apart))
        if not same:
            raise Mismatch(
                f"masks {logits} against targets {target}",
                code="DET0303",
                inputs=((0, f"{logits} comes from here"), (1, f"{target} comes from here")),
            )
        if weight is not None:
            same_rows(logits, weight)
        return tensor()

    def torch(self, *inputs: Type) -> Function:
        """Sums over the pixels of each mask."""
        return Function(f"{PACKAGE}:dice", {"squared": self.squared, "smooth": self.smooth, "eps": self.eps})


class Member(Op):
    """One element of a tensor's dimension: [B, K, C, h, w] at `index` of `dim` 2 to [B, K, h, w]."""

    module = "std.ops"
    inputs = (Port("x", Tensor),)

    index: NonNegativeInt = 0
    dim: int = -1

    def infer(self, x: Tensor) -> Tensor:
        """The dimension goes."""
        if not -len(x.shape) <= self.dim < len(x.shape):
            raise Mismatch(f"there is no dimension {self.dim} in {x}", code="DET0303", param="dim")
        axis = self.dim % len(x.shape)
        size = x.shape[axis]
        if size.is_const and self.index >= int(size):
            raise Mismatch(
                f"there is no element {self.index} among {size}",
                code="DET0303",
                inputs=((0, f"{x}"),),
                param="index",
            )
        return tensor(*x.shape[:axis], *x.shape[axis + 1 :], dtype=x.dtype)

    def torch(self, x: Type) -> Function:  # type: ignore[override]
        """`select`."""
        return Function("torch:select", {"dim": self.dim, "index": self.index})


def _regions(like: Tensor, index: int) -> None:
    if len(like.shape) < 2:
        raise Mismatch(f"{like} has no regions to count", code="DET0303", inputs=((index, f"{like}"),))
