"""Segment maps: images whose pixels are the numbers of segments, as COCO's panoptic PNGs are.

A file of three channels holds R + 256 G + 65536 B (Kirillov et al., CVPR 2019; the format of COCO panoptic), one
of a single channel the number itself. Maps are read when their pixels are wanted, not with the annotations.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from detc.runtime.images import ImageError

Array = np.ndarray[Any, Any]
VOID = 0


@dataclass(frozen=True)
class MapSegment:
    """The pixels of a map file that hold `value`: a mask that is read when asked for."""

    path: str
    value: int

    def bitmap(self, height: int, width: int) -> Array:
        """The mask, bool [height, width].

        Raises:
            ImageError: if the file cannot be read.
            ValueError: if the map is of another size.
        """
        ids = read_ids(self.path)
        if ids.shape != (height, width):
            raise ValueError(f"a segment map of {list(ids.shape)} on an image of {[height, width]}")
        found: Array = ids == self.value
        return found


def ids_of(rgb: Array) -> Array:
    """Segment numbers int32 [H, W] of a map's pixels [H, W, 3] or [H, W]."""
    if rgb.ndim == 2:
        return rgb.astype(np.int32)
    wide = rgb.astype(np.int32)
    out: Array = wide[..., 0] + 256 * wide[..., 1] + 65536 * wide[..., 2]
    return out


def rgb_of(ids: Array) -> Array:
    """The pixels uint8 [H, W, 3] of a map of segment numbers [H, W] below 2^24."""
    return np.stack([ids % 256, ids // 256 % 256, ids // 65536], -1).astype(np.uint8)


@lru_cache(maxsize=2)
def read_ids(path: str) -> Array:
    """Segment numbers int32 [H, W] of a map file; the last files stay in memory, for their other segments.

    Raises:
        ImageError: if it is missing or no image.
    """
    from PIL import Image

    try:
        with Image.open(path) as file:
            plain = file if file.mode in ("L", "I", "I;16", "RGB", "P") else file.convert("RGB")
            ids = ids_of(np.asarray(plain))
    except FileNotFoundError:
        raise ImageError(path, "no such segment map") from None
    except (OSError, SyntaxError, ValueError) as fault:
        raise ImageError(path, f"not a segment map ({fault})") from fault
    ids.flags.writeable = False
    return ids


def write_ids(path: Path, ids: Array) -> None:
    """Write a segment map as a PNG of three channels."""
    from PIL import Image

    Image.fromarray(rgb_of(ids)).save(path)
