"""Decoded images in memory that all worker processes share."""

from __future__ import annotations

import mmap
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

Array = np.ndarray[Any, Any]


class ImageCache:
    """A slot for each image in anonymous shared memory; pages are only taken once they are written.

    Processes forked after the cache was made write to the same pages (the same bytes, if they both do).

    Args:
        bounds: largest size of each image in bytes.
    """

    def __init__(self, bounds: Sequence[int]) -> None:
        self.offsets = np.concatenate([[0], np.cumsum(np.asarray(bounds, np.int64))])
        self._allocate()

    def _allocate(self) -> None:
        self.bytes = np.frombuffer(mmap.mmap(-1, max(int(self.offsets[-1]), 1)), np.uint8)

    def __getstate__(self) -> dict[str, Any]:
        """Where workers are not forked, each has a cache of its own."""
        return {"offsets": self.offsets}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.offsets = state["offsets"]
        self._allocate()

    def put(self, index: int, image: torch.Tensor) -> torch.Tensor:
        """Store an image, uint8 [3, H, W], and return it as it lies there. Not to be written to.

        Raises:
            ValueError: if it is larger than its slot.
        """
        _, height, width = image.shape
        start, stop = (int(n) for n in self.offsets[index : index + 2])
        if image.numel() > stop - start:
            raise ValueError(f"an image of {width}x{height} is larger than its annotation says")
        slot = torch.from_numpy(self.bytes[start : start + image.numel()]).view(height, width, 3)
        slot.copy_(image.permute(1, 2, 0))
        return slot.permute(2, 0, 1)


def available_bytes() -> int:
    """Memory that can be had without swapping."""
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            for line in file:
                if line.startswith("MemAvailable:"):
                    return int(line.split()[1]) * 1024
    except OSError:
        pass
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
