"""The steps of data pipelines (module `std.data.steps`): what they are and which random choices they make.

The classes are schemas and import neither torch nor numpy; the pixel and box work is done by
`runtime.data.sample.Sample`. To add a step: write its class in the family's file (or a new one, imported
below) with `apply(sample, rng, draw)`.
"""

from detc.runtime.data.steps.affine import RandomAffine
from detc.runtime.data.steps.choice import Choice
from detc.runtime.data.steps.colour import HSV, ColorJitter, GaussianBlur, PhotoMetric
from detc.runtime.data.steps.crop import Crop, Expand, MinIoUCrop
from detc.runtime.data.steps.erase import Erase
from detc.runtime.data.steps.flip import HFlip, VFlip
from detc.runtime.data.steps.load import Boxes, Load, Masks
from detc.runtime.data.steps.mix import CopyPaste, MixUp, Mosaic
from detc.runtime.data.steps.pad import Pad
from detc.runtime.data.steps.resize import RandomResize, Resize, ResizeShortest
from detc.runtime.data.steps.semantic import Classes

__all__ = [
    "Boxes",
    "Choice",
    "Classes",
    "ColorJitter",
    "CopyPaste",
    "Crop",
    "Erase",
    "Expand",
    "GaussianBlur",
    "HFlip",
    "HSV",
    "Load",
    "Masks",
    "MinIoUCrop",
    "MixUp",
    "Mosaic",
    "Pad",
    "PhotoMetric",
    "RandomAffine",
    "RandomResize",
    "Resize",
    "ResizeShortest",
    "VFlip",
]
