"""From scores and boxes to detections."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, NonNegativeInt, PositiveInt

from detc.compiler.dims import Dim, dim
from detc.compiler.ops.base import Function, Op, Port
from detc.compiler.ops.boxes import boxes_of
from detc.compiler.types import BATCH, Mismatch, Pyramid, Struct, Tensor, Type, detections, tensor

Activation = Literal["sigmoid", "softmax", "none"]


class ClassNMS(Op):
    """Threshold, top-k, then non-maximum suppression within each class; a fixed number of detections.

    Scores are a tensor of probabilities [B, N, C + 1] whose last column is the background (of a softmax), or
    a pyramid of logits [B, A * C, H, W], one sigmoid a class, no background. `activation` and `background`
    say otherwise where that is not so.

    score: detections score above it. keep: capacity of the result.
    before: the best pairs of box and class that go into suppression, 0 for all.
    per_level: first only the best pairs of each level (pyramids), 0 for all.
    agnostic: boxes of different classes suppress each other too.
    min_size: boxes need sides of at least so many pixels. anchors: A, boxes of one position.
    best_class: a box counts for its best class only. rows: detections carry `index` [B, keep], their rows among
    the boxes, so that other predictions of the same rows can be taken with `Take`.
    """

    module = "std.post"
    inputs = (Port("boxes", (Tensor, Struct)), Port("scores", (Tensor, Pyramid)))

    iou: float = Field(default=0.5, ge=0, le=1)
    score: float = Field(default=0.05, ge=0, le=1)
    keep: PositiveInt = 100
    before: NonNegativeInt = 0
    per_level: NonNegativeInt = 0
    activation: Activation | None = None
    background: bool | None = None
    agnostic: bool = False
    min_size: float = Field(default=0.0, ge=0)
    anchors: PositiveInt = 1
    best_class: bool = False
    rows: bool = False

    def infer(self, boxes: Tensor | Struct, scores: Tensor | Pyramid) -> Struct:
        """Boxes [B, N, 4] (or [B, N, C, 4]) and scores to detections [B, keep]."""
        places = boxes_of(boxes)
        if self.best_class and self.per_level:
            raise Mismatch("`best_class` and `per_level` exclude each other", param="best_class")
        found = detections(self.keep, **self._index())
        if isinstance(scores, Pyramid):
            if self.per_level and (self.background or self.activation == "softmax"):
                param = "background" if self.background else "activation"
                raise Mismatch(
                    f"`{param}` looks at all classes of a box, and `per_level` keeps single pairs of box and class",
                    param=param,
                    help="leave `per_level` out, or take rows of scores: -> FlattenPoints()",
                )
            self._check_pyramid(places, scores)
            return found
        if self.per_level:
            raise Mismatch("`per_level` needs a pyramid of scores", param="per_level")
        if len(scores.shape) != 3:
            raise Mismatch(f"scores are [B, N, C], not {scores}", code="DET0303", inputs=((1, f"{scores}"),))
        apart = places.shape[1] - scores.shape[1]
        if apart.is_const and apart != Dim():
            self._unequal(places.shape[1], scores.shape[1])
        if len(places.shape) == 4:
            classes = scores.shape[-1] - int(self._background(scores))
            if classes != places.shape[2]:
                raise Mismatch(
                    f"boxes of {places.shape[2]} classes do not fit scores of {classes}",
                    code="DET0303",
                    inputs=((0, f"{places}"), (1, f"{scores}")),
                )
        return found

    def _index(self) -> dict[str, Tensor]:
        return {"index": tensor(BATCH, self.keep, dtype="int64")} if self.rows else {}

    def _check_pyramid(self, boxes: Tensor, scores: Pyramid) -> None:
        for m in scores.maps:
            if m.channels % self.anchors or m.channels != scores.maps[0].channels:
                raise Mismatch(
                    f"{m.channels} channels are not the scores of {self.anchors} anchors",
                    code="DET0302",
                    inputs=((1, f"{m.channels} channels"),),
                    param="anchors",
                )
        if len(boxes.shape) != 3:
            raise Mismatch("boxes for each class need scores as a tensor", inputs=((0, f"{boxes}"),))
        count = sum((m.height * m.width for m in scores.maps), Dim()) * self.anchors
        if boxes.shape[1] != count:
            self._unequal(boxes.shape[1], count)

    @staticmethod
    def _unequal(boxes: Dim, scores: Dim) -> None:
        raise Mismatch(
            f"{boxes} boxes but {scores} rows of scores",
            code="DET0303",
            inputs=((0, "the boxes"), (1, "the scores")),
        )

    def _background(self, scores: Type) -> bool:
        return isinstance(scores, Tensor) if self.background is None else self.background

    def torch(self, boxes: Type, scores: Type) -> Function:  # type: ignore[override]
        """The native batched NMS."""
        default = "sigmoid" if isinstance(scores, Pyramid) else "none"
        return Function(
            "detc.compiler.functional.post:class_nms",
            {
                "iou": self.iou,
                "score": self.score,
                "keep": self.keep,
                "before": self.before,
                "per_level": self.per_level,
                "background": self._background(scores),
                "activation": self.activation or default,
                "agnostic": self.agnostic,
                "min_size": self.min_size,
                "anchors": self.anchors,
                "best_class": self.best_class,
                "rows": self.rows,
            },
        )


class TopK(Op):
    """The `keep` best pairs of box and class without suppression, as in detectors that learn to be unique.

    With `background` the last column is no class. best_class: a box counts for its best class only.
    """

    module = "std.post"
    inputs = (Port("logits", Tensor), Port("boxes", Tensor, kinds=("boxes",)))

    keep: PositiveInt = 300
    score: float = Field(default=0.0, ge=0, le=1)
    activation: Activation = "sigmoid"
    background: bool = False
    best_class: bool = False

    def infer(self, logits: Tensor, boxes: Tensor) -> Struct:
        """Logits [B, N, C] and boxes [B, N, 4] to detections [B, keep]."""
        if len(logits.shape) != 3 or len(boxes.shape) != 3 or boxes.shape[-1] != dim(4):
            raise Mismatch(
                f"`TopK` needs logits [B, N, C] and boxes [B, N, 4], not {logits} and {boxes}",
                code="DET0303",
                inputs=((0, f"{logits}"), (1, f"{boxes}")),
            )
        return detections(self.keep)

    def torch(self, logits: Type, boxes: Type) -> Function:  # type: ignore[override]
        """`topk` over all pairs."""
        return Function(
            "detc.compiler.functional.post:top_k",
            {
                "keep": self.keep,
                "score": self.score,
                "activation": self.activation,
                **{name: True for name in ("background", "best_class") if getattr(self, name)},
            },
        )
