"""Which convolutions of a deployed graph take Winograd's filtering on the CPU, and their filters for it.

The rule is static, from shapes alone, so that a model computes the same on an image each time. It was measured
against oneDNN's direct convolution (docs/benchmarks.md). `DETC_WINOGRAD=0` turns it off.
"""

from __future__ import annotations

import os
import platform
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from detc.nativeops import build, loader, ops, toolchain
from detc.nativeops.registry import has_native_kernel

ACTIVATIONS = {"none": "none", "relu": "relu", "swish": "silu"}  # from `FusedConv`'s names
MEASURED = platform.machine().lower() in ("x86_64", "amd64")  # elsewhere the peer is another one
SIDE = 4  # of a tile of outputs
FEWEST_CHANNELS = 192  # narrower layers come early, and their rounding grows through all that follow
FEWEST_OUTPUTS = 64  # reading the filters, which are four times the weights, takes longer below
LEAST_USE = 8  # outputs a tile that lie inside of the map, of 16: half of the multiplications, at worst


class WinogradFilters:
    """The packed filters of one convolution, for all places that apply it; made at its first use."""

    def __init__(self) -> None:
        self._packed: Tensor | None = None
        self._source: tuple[int, int] | None = None

    def of(self, weight: Tensor) -> Tensor:
        """The filters of `weight` [O, C, 3, 3], made anew when it has changed."""
        source = (weight.data_ptr(), weight._version)
        if self._packed is None or self._source != source:
            self._packed, self._source = ops.winograd_pack(weight.detach()), source
        return self._packed

    def __getstate__(self) -> dict[str, Any]:
        return {"_packed": None, "_source": None}  # four times the weights, and soon made again


def wins(conv: nn.Conv2d, out: torch.Size) -> bool:
    """Whether Winograd's filtering can do it, and faster than a direct convolution; out: [B, O, h, w]."""
    kind = (conv.kernel_size, conv.stride, conv.dilation, conv.groups)
    if kind != ((3, 3), (1, 1), (1, 1), 1) or any(p not in (0, 1) for p in conv.padding):
        return False
    outputs = out[0] * out[2] * out[3]
    tiles = out[0] * -(-out[2] // SIDE) * -(-out[3] // SIDE)
    return (
        MEASURED and conv.in_channels >= FEWEST_CHANNELS and outputs >= max(FEWEST_OUTPUTS, LEAST_USE * tiles)
    )


def ready() -> bool:
    """Whether the native op is there and wanted; the first call builds the library where it can be built.

    Without a compiler nothing is said: the direct convolution gives the same.
    """
    if os.environ.get("DETC_WINOGRAD") == "0" or not loader.enabled():
        return False
    if loader.wants("cpu") and _obtainable():
        loader.ensure_loaded("cpu")
    return has_native_kernel("winograd_conv2d", "cpu")


@cache
def _obtainable() -> bool:
    """Whether there is a library, or a compiler for one."""
    return "DETC_LIBRARY" in os.environ or toolchain.cxx() is not None or build.find("torch") is not None
