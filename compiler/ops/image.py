"""Work on the input image."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from detc.compiler.ops.base import Function, Op, Port
from detc.compiler.types import Image, Mismatch

IMAGENET_MEAN = [123.675, 116.28, 103.53]
IMAGENET_STD = [58.395, 57.12, 57.375]


class Normalize(Op):
    """Subtracts the mean and divides by the standard deviation of each channel.

    Pixels arrive as RGB in 0..255. `mean` and `std` (ImageNet's by default) are stated in the order that
    leaves: with `order = "bgr"` the channels are swapped first. With `mask` what lies beyond the image's
    content becomes 0, as where images are normalised before they are padded; without it the padding is
    normalised like any pixel, as where they are padded first.
    """

    module = "std.ops"
    inputs = (Port("image", Image),)

    mean: list[float] = Field(default=IMAGENET_MEAN, min_length=1)
    std: list[float] = Field(default=IMAGENET_STD, min_length=1)
    order: Literal["rgb", "bgr"] = "rgb"
    mask: bool = True

    def infer(self, image: Image) -> Image:
        """The same image."""
        for name, values in (("mean", self.mean), ("std", self.std)):
            if len(values) != image.channels:
                raise Mismatch(
                    f"`{name}` has {len(values)} values for an image of {image.channels} channels",
                    code="DET0302",
                    inputs=((0, f"{image.channels} channels come from here"),),
                    param=name,
                )
        if min(self.std) <= 0:
            raise Mismatch("standard deviations must be positive", code="DET0301", param="std")
        return image

    def torch(self, image: Image) -> Function:  # type: ignore[override]
        """Elementwise work on `pixels`; `size` goes through."""
        return Function(
            "detc.compiler.functional.image:normalize",
            {"mean": list(self.mean), "std": list(self.std), "swap": self.order == "bgr", "mask": self.mask},
        )
