"""Learning from a teacher's detections: pseudo labels, how sure their boxes are, the way to another view."""

from __future__ import annotations

from pydantic import Field, PositiveInt

from detc.compiler.dims import dim
from detc.compiler.ops.base import Function, Op, Port
from detc.compiler.ops.boxes import boxes_of
from detc.compiler.types import BATCH, Image, Mismatch, Pyramid, Struct, Tensor, Type, struct, tensor

PACKAGE = "detc.compiler.functional.semi"
FOUND = Port("found", Struct, kinds=("detections",))


def _rows(found: Struct, name: str) -> Tensor:
    field = found.get(name)
    if not isinstance(field, Tensor):
        raise Mismatch(f"{found} has no {name}", inputs=((0, "this wire"),))
    return field


class PseudoLabels(Op):
    """Detections as truth to learn from: those that score above `score`, and at most `below`.

    With a second input, the scatter [B, K] of their boxes, also those whose scatter is below `spread`.
    """

    module = "std.semi"
    phase = "train"
    inputs = (FOUND, Port("scatter", Tensor, optional=True))

    score: float = Field(default=0.9, ge=0, le=1)
    spread: float | None = Field(default=None, gt=0)
    below: float = Field(default=1.0, ge=0, le=1)

    def infer(self, found: Struct, scatter: Tensor | None = None) -> Struct:
        """Detections [B, K] to instances [B, K]."""
        if self.below <= self.score:
            raise Mismatch(f"no detection scores above {self.score} and at most {self.below}", param="below")
        if (scatter is None) != (self.spread is None):
            raise Mismatch("`spread` limits the scatter, the second input: give both or none", param="spread")
        boxes = _rows(found, "boxes")
        if scatter is not None and scatter.shape != boxes.shape[:2]:
            raise Mismatch(
                f"a scatter {scatter} does not fit detections {boxes}",
                code="DET0303",
                inputs=((1, f"{scatter}"), (0, f"{boxes}")),
            )
        return struct("instances", boxes=boxes, labels=_rows(found, "labels"), valid=_rows(found, "valid"))

    def torch(self, found: Type, scatter: Type | None = None) -> Function:  # type: ignore[override]
        """Comparisons; the capacity stays."""
        kwargs = {"score": self.score, "spread": self.spread, "below": self.below}
        return Function(f"{PACKAGE}:pseudo_labels", kwargs)


class JitterBoxes(Op):
    """Each detection `times` times, its corners moved at random by up to `amount` of its sides.

    Box jittering of SoftTeacher (Xu et al., ICCV 2021, section 3.3).
    """

    module = "std.semi"
    phase = "train"
    random = True
    inputs = (FOUND,)

    times: PositiveInt = 10
    amount: float = Field(default=0.06, gt=0, lt=0.5)

    def infer(self, found: Struct) -> Struct:
        """Detections [B, K] to proposals [B, K * times]."""
        count = _rows(found, "valid").shape[1] * self.times
        return struct(
            "proposals",
            boxes=tensor(BATCH, count, 4, kind="boxes"),
            scores=tensor(BATCH, count),
            valid=tensor(BATCH, count, dtype="bool"),
        )

    def torch(self, found: Type) -> Function:  # type: ignore[override]
        """Random numbers around the boxes."""
        return Function(f"{PACKAGE}:jitter_boxes", {"times": self.times, "amount": self.amount})


class Scatter(Op):
    """How far the boxes scatter that a detector gives when it is asked again from slightly moved boxes.

    The standard deviation of each coordinate over half of the sum of the sides, averaged over the four
    (Xu et al., 2021, equations 8 and 9). `again` holds as many boxes for each detection as `JitterBoxes` made.
    """

    module = "std.semi"
    phase = "train"
    inputs = (FOUND, Port("again", (Tensor, Struct)))

    def infer(self, found: Struct, again: Tensor | Struct) -> Tensor:
        """Detections [B, K] and boxes [B, K * T, 4] (or [B, K * T, C, 4]) to [B, K]."""
        rows, boxes = _rows(found, "valid"), boxes_of(again)
        count, wanted = boxes.shape[1], rows.shape[1]
        if count.is_const and wanted.is_const and (int(count) % int(wanted) or int(count) < 2 * int(wanted)):
            raise Mismatch(
                f"{count} boxes are not two or more for each of {wanted} detections",
                code="DET0303",
                inputs=((1, f"{boxes}"), (0, f"{rows}")),
            )
        return tensor(*rows.shape)

    def torch(self, found: Type, again: Type) -> Function:  # type: ignore[override]
        """A deviation over groups."""
        return Function(f"{PACKAGE}:scatter")


