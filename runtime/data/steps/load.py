"""Steps that read a sample: its pixels, its boxes, its masks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from detc.runtime.data.steps.base import DataStep, Draw

if TYPE_CHECKING:
    from numpy.random import Generator

    from detc.runtime.data.sample import Sample


class Load(DataStep):
    """Decode the image to RGB, 0..255, turned as its EXIF tag says."""

    module = "std.data.steps"
    random = False
    reads = ()
    writes = ("image", "size")
    loads = True

    def apply(self, sample: Sample, rng: Generator, draw: Draw) -> Sample:
        return sample.load()


class Boxes(DataStep):
    """Take boxes and labels from the annotations; crowds and difficult objects stay out of training."""

    module = "std.data.steps"
    random = False
    reads = ("image",)  # fractions (YOLO) become pixels once the size is known
    writes = ("boxes", "labels")
    loads = True

    def apply(self, sample: Sample, rng: Generator, draw: Draw) -> Sample:
        return sample.read_boxes()


class Masks(DataStep):
    """Take the objects' outlines from the annotations. An object without one has its box as outline."""

    module = "std.data.steps"
    random = False
    reads = ("image", "boxes")
    writes = ("masks",)
    loads = True

    def apply(self, sample: Sample, rng: Generator, draw: Draw) -> Sample:
        return sample.read_masks()
