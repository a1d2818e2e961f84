"""ONNX files as detectors: ONNX Runtime behind the same `Detector`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from detc.dsl.diagnostics import error
from detc.runtime.detector import Detector

if TYPE_CHECKING:
    from torch import Tensor

NEEDED = ("boxes", "scores", "labels", "valid")
DTYPES = {"tensor(uint8)": np.uint8, "tensor(float)": np.float32}


class OnnxGraph(nn.Module):
    """An ONNX Runtime session with the interface of a deployed graph."""

    def __init__(self, session: Any) -> None:
        super().__init__()
        self.session = session
        self.input = session.get_inputs()[0]
        self.outputs = [o.name for o in session.get_outputs()]
        self.dtype = DTYPES[self.input.type]

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


def load_onnx(path: Path, *, device: str = "cpu", threads: int | None = None) -> Detector:
    """A detector from a file that `detc compile` wrote.

    Args:
        path: the file.
        device: "cpu" or "cuda".
        threads: intra-op threads; ONNX Runtime's default without it.

    Raises:
        DetError: DET0903 if it is no ONNX file, or not one of a detector that detc compiled.
    """
    session = open_session(path, device=device, threads=threads)
    shape = session.get_inputs()[0].shape
    names = [o.name for o in session.get_outputs()]
    missing = [n for n in NEEDED if n not in names]
    if len(session.get_inputs()) != 1 or len(shape) != 4 or missing:
        raise error(
            "DET0903",
            f"{path} is not a detector that detc compiled",
            help=f"expected one image and the outputs {', '.join(NEEDED)}; found {', '.join(names)}",
        )
    classes = json.loads(session.get_modelmeta().custom_metadata_map.get("classes", "[]"))
    batch, _, height, width = shape
    fixed = (height, width) if isinstance(height, int) and isinstance(width, int) else None
    largest = batch if isinstance(batch, int) else None
    return Detector(
        OnnxGraph(session),
        classes,
        name=path.name,
        backend="onnxruntime",
        max_batch=largest,
        fixed_size=fixed,
    )


def open_session(path: Path, *, device: str, threads: int | None) -> Any:
    """An `onnxruntime.InferenceSession`, with detc's native ops where their library is there.

    Raises:
        DetError: DET0903 if the file cannot be opened.
    """
    raise NotImplementedError
