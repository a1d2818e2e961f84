"""Automatic mixed precision: where it is used, in which dtype, and which layers keep out of it.

Convolutions and products run in the short dtype, everything that torch's autocast knows to be delicate in
fp32. One more thing is delicate in detectors: the layers that predict. A box's side of 300 pixels in bf16
has steps of a pixel, so *prediction layers*, whose output goes into decoding, assignment and losses and into
no other layer, stay in fp32. They are a small part of the work.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}

# Functions of `compiler.functional` whose first input is a feature map or a prediction that they hand on:
# what # reads their output decides. All others there decode, assign or compute losses.
_PASSING = ("activation", "arith", "elementary", "layers", "reshape", "roi", "tensor")
_SCALARS = 8  # a module with so few parameters (a learnt scale) hands on, too


@dataclass
class Precision:
    """The dtype of convolutions and products (None: fp32), and the loss scaler of fp16."""

    dtype: torch.dtype | None
    device: str
    scaler: torch.amp.GradScaler
    note: str = ""

    @classmethod
    def of(cls, amp: bool, asked: str | None, device: torch.device) -> Precision:
        """As a recipe asks: `amp = true`, and perhaps `amp_dtype = "bf16" | "fp16"`.

        On a CPU mixed precision is used only where `amp_dtype` asks for it and the CPU has bf16 units; `note`
        says so where it is not used.

        Raises:
            ValueError: for an unknown `amp_dtype`, or fp16 on a CPU.
        """
        if asked is not None and asked not in DTYPES:
            raise ValueError(f'amp_dtype is "bf16" or "fp16", not {asked!r}')
        dtype, note = None, ""
        if amp and device.type == "cuda":
            has_bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
            dtype = DTYPES[asked or ("bf16" if has_bf16 else "fp16")]
        elif amp and asked == "fp16":
            raise ValueError('fp16 training needs a GPU; on a CPU use amp_dtype = "bf16"')
        elif amp and asked is None:
            note = 'amp is for GPUs; on a CPU with bf16 units ask for it: amp_dtype = "bf16"'
        elif amp and not cpu_has_bf16():
            note = "this CPU has no bf16 units: training in fp32"
        elif amp:
            dtype = torch.bfloat16
        scaler = torch.amp.GradScaler(device.type, enabled=dtype is torch.float16)
        return cls(dtype, device.type, scaler, note)

    def autocast(self) -> AbstractContextManager[Any]:
        """The context of a forward pass."""
        return nullcontext() if self.dtype is None else torch.autocast(self.device, self.dtype)

    def spare_predictions(self, graph: nn.Module) -> list[str]:
        """Make the prediction layers of a train graph run in fp32 under autocast; returns their names."""
        if self.dtype is None or not isinstance(graph, fx.GraphModule):
            return []
        names = prediction_layers(graph)
        for name in names:
            module = graph.get_submodule(name)
            if not isinstance(module.forward, _InFull):
                module.forward = _InFull(module, self.device)
        return names


def cpu_has_bf16() -> bool:
    """True if convolutions in bf16 are faster than in fp32 on this CPU."""
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported()) and any(
        getattr(torch.cpu, name, bool)() for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    )


class _InFull:
    """A module's forward in fp32, whatever surrounds it."""

    def __init__(self, module: nn.Module, device: str) -> None:
        self.inner, self.device = module.forward, device

    def __call__(self, *args: torch.Tensor) -> torch.Tensor:
        with torch.autocast(self.device, enabled=False):
            out: torch.Tensor = self.inner(*(a.float() for a in args))
        return out


def prediction_layers(graph: fx.GraphModule) -> list[str]:
    """Names of the weighted modules whose output no other layer reads, in any of their uses."""
    found: dict[str, bool] = {}
    for node in graph.graph.nodes:
        if node.op == "call_module" and _size(graph, node) > 0:
            readers = [kind for user in node.users for kind in _readers(graph, user)]
            ends = bool(readers) and all(kind == "result" for kind in readers)
            found[str(node.target)] = found.get(str(node.target), True) and ends
    return [name for name, ends in found.items() if ends]


def _size(graph: fx.GraphModule, node: fx.Node) -> int:
    return sum(p.numel() for p in graph.get_submodule(str(node.target)).parameters())


def _readers(graph: fx.GraphModule, node: fx.Node) -> list[str]:
    """What finally reads a value that `node` takes in: "layer" or "result"."""
    if node.op == "call_module" and _size(graph, node) > _SCALARS:
        return ["layer"]
    package, _, home = str(getattr(node.target, "__module__", "")).rpartition(".")
    if node.op == "output" or (package.startswith("detc.") and home not in _PASSING):
        return ["result"]
    return [kind for user in node.users for kind in _readers(graph, user)]
