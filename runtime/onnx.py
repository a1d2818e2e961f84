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
    """An ONNX Runtime session with the interface of a deployed graph.

    A file of fixed batch gets smaller ones filled up with black images; one that wants [B, H, W, 3] gets it.
    """

    def __init__(self, session: Any) -> None:
        super().__init__()
        self.session = session
        self.input = session.get_inputs()[0]
        self.outputs = [o.name for o in session.get_outputs()]
        self.dtype = DTYPES[self.input.type]
        batch = self.input.shape[0]
        self.batch = batch if isinstance(batch, int) else None
        self.channels_last = self.input.shape[3] == 3

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """[B, 3, H, W] to named outputs, as `Detector.forward`."""
        pixels = self._cast(image.detach().cpu().numpy())
        count = len(pixels)
        if self.batch is not None and count < self.batch:
            pixels = np.concatenate([pixels, np.zeros((self.batch - count, *pixels.shape[1:]), pixels.dtype)])
        if self.channels_last:
            pixels = pixels.transpose(0, 2, 3, 1)
        values = self.session.run(self.outputs, {self.input.name: np.ascontiguousarray(pixels)})
        found = zip(self.outputs, values, strict=True)
        return {name: torch.from_numpy(np.asarray(value)[:count]) for name, value in found}

    def _cast(self, pixels: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        if self.dtype is np.uint8 and pixels.dtype != np.uint8:
            pixels = np.clip(np.rint(pixels), 0, 255)
        return pixels.astype(self.dtype, copy=False)


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
    names = [o.name for o in session.get_outputs()]
    missing = [n for n in NEEDED if n not in names]
    if len(session.get_inputs()) != 1 or len(session.get_inputs()[0].shape) != 4 or missing:
        raise error(
            "DET0903",
            f"{path} is not a detector that detc compiled",
            help=f"expected one image and the outputs {', '.join(NEEDED)}; found {', '.join(names)}",
        )
    graph = OnnxGraph(session)
    classes = json.loads(session.get_modelmeta().custom_metadata_map.get("classes", "[]"))
    return Detector(graph, classes, name=path.name, backend="onnxruntime", max_batch=graph.batch)


def open_session(path: Path, *, device: str, threads: int | None) -> Any:
    """An `onnxruntime.InferenceSession`, with detc's native kernels where their library is there.

    Raises:
        DetError: DET0903 if the file cannot be opened; DET0906 if there is no such device.
    """
    import onnxruntime

    from detc.runtime.api import ort_session

    options = onnxruntime.SessionOptions()
    if threads:
        options.intra_op_num_threads = threads
    gpu = "CUDAExecutionProvider"
    kind = device.partition(":")[0]
    if kind not in ("cpu", "cuda"):
        raise error("DET0906", f"`{device}` is no device for an ONNX file", help="there are cpu and cuda")
    wanted = [gpu] if kind == "cuda" else []
    try:
        session = ort_session(path, sess_options=options, providers=[*wanted, "CPUExecutionProvider"])
    except Exception as fault:  # ONNX Runtime's exceptions have no common base of their own
        if type(fault).__module__.startswith(("onnxruntime", "google.protobuf")):
            reason = str(fault).splitlines()[0]
            raise error("DET0903", f"{path} cannot be opened by ONNX Runtime", notes=[reason]) from fault
        raise
    if wanted and gpu not in session.get_providers():
        raise error(
            "DET0906",
            f"ONNX Runtime cannot run {path.name} on `{device}`",
            help="use `--device cpu`, or install onnxruntime-gpu on a machine with a GPU",
        )
    return session
