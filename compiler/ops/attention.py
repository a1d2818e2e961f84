"""Attention between rows of tokens, and dropout."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from pydantic import Field, PositiveInt

from detc.compiler.dims import Dim, dim
from detc.compiler.ops.base import Op, Port
from detc.compiler.ops.tensor import points_in
from detc.compiler.types import Map, Mismatch, Pyramid, Struct, Tensor, Type

if TYPE_CHECKING:
    from torch import nn


def rows(name: str, x: Tensor, index: int) -> tuple[Dim, int]:
    """Number and width of the rows of `x` [B, N, C], which is input number `index`.

    Raises:
        Mismatch: if it has another rank, or a width that is not known.
    """
    if len(x.shape) != 3 or not x.shape[-1].is_const:
        raise Mismatch(
            f"{name} must be rows [B, N, C], not {x}",
            code="DET0303",
            inputs=((index, f"{x} comes from here"),),
        )
    return x.shape[1], int(x.shape[-1])


def same_count(what: str, a: Dim, i: int, b: Dim, k: int) -> None:
    """Check that inputs number `i` and `k` have as many rows, as far as that is known.

    Raises:
        Mismatch: naming both counts.
    """
    if a.differs(b):
        raise Mismatch(
            f"{what}: {a} and {b} rows", code="DET0303", inputs=((i, f"{a} rows"), (k, f"{b} rows"))
        )


class MultiHeadAttention(Op):
    """Scaled dot-product attention in several heads (Vaswani et al., 2017); the width is the query's.

    `valid` [B, K] and `mask` ([N, K], [B, N, K] or [B, heads, N, K]) are true where a query may look at a
    key; a query that may look at none looks at all alike. `dropout` drops attention weights in training.
    """

    module = "std.ops"
    weighted = True
    inputs = (
        Port("query", Tensor),
        Port("key", Tensor),
        Port("value", Tensor),
        Port("valid", Tensor, optional=True),
        Port("mask", Tensor, optional=True),
    )

    heads: PositiveInt = 8
    dropout: float = Field(default=0.0, ge=0, lt=1)
    frozen: bool = False

    def infer(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        valid: Tensor | None = None,
        mask: Tensor | None = None,
    ) -> Tensor:
        """Queries [B, N, C], keys [B, K, D] and values [B, K, E] to [B, N, C]."""
        n, width = rows("the query", query, 0)
        k, _ = rows("the key", key, 1)
        other, _ = rows("the value", value, 2)
        same_count("each key has one value", k, 1, other, 2)
        if width % self.heads:
            raise Mismatch(
                f"{self.heads} heads do not divide a width of {width}",
                code="DET0302",
                inputs=((0, f"{width} channels come from here"),),
                param="heads",
            )
        for index, name, m, rank in ((3, "valid", valid, (2,)), (4, "mask", mask, (2, 3, 4))):
            if m is None:
                continue
            if m.dtype != "bool" or len(m.shape) not in rank:
                wanted = "bool [B, K]" if name == "valid" else "bool [N, K], [B, N, K] or [B, heads, N, K]"
                raise Mismatch(f"`{name}` must be {wanted}, not {m.dtype} {m}", inputs=((index, f"{m}"),))
            same_count(f"`{name}` needs one column for each key", k, 1, m.shape[-1], index)
            if name == "mask":
                same_count("`mask` needs one row for each query", n, 0, m.shape[-2], index)
        return replace(query, kind="tensor")

    def torch(  # type: ignore[override]
        self, query: Tensor, key: Tensor, value: Tensor, *masks: Type
    ) -> nn.Module:
        """Four linear layers: `q`, `k`, `v`, `out`."""
        from detc.compiler.functional.attention import MultiHeadAttention as Attention

        q, k, v = (int(x.shape[-1]) for x in (query, key, value))
        return Attention(q, k, v, self.heads, self.dropout).requires_grad_(not self.frozen)

    def parameter_shapes(self, *inputs: Type) -> dict[str, tuple[int, ...]] | None:
        """Of the four layers."""
        query, key, value = (int(x.shape[-1]) for x in inputs[:3] if isinstance(x, Tensor))
        return linear_shapes(
            {"q": (query, query), "k": (query, key), "v": (query, value), "out": (query, query)}
        )


def linear_shapes(layers: dict[str, tuple[int, int]]) -> dict[str, tuple[int, ...]]:
    """The parameters of linear layers, given the (output, input) channels of each."""
    return {
        f"{name}.{part}": shape
        for name, (out, in_) in layers.items()
        for part, shape in (("weight", (out, in_)), ("bias", (out,)))
    }


class DeformableAttention(Op):
    """Multi-scale deformable attention (Zhu et al., Deformable DETR, 2021, equation 3).

    Each query looks at `points` places of each level, around its `reference`: a point (x, y) or a box
    (center x, center y, width, height), in fractions of the image's content. `value` holds the rows of all
    `levels`, of which only the sizes are read; `grid` is their `LevelGrid`.
    """

    module = "std.ops"
    weighted = True
    inputs = (
        Port("query", Tensor),
        Port("reference", Tensor),
        Port("value", Tensor),
        Port("levels", Pyramid),
        Port("grid", Struct, kinds=("grid",)),
    )

    heads: PositiveInt = 8
    points: PositiveInt = 4
    frozen: bool = False

    def infer(self, query: Tensor, reference: Tensor, value: Tensor, levels: Pyramid, grid: Struct) -> Tensor:
        """Queries [B, N, C], references [B, N, 2 or 4] and values [B, S, D] to [B, N, C]."""
        n, width = rows("the query", query, 0)
        count, numbers = rows("the reference", reference, 1)
        s, _ = rows("the value", value, 2)
        same_count("each query has one reference", n, 0, count, 1)
        if numbers not in (2, 4):
            raise Mismatch(
                f"a reference is a point (2 numbers) or a box (4), not {numbers} numbers",
                code="DET0303",
                inputs=((1, f"{reference}"),),
            )
        if width % self.heads:
            raise Mismatch(
                f"{self.heads} heads do not divide a width of {width}",
                code="DET0302",
                inputs=((0, f"{width} channels come from here"),),
                param="heads",
            )
        same_count("the value has one row for each position of the levels", s, 2, points_in(levels), 3)
        ratio = grid.get("ratio")
        assert isinstance(ratio, Tensor)
        if ratio.shape[1] != dim(len(levels.maps)):
            raise Mismatch(
                f"the grid is of {ratio.shape[1]} levels, and there are {len(levels.maps)}",
                inputs=((4, "the grid"), (3, "the levels")),
            )
        return replace(query, kind="tensor")

    def torch(  # type: ignore[override]
        self, query: Tensor, reference: Tensor, value: Tensor, levels: Pyramid, grid: Struct
    ) -> nn.Module:
        """Four linear layers around the native op."""
        from detc.compiler.functional.attention import DeformableAttention as Attention

        q, v = int(query.shape[-1]), int(value.shape[-1])
        made = Attention(q, v, self.heads, len(levels.maps), self.points)
        return made.requires_grad_(not self.frozen)

    def parameter_shapes(self, *inputs: Type) -> dict[str, tuple[int, ...]] | None:
        """Of the four layers."""
        query, _, value, levels, _ = inputs
        assert isinstance(query, Tensor) and isinstance(value, Tensor) and isinstance(levels, Pyramid)
        width, places = int(query.shape[-1]), self.heads * len(levels.maps) * self.points
        return linear_shapes(
            {
                "offsets": (2 * places, width),
                "weights": (places, width),
                "value": (width, int(value.shape[-1])),
                "out": (width, width),
            }
        )


class Dropout(Op):
    """Zeroes elements at random in training and scales the others up (Srivastava et al., 2014).

    A node, so that a frozen part of a model drops nothing; it may be applied many times.
    """

    module = "std.ops"
    weighted = True
    random = True
    inputs = (Port("x", (Map, Tensor)),)

    p: float = Field(default=0.1, ge=0, lt=1)

    def infer(self, x: Map | Tensor) -> Map | Tensor:
        """The same wire."""
        return x

    def torch(self, x: Map | Tensor) -> nn.Module:  # type: ignore[override]
        """`nn.Dropout`."""
        from torch import nn

        return nn.Dropout(self.p)

    def parameter_shapes(self, *inputs: Type) -> dict[str, tuple[int, ...]] | None:
        """None are learned."""
        return {}
