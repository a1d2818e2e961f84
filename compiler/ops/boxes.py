"""The (dx, dy, dw, dh) code of R-CNN."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, PositiveFloat

from detc.compiler.dims import dim
from detc.compiler.ops.base import Function, Op, Port
from detc.compiler.types import BATCH, Image, Mismatch, Pyramid, Struct, Tensor, Type, struct, tensor

Std = Annotated[list[PositiveFloat], Field(min_length=4, max_length=4)]


def boxes_of(value: Tensor | Struct) -> Tensor:
    """The boxes' type of a tensor or of a struct that has some.

    Raises:
        Mismatch: if there are none.
    """
    found = value.get("boxes") if isinstance(value, Struct) else value
    if not isinstance(found, Tensor) or not found.shape or found.shape[-1] != dim(4):
        raise Mismatch(f"these are not boxes: {value}", code="DET0303", inputs=((0, f"{value}"),))
    return found


class DeltaEncode(Op):
    """The code that turns boxes into the truth matched to them (Girshick et al., 2014, appendix C).

    `std` divides dx, dy, dw, dh (torchvision's `weights` are its reciprocals). Matched truth gives targets:
    `labels`, `deltas` that know which rows count, and the `index` of each row's truth.
    """

    module = "std.ops"
    phase = "train"
    inputs = (Port("boxes", (Tensor, Struct)), Port("target", (Tensor, Struct)))

    std: Std = [1.0, 1.0, 1.0, 1.0]

    def infer(self, boxes: Tensor | Struct, target: Tensor | Struct) -> Type:
        """Boxes [B, N, 4] (or [N, 4]) and a target [B, N, 4] to [B, N, 4] or to targets."""
        boxes_of(boxes)
        values = tensor(*boxes_of(target).shape)
        if isinstance(target, Tensor):
            return values
        labels = target.get("labels")
        if labels is None:
            raise Mismatch(f"{target} has no labels", inputs=((1, "this wire"),))
        index = target.get("index")
        more = {} if index is None else {"index": index}
        return struct("targets", labels=labels, deltas=struct("deltas", values=values, labels=labels), **more)

    def torch(self, boxes: Type, target: Type) -> Function:  # type: ignore[override]
        """`encode_deltas`."""
        return Function("detc.compiler.functional.boxes:delta_encode", {"std": list(self.std)})


class DeltaDecode(Op):
    """Moves and scales boxes by deltas: the inverse of `DeltaEncode`, limited to growth by 1000 / 16.

    Proposals in give proposals out: without gradient, and without the slots that `MatchAndSample` had filled
    with the truth itself. With `clip` boxes end at the image's border.
    """

    module = "std.ops"
    inputs = (
        Port("boxes", (Tensor, Struct)),
        Port("deltas", (Tensor, Pyramid)),
        Port("image", Image),
    )

    std: Std = [1.0, 1.0, 1.0, 1.0]
    clip: bool = False

    def infer(self, boxes: Tensor | Struct, deltas: Tensor | Pyramid, image: Image) -> Type:
        """Deltas [B, N, 4], [B, N, C, 4] or maps [B, 4 A, H, W] to boxes of as many rows."""
        anchors = boxes_of(boxes)
        if isinstance(deltas, Pyramid):
            for m in deltas.maps:
                if m.channels % 4:
                    raise Mismatch(
                        f"deltas come in fours, not in {m.channels} channels",
                        code="DET0302",
                        inputs=((1, f"{m.channels} channels come from here"),),
                    )
            moved = tensor(BATCH, anchors.shape[-2], 4, kind="boxes")
        else:
            if deltas.shape[-1] != dim(4):
                raise Mismatch(
                    f"deltas need a last dimension of 4, not {deltas.shape[-1]}",
                    code="DET0303",
                    inputs=((1, f"{deltas}"),),
                )
            moved = tensor(*deltas.shape, kind="boxes")
        if isinstance(boxes, Tensor):
            return moved
        kept = {name: boxes.get(name) for name in ("scores", "valid")}
        if any(t is None for t in kept.values()):
            raise Mismatch(f"{boxes} has no scores or no valid mask", inputs=((0, "this wire"),))
        return struct("proposals", boxes=moved, **{n: t for n, t in kept.items() if t is not None})

    def torch(self, boxes: Type, deltas: Type, image: Image) -> Function:  # type: ignore[override]
        """`decode_deltas`."""
        kwargs = {"std": list(self.std), "clip": self.clip}
        return Function("detc.compiler.functional.boxes:delta_decode", kwargs)
