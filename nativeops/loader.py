"""Finds, builds and loads the shared library, once a process, and says once when there is none."""

from __future__ import annotations

import os
import sys
import threading
import warnings
from dataclasses import dataclass, field

from detc.nativeops import build


class NativeFallbackWarning(UserWarning):
    """The native library is not in use; the pure-torch references are. Said once a process."""


@dataclass
class _State:
    lock: threading.RLock = field(default_factory=threading.RLock)
    tried: set[str] = field(default_factory=set)
    loaded: build.Library | None = None
    reason: str = ""
    warned: bool = False


_STATE = _State()
_INSTEAD = "detc's ops run through their (slower) torch references"


def enabled() -> bool:
    """False when the environment says ``DETC_NATIVE=0``: references only, silently, because it was asked
    for."""
    return os.environ.get("DETC_NATIVE", "1") != "0"


def wants(device_type: str) -> bool:
    """Whether a call on this kind of device has yet to look for the library."""
    return enabled() and device_type in ("cpu", "cuda") and device_type not in _STATE.tried


def ensure_loaded(device_type: str = "cpu") -> bool:
    """Load the library, building it if there is none for these sources.

    Returns whether a library is loaded (it may lack CUDA). A missing compiler, a failed build or a library
    that does not load gives one ``NativeFallbackWarning`` (after the compiler's own output) and False.
    """
    if not enabled():
        return False
    with _STATE.lock:
        if device_type not in _STATE.tried:
            try:
                _find_and_load(device_type)
            finally:
                # Only now, so that other threads wait for the library rather than do without it.
                _STATE.tried.add(device_type)
        return _STATE.loaded is not None


def _find_and_load(device_type: str) -> None:
    if _STATE.loaded is None:
        try:
            library = build.find_or_build(need_cuda=device_type == "cuda")
        except build.NativeBuildError as error:
            _STATE.reason = error.summary
            if error.log:
                print(error.log, file=sys.stderr)
            _warn(f"{error.summary}; {_INSTEAD}. {error.hint}")
            return
        try:
            _load(library)
        except OSError as error:  # an older torch or C library than it needs, a torn file
            _STATE.reason = f"{library.path} could not be loaded: {error}"
            _warn(f"{_STATE.reason}; {_INSTEAD}. `detc native build --force` makes it anew")
            return
    if device_type == "cuda" and _STATE.loaded is not None and not _STATE.loaded.architectures:
        _warn(
            "the native library has no CUDA kernels; detc's ops on CUDA tensors run through their torch references. "
            "`detc native build` with nvcc on the PATH adds them (then restart)"
        )


def loaded_library() -> build.Library | None:
    """The library in use in this process, or None."""
    return _STATE.loaded


def fallback_reason() -> str:
    """Why no library is loaded, or an empty string."""
    if not enabled():
        return "DETC_NATIVE=0"
    return _STATE.reason


def _load(library: build.Library) -> None:
    import torch

    torch.ops.load_library(str(library.path))
    _STATE.loaded = library
    _STATE.tried.add("cpu")


def _warn(text: str) -> None:
    if not _STATE.warned:
        _STATE.warned = True
        warnings.warn(text, NativeFallbackWarning, stacklevel=6)