class AnyObject(Op):
    """1 if the images of a batch hold any object, else 0: where nothing was found there is nothing to learn.

    As the weight of a loss it leaves out batches without pseudo labels, which would teach that all is background.
    """

    module = "std.semi"
    phase = "train"
    inputs = (Port("truth", Struct, kinds=("instances", "detections", "proposals")),)

    def infer(self, truth: Struct) -> Tensor:
        """A scalar."""
        _rows(truth, "valid")
        return tensor()

    def torch(self, truth: Type) -> Function:  # type: ignore[override]
        """A reduction."""
        return Function(f"{PACKAGE}:any_object")


class ToView(Op):
    """Boxes of one view in another: corners go through the homography between them, bounds are clipped.

    What is left with a side below `min_size` pixels is no longer valid.
    """

    module = "std.semi"
    phase = "train"
    inputs = (
        Port("found", Struct, kinds=("instances", "detections", "proposals")),
        Port("here", Struct, kinds=("view",)),
        Port("there", Struct, kinds=("view",)),
    )

    min_size: float = Field(default=1.0, ge=0)

    def infer(self, found: Struct, here: Struct, there: Struct) -> Struct:
        """The same struct, without masks."""
        fields = tuple((n, t) for n, t in found.fields if n in ("boxes", "labels", "scores", "valid"))
        _rows(found, "valid")
        return Struct(found.kind, fields)

    def torch(self, found: Type, here: Type, there: Type) -> Function:  # type: ignore[override]
        """A product of matrices, corner by corner."""
        return Function(f"{PACKAGE}:to_view", {"min_size": self.min_size})


class Cover(Op):
    """An image with some boxes painted over in `fill`; pixels inside any box of the third input stay.

    What a teacher is not sure of is then neither an object nor background to its student.
    """

    module = "std.semi"
    phase = "train"
    inputs = (
        Port("seen", Image),
        Port("hidden", Struct, kinds=("instances", "detections", "proposals")),
        Port("shown", Struct, kinds=("instances", "detections", "proposals"), optional=True),
    )

    fill: float = Field(default=114.0, ge=0, le=255)

    def infer(self, seen: Image, hidden: Struct, shown: Struct | None = None) -> Image:
        """The image's type."""
        for boxes in (hidden, shown):
            if boxes is not None:
                _rows(boxes, "boxes")
                _rows(boxes, "valid")
        return seen

    def torch(self, seen: Type, hidden: Type, shown: Type | None = None) -> Function:  # type: ignore[override]
        """Comparisons of pixels' centres with sides of boxes."""
        return Function(f"{PACKAGE}:cover", {"fill": self.fill})


class AtPoints(Op):
    """What a dense detector says at the place of given boxes: the box of the point nearest to each centre.

    The level is the one whose points learn boxes of that size, with sides of about `size` strides (FCOS's
    ranges are between 8 and 16).
    """

    module = "std.dense"
    inputs = (
        Port("levels", Pyramid),
        Port("boxes", Tensor, kinds=("boxes",)),
        Port("asked", Struct, kinds=("proposals", "detections")),
    )

    offset: float = Field(default=0.5, ge=0, le=1)
    size: float = Field(default=11.3, gt=0)

    def infer(self, levels: Pyramid, boxes: Tensor, asked: Struct) -> Tensor:
        """Boxes [B, P, 4] of all points and asked boxes [B, N] to [B, N, 4]."""
        points = sum((m.height * m.width for m in levels.maps), dim(0))
        if boxes.shape[1] != points:
            raise Mismatch(
                f"{boxes.shape[1]} boxes for {points} points",
                code="DET0303",
                inputs=((1, f"{boxes}"), (0, "the levels")),
            )
        return tensor(BATCH, boxes_of(asked).shape[1], 4, kind="boxes")

    def torch(self, levels: Pyramid, boxes: Type, asked: Type) -> Function:  # type: ignore[override]
        """Index arithmetic and one gather."""
        strides = [float(m.stride) for m in levels.maps]
        kwargs = {"strides": strides, "offset": self.offset, "size": self.size}
        return Function(f"{PACKAGE}:at_points", kwargs)
