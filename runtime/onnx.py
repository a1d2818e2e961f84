"""ONNX files as detectors: ONNX Runtime behind the same `Detector`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from detc.runtime.detector import Detector

if TYPE_CHECKING:
    from torch import Tensor


class OnnxGraph(nn.Module):
    """An ONNX Runtime session with the interface of a deployed graph."""

    def __init__(self, session: Any) -> None:
        super().__init__()
        self.session = session
        self.input = session.get_inputs()[0]
        self.outputs = [o.name for o in session.get_outputs()]
        self.dtype = {"tensor(uint8)": np.uint8, "tensor(float)": np.float32}[self.input.type]

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """[B, 3, H, W] to named outputs, as `Detector.forward`."""
        pixels = image.detach().cpu().numpy()
        values = self.session.run(self.outputs, {self.input.name: self._cast(pixels)})
        return {name: torch.from_numpy(np.asarray(v)) for name, v in zip(self.outputs, values, strict=True)}

    def _cast(self, pixels: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        if pixels.dtype == self.dtype:
            return np.ascontiguousarray(pixels)
        if self.dtype is np.uint8:
            pixels = np.clip(np.rint(pixels), 0, 255)
        return np.ascontiguousarray(pixels.astype(self.dtype))
