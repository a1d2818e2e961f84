"""Losses between a student's and a teacher's feature maps."""

from __future__ import annotations

from pydantic import Field

from detc.compiler.ops._match import joined
from detc.compiler.ops.base import Function, Op, Port
from detc.compiler.types import Map, Mismatch, Pyramid, Tensor, tensor

ADAPTER = "a 1x1 convolution node between the two brings one side to the other's width"


class ChannelKD(Op):
    """Channel-wise distillation (Shu et al., 2021): `(student, teacher)`, maps or pyramids of one shape.

    Each channel is a distribution over positions, softened by `tau`; the loss is the teacher's relative
    entropy, averaged over images and channels, times tau squared, summed over levels. The teacher gets no
    gradient.
    """

    module = "std.losses"
    phase = "train"
    inputs = (Port("student", (Map, Pyramid)), Port("teacher", (Map, Pyramid)))

    tau: float = Field(default=1.0, gt=0)

    def infer(self, student: Map | Pyramid, teacher: Map | Pyramid) -> Tensor:
        """A scalar."""
        try:
            joined("distil", student, teacher)
        except Mismatch as e:
            raise Mismatch(
                e.message, code=e.code, inputs=e.inputs, param=e.param, help=e.help or ADAPTER
            ) from e
        return tensor()

    def torch(self, student: Map | Pyramid, teacher: Map | Pyramid) -> Function:  # type: ignore[override]
        """Softmax over positions, level by level."""
        return Function("detc.compiler.functional.losses_distill:channel_kd", {"tau": self.tau})
