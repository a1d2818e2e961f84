"""Truth for semantic segmentation."""

from __future__ import annotations

from typing import TYPE_CHECKING

from detc.runtime.data.steps.base import DataStep, Draw

if TYPE_CHECKING:
    from numpy.random import Generator

    from detc.runtime.data.sample import Sample


class Classes(DataStep):
    """One object for each class that occurs: the masks of its objects are joined."""

    module = "std.data.steps"
    random = False
    reads = ("image", "boxes", "masks")
    writes = ("boxes", "labels", "masks")

    def apply(self, sample: Sample, rng: Generator, draw: Draw) -> Sample:
        from detc.runtime.data.semantic import join_classes

        return join_classes(sample)
