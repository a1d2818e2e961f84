"""Choosing some of many boxes, with a fixed capacity."""

from __future__ import annotations

from pydantic import Field, PositiveInt

from detc.compiler.dims import Dim
from detc.compiler.ops.base import Function, Op, Port
from detc.compiler.types import BATCH, Mismatch, Struct, Tensor, Type, struct, tensor


class RandomSample(Op):
    """At most `n` boxes drawn at random: up to `positive` of them matched, which come first, the rest background."""

    module = "std.ops"
    phase = "train"
    inputs = (Port("match", Struct, kinds=("match",)),)

    n: PositiveInt = 256
    positive: float = Field(default=0.5, gt=0, le=1)

    def infer(self, match: Struct) -> Struct:
        """A match [B, N] to a sample: `index` [B, n] into N, `positive` and `valid` [B, n]."""
        return struct(
            "sample",
            index=tensor(BATCH, self.n, dtype="int64"),
            positive=tensor(BATCH, self.n, dtype="bool"),
            valid=tensor(BATCH, self.n, dtype="bool"),
        )

    def torch(self, match: Type) -> Function:  # type: ignore[override]
        """Top-k over random keys."""
        return Function(
            "detc.compiler.functional.sample:random_sample", {"n": self.n, "positive": self.positive}
        )


class Take(Op):
    """The rows that a sample chose, or those at the indices [B, K], of a tensor or of each tensor of a struct."""

    module = "std.ops"
    inputs = (Port("rows", (Tensor, Struct)), Port("pick", (Struct, Tensor), kinds=("sample", "tensor")))

    def infer(self, rows: Tensor | Struct, pick: Struct | Tensor) -> Type:
        """[B, N, ...] (or [N, ...], the same for all images) to [B, K, ...]."""
        index = pick.get("index") if isinstance(pick, Struct) else pick
        assert isinstance(index, Tensor)
        if index.dtype != "int64" or len(index.shape) != 2:
            raise Mismatch(f"rows are taken by an index [B, K], not {index}", inputs=((1, "this wire"),))
        if isinstance(rows, Tensor):
            return self._taken(rows, index)
        if rows.get("valid") is None:
            raise Mismatch(f"{rows} has no valid mask", inputs=((0, "this wire"),))
        fields = []
        for name, field in rows.fields:
            if not isinstance(field, Tensor) or self._shared(field):
                raise Mismatch(f"cannot take rows of `{name}` of {rows}", inputs=((0, "this wire"),))
            fields.append((name, self._taken(field, index)))
        return Struct(rows.kind, tuple(fields))

    def torch(self, rows: Type, pick: Type) -> Function:  # type: ignore[override]
        """`gather`."""
        shared = isinstance(rows, Tensor) and self._shared(rows)
        return Function("detc.compiler.functional.sample:take", {"shared": shared})

    @staticmethod
    def _shared(rows: Tensor) -> bool:
        return not rows.shape or rows.shape[0] != BATCH

    def _taken(self, rows: Tensor, index: Tensor) -> Tensor:
        trailing = rows.shape[1 if self._shared(rows) else 2 :]
        return Tensor((*index.shape, *trailing), rows.dtype, rows.kind)


class First(Op):
    """The first `n` rows of a tensor, or of each tensor of a struct; all of them if there are fewer.

    A sample's matched boxes come first: what only they are needed for can leave the others out.
    """

    module = "std.ops"
    inputs = (Port("rows", (Tensor, Struct)),)

    n: PositiveInt

    def infer(self, rows: Tensor | Struct) -> Type:
        """[B, N, ...] to [B, n, ...]."""
        if isinstance(rows, Struct):
            return Struct(rows.kind, tuple((name, self.infer(t)) for name, t in rows.fields))  # type: ignore[arg-type]
        if not isinstance(rows, Tensor) or len(rows.shape) < 2:
            raise Mismatch(f"{rows} has no rows", code="DET0303", inputs=((0, f"{rows}"),))
        count = rows.shape[1]
        kept = count if count.is_const and int(count) < self.n else Dim(self.n)
        return Tensor((rows.shape[0], kept, *rows.shape[2:]), rows.dtype, rows.kind)

    def torch(self, rows: Type) -> Function:  # type: ignore[override]
        """Slices."""
        return Function("detc.compiler.functional.sample:first", {"n": self.n})


class WithTruth(Op):
    """Proposals with the truth's own boxes added, which `given` marks: a head then always sees positives."""

    module = "std.ops"
    phase = "train"
    inputs = (Port("boxes", Struct, kinds=("proposals",)), Port("truth", Struct, kinds=("instances",)))

    def infer(self, boxes: Struct, truth: Struct) -> Struct:
        """Proposals [B, K] and truth [B, G] to proposals [B, K + G]."""
        count = Dim()
        for part in (boxes, truth):
            valid = part.get("valid")
            if not isinstance(valid, Tensor):
                raise Mismatch(f"{part} has no valid mask", inputs=((0, "this wire"),))
            count = count + valid.shape[1]
        return struct(
            "proposals",
            boxes=tensor(BATCH, count, 4, kind="boxes"),
            scores=tensor(BATCH, count),
            valid=tensor(BATCH, count, dtype="bool"),
            given=tensor(BATCH, count, dtype="bool"),
        )

    def torch(self, boxes: Type, truth: Type) -> Function:  # type: ignore[override]
        """Concatenation."""
        return Function("detc.compiler.functional.sample:with_truth")
