"""Reading weight files without executing anything.

`.safetensors` holds only tensors. Everything else goes through torch's restricted unpickler
(`weights_only=True`). Checkpoints of training frameworks carry objects besides their tensors (loss histories,
configs); objects of the packages in `INERT` become empty stand-ins, whose construction runs no code of
theirs. Any other object is refused.
"""

from __future__ import annotations

import pickle
import re
import warnings
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from detc.dsl.diagnostics import DetError, error

INERT = (
    "mmengine.",
    "mmcv.",
    "mmdet.",
    "mmpretrain.",
    "mmcls.",
    "numpy.",
    "argparse.",
    "omegaconf.",
    "yacs.",
)

# Where programs put the state_dict, in order of preference.
_NESTS = ("state_dict", "model_state_dict", "model_state", "model", "module", "net", "weights", "params")


# What torch and pickle raise at bytes that are not theirs.
_BROKEN = (
    RuntimeError,
    EOFError,
    ValueError,
    LookupError,
    OSError,
    AttributeError,
    TypeError,
    AssertionError,
)
_GLOBAL = re.compile(r"\bGLOBAL (\w\S*)")


class _Inert:
    """Stands for an object that is not needed; takes any construction and keeps nothing."""

    def __new__(cls, *args: Any, **kwargs: Any) -> _Inert:
        return super().__new__(cls)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass


def read_file(path: Path) -> Any:
    """What a weight file holds, on the CPU: tensors in dicts, plain values, inert stand-ins.

    Raises:
        DetError: DET0901 if there is no such file; DET0911 if it cannot be read without executing code, or
        at all.
    """
    if not path.is_file():
        raise error("DET0901", f"no weight file at {path}")
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    with path.open("rb") as file:
        if not file.read(2).startswith((b"PK", b"\x80")):  # a zip file, or a pickle of protocol 2 or later
            raise _unreadable(path)
    try:
        with _stand_ins(path), warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of other pickle protocols
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as exc:
        found = _GLOBAL.search(str(exc))
        raise _refused(path, found[1] if found else "it holds more than a reader of tensors takes") from exc
    except _BROKEN as exc:
        raise _unreadable(path) from exc


def _unreadable(path: Path) -> DetError:
    return error(
        "DET0911",
        f"{path} is not a weight file that torch can read: it is cut short, or something else",
        help="weights are .pt, .pth or .safetensors files; one that was cut short has to be copied again",
    )


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError) as exc:
        raise error("DET0911", f"{path} is not a safetensors file: {_first_line(exc)}") from exc


def _stand_ins(path: Path) -> Any:
    try:
        names = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except Exception:  # the old (pre-1.6) format cannot be listed; the restricted unpickler still guards it
        return nullcontext()
    unknown = [n for n in names if not n.startswith(INERT)]
    if unknown:
        raise _refused(path, ", ".join(sorted(unknown)))
    # One class a name: the unpickler looks classes up by name and refuses to share one.
    stand_ins = [(type("Inert", (_Inert,), {"__module__": __name__}), name) for name in names]
    return torch.serialization.safe_globals(stand_ins)  # type: ignore[arg-type]


def _refused(path: Path, what: str) -> DetError:
    return error(
        "DET0911",
        f"{path} could run code when loaded ({what.strip().splitlines()[0]}), so it was not",
        help='save its state_dict alone: `torch.save(model.state_dict(), "weights.pt")`, or as safetensors',
    )


def _first_line(exc: BaseException) -> str:
    text = str(exc).strip()
    return text.splitlines()[0] if text else type(exc).__name__


def tensors_of(data: Any, path: Path) -> dict[str, Tensor]:
    """The state_dict inside whatever a file held.

    Looks under the usual names (`state_dict`, `model`, …) and takes the prefixes off that wrappers add
    (`module.`, `_orig_mod.`).

    Raises:
        DetError: DET0911 if there are no named tensors.
    """
    found = _find(data)
    if not found:
        keys = ", ".join(map(str, list(data)[:5])) if isinstance(data, Mapping) else type(data).__name__
        raise error("DET0911", f"{path} holds no named tensors (it holds: {keys})")
    for prefix in ("module.", "_orig_mod."):
        if all(k.startswith(prefix) for k in found):
            found = {k.removeprefix(prefix): v for k, v in found.items()}
    return found


def _find(data: Any) -> dict[str, Tensor]:
    if not isinstance(data, Mapping):
        return {}
    for name in _NESTS:
        if isinstance(data.get(name), Mapping):
            inner = _find(data[name])
            if inner:
                return inner
    return {str(k): v for k, v in data.items() if isinstance(v, Tensor)}
