"""From queries with masks to results: objects, panoptic maps, maps of classes (Cheng et al., CVPR 2022)."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, NonNegativeInt, PositiveInt

from detc.compiler.dims import Dim
from detc.compiler.ops.base import Function, Op, Port
from detc.compiler.types import BATCH, Image, Map, Mismatch, Struct, Tensor, Type, detections, tensor

PACKAGE = "detc.compiler.functional.segment"
Labels = Annotated[list[NonNegativeInt], Field(default_factory=list)]
_INPUTS = (Port("logits", Tensor), Port("masks", Map), Port("image", Image))


def _classes(logits: Tensor, masks: Map, image: Image, stuff: list[int]) -> tuple[int, int]:
    """Check what queries say; the numbers of queries and of classes (without the last column, no object).

    Raises:
        Mismatch: if scores and masks are of different queries, or masks not of the input's size.
    """
    if len(logits.shape) != 3 or not logits.shape[2].is_const:
        raise Mismatch(
            f"class scores of queries are [B, Q, C + 1], not {logits}",
            code="DET0303",
            inputs=((0, f"{logits}"),),
        )
    queries, classes = logits.shape[1], int(logits.shape[2]) - 1
    if queries != Dim(masks.channels):
        raise Mismatch(
            f"scores of {queries} queries and masks of {masks.channels}",
            code="DET0302",
            inputs=((0, f"{queries} queries"), (1, f"{masks.channels} masks")),
        )
    if masks.height != image.height or masks.width != image.width:
        raise Mismatch(
            f"masks of stride {masks.stride} do not lie on the input's pixels",
            code="DET0303",
            inputs=((1, f"stride {masks.stride}"),),
            help=f"bring them to the input's size: -> Upsample({masks.stride}, bilinear)".replace(
                "bilinear", 'mode = "bilinear"'
            ),
        )
    beyond = [k for k in stuff if k >= classes]
    if beyond:
        raise Mismatch(f"there is no class {beyond[0]} among {classes}", param="stuff", code="DET0311")
    return masks.channels, classes


class InstanceMasks(Op):
    """The `keep` best pairs of query and class as detections with masks (bool) and the boxes around these.

    The score is the class's probability times the mean probability of the mask's own pixels. Classes listed in
    `stuff`, by number, are left out.
    """

    module = "std.post"
    inputs = _INPUTS

    keep: PositiveInt = 100
    stuff: Labels

    def infer(self, logits: Tensor, masks: Map, image: Image) -> Struct:
        """Scores [B, Q, C + 1] and a map of Q channels of logits to detections [B, keep]."""
        queries, classes = _classes(logits, masks, image, self.stuff)
        if self.keep > queries * classes:
            raise Mismatch(
                f"{queries} queries have fewer than {self.keep} answers", param="keep", code="DET0311"
            )
        shape = (BATCH, self.keep, masks.height, masks.width)
        return detections(self.keep, masks=tensor(*shape, dtype="bool"))

    def torch(self, *inputs: Type) -> Function:
        """Top-k, gather and reductions."""
        return Function(f"{PACKAGE}:instance_masks", {"keep": self.keep, "stuff": list(self.stuff)})


class PanopticFusion(Op):
    """Queries that compete for pixels: a map of segments, and the segments as detections.

    Every pixel goes to the query whose probability of class and mask is the highest; queries below `score` do
    not take part, and one that keeps less than `overlap` of its mask is dropped. The classes of `stuff`, by
    number, have one segment each (Cheng et al., MaskFormer, NeurIPS 2021, section 3.4). The map `panoptic`
    [B, H, W] holds 0 for nothing and k + 1 for detection k.
    """

    module = "std.post"
    inputs = _INPUTS

    stuff: Labels
    score: float = Field(default=0.8, ge=0, le=1)
    overlap: float = Field(default=0.8, ge=0, le=1)

    def infer(self, logits: Tensor, masks: Map, image: Image) -> Struct:
        """Scores [B, Q, C + 1] and a map of Q channels of logits to detections [B, Q] with `panoptic`."""
        queries, _ = _classes(logits, masks, image, self.stuff)
        return detections(queries, panoptic=tensor(BATCH, masks.height, masks.width, dtype="int64"))

    def torch(self, *inputs: Type) -> Function:
        """Argmax over queries; areas by scattering."""
        kwargs = {"stuff": list(self.stuff), "score": self.score, "overlap": self.overlap}
        return Function(f"{PACKAGE}:panoptic_fusion", kwargs)


class ClassMap(Op):
    """The class of each pixel, and the classes that occur as detections.

    A class's score at a pixel is the sum over queries of its probability times the mask's. The map `semantic`
    [B, H, W] holds class numbers, -1 on padding; a detection's score is the largest that its class has at a pixel, at most 1.
    """

    module = "std.post"
    inputs = _INPUTS

    def infer(self, logits: Tensor, masks: Map, image: Image) -> Struct:
        """Scores [B, Q, C + 1] and a map of Q channels of logits to detections [B, C] with `semantic`."""
        _, classes = _classes(logits, masks, image, [])
        return detections(classes, semantic=tensor(BATCH, masks.height, masks.width, dtype="int64"))

    def torch(self, *inputs: Type) -> Function:
        """A product of matrices and an argmax."""
        return Function(f"{PACKAGE}:class_map")
