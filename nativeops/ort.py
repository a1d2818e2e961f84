"""ONNX Runtime with detc's native kernels: the library that holds them, and sessions that use it.

A model that detc exports runs without the library too: each ``detc`` node carries a function of standard ops.
"""

from __future__ import annotations

import ctypes
import os
import sys
import threading
import warnings
from pathlib import Path
from typing import Any

from detc.nativeops import build, loader, ort_headers
from detc.nativeops.toolchain import nvcc

DOMAIN = "detc"
_LOCK = threading.Lock()
_STATE: dict[str, Any] = {}


def library(build_it: bool = True) -> build.Library | None:
    """The custom-op library for these sources: found, or built (which may fetch ONNX Runtime's headers).

    Returns None with ``DETC_NATIVE=0``, and where it cannot be built, which is said once.
    """
    if not loader.enabled():
        return None
    with _LOCK:
        if "library" not in _STATE:
            found = build.find("ort")
            if found is None and build_it:
                try:
                    found = build.build_for_here(
                        "ort", cuda=_wants_cuda(), include=[ort_headers.find_or_fetch()]
                    )
                except build.NativeBuildError as error:
                    if error.log:
                        print(error.log, file=sys.stderr)
                    warnings.warn(
                        f"no native kernels for ONNX Runtime: {error.summary}. Models run through "
                        f"the functions they carry. {error.hint}",
                        loader.NativeFallbackWarning,
                        stacklevel=3,
                    )
            if found is None and not build_it:
                return None
            _STATE["library"] = found
        return _STATE["library"]


def ort_session(
    path: str | Path, *, native: bool | None = None, sess_options: Any = None, **options: Any
) -> Any:
    """Open a model in ONNX Runtime, with the native kernels registered when it has ``detc`` nodes.

    Args:
        path: the ``.onnx`` file.
        native: True requires the library, False leaves it out, None uses it when it can be had.
        sess_options, options: as for ``onnxruntime.InferenceSession``; ``providers`` defaults to the CPU.

    Returns:
        An ``onnxruntime.InferenceSession``.

    Raises:
        NativeBuildError: ``native=True`` and there is no library.
    """
    import onnxruntime

    options.setdefault("providers", ["CPUExecutionProvider"])
    settings = sess_options or onnxruntime.SessionOptions()
    if native is not False and (native or _has_native_nodes(path)):
        found = library()
        if found is not None:
            settings.register_custom_ops_library(str(found.path))
        elif native:
            raise build.NativeBuildError("there is no native library for ONNX Runtime", hint=ort_headers.HINT)
    return onnxruntime.InferenceSession(str(path), sess_options=settings, **options)


def native_calls() -> int:
    """How many times native kernels ran in ONNX Runtime sessions of this process."""
    found = _STATE.get("library")
    if found is None:
        return 0
    handle = ctypes.CDLL(str(found.path))
    handle.detc_ort_call_count.restype = ctypes.c_int64
    return int(handle.detc_ort_call_count())


def _wants_cuda() -> bool:
    return build.cuda_is_here("ort") and os.environ.get("DETC_CUDA") != "0" and nvcc() is not None


def _has_native_nodes(path: str | Path) -> bool:
    import onnx

    model = onnx.load(str(path), load_external_data=False)
    return any(opset.domain == DOMAIN for opset in model.opset_import)
