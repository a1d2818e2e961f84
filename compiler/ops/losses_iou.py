"""Overlap losses: sum(weight (1 - overlap)) / norm."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from detc.compiler.ops.base import Function, Op, Port
from detc.compiler.types import Mismatch, Tensor, Type, tensor


class _IoULoss(Op):
    """`(boxes, target, weight?, norm?)`: boxes and target [..., 4] in pixels, weight [...], norm a scalar.

    Pairs of weight 0 do not count. `norm` is the sum of the weights by default; it is taken as at least
    `least`, so that batches without objects give 0.
    """

    inputs = (
        Port("boxes", Tensor),
        Port("target", Tensor),
        Port("weight", Tensor, optional=True),
        Port("norm", Tensor, optional=True),
    )
    kind: ClassVar[str] = ""

    least: float = Field(default=1.0, gt=0)

    def infer(
        self, boxes: Tensor, target: Tensor, weight: Type | None = None, norm: Type | None = None
    ) -> Tensor:
        """A scalar."""
        check_pair("boxes", boxes, target)
        if not boxes.shape or str(boxes.shape[-1]) != "4":
            raise Mismatch(f"boxes have 4 numbers, not {boxes}", code="DET0303", inputs=((0, f"{boxes}"),))
        return tensor()

    def torch(  # type: ignore[override]
        self, boxes: Tensor, target: Tensor, weight: Type | None = None, norm: Type | None = None
    ) -> Function:
        """Aligned overlaps, weighted."""
        return Function(
            "detc.compiler.functional.losses_iou:iou_loss", {"kind": self.kind, **self._options()}
        )

    def _options(self) -> dict[str, object]:
        return {} if self.least == 1.0 else {"least": self.least}


def check_pair(what: str, a: Tensor, b: Tensor) -> None:
    """Check that two tensors have the same shape, as far as it is known.

    Raises:
        Mismatch: naming both shapes.
    """
    same = len(a.shape) == len(b.shape)
    for x, y in zip(a.shape, b.shape, strict=False):
        apart = x - y
        same = same and not (apart.is_const and int(apart))
    if not same:
        raise Mismatch(
            f"{what} {a} against a target {b}",
            inputs=((0, f"{a} comes from here"), (1, f"{b} comes from here")),
        )


class IoU(_IoULoss):
    """1 - IoU, or -log IoU with `mode = "log"` (Yu et al., UnitBox, 2016)."""

    module = "std.losses"
    kind = "iou"
    mode: Literal["linear", "log"] = "linear"

    def _options(self) -> dict[str, object]:
        return {**super()._options(), **({"log": True} if self.mode == "log" else {})}


class GIoU(_IoULoss):
    """1 - generalised IoU (Rezatofighi et al., 2019)."""

    module = "std.losses"
    kind = "giou"


class DIoU(_IoULoss):
    """1 - distance IoU (Zheng et al., 2020)."""

    module = "std.losses"
    kind = "diou"


class CIoU(_IoULoss):
    """1 - complete IoU (Zheng et al., 2020)."""

    module = "std.losses"
    kind = "ciou"
