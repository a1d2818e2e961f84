"""detc: a declarative, graph-compiled language for object detection.

The public API on one screen. Everything is imported on first use, so `import detc` is cheap and checking a
spec never imports torch.

    detc.check("specs/cascade.det").report.errors
    print(detc.resolve("specs/cascade.det"))
    detc.train("specs/quickstart.det")
    detector = detc.load("runs/quickstart")       # a torch nn.Module
    detector.predict("street.jpg")[0].draw().save("drawn.jpg")
    detc.compile("runs/quickstart", "model.onnx")
    session = detc.ort_session("model.onnx")
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from detc.compiler.check import check
    from detc.runtime.api import compile, ort_session, resolve, train
    from detc.runtime.load import load
    from detc.runtime.results import Detections

_HOMES = {
    "check": "detc.compiler.check",
    "resolve": "detc.runtime.api",
    "compile": "detc.runtime.api",
    "train": "detc.runtime.api",
    "ort_session": "detc.runtime.api",
    "load": "detc.runtime.load",
    "Detections": "detc.runtime.results",
}

__all__ = ["Detections", "check", "compile", "load", "ort_session", "resolve", "train"]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("detc")
    if name not in _HOMES:
        raise AttributeError(f"module 'detc' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
