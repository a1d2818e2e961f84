"""Checkpoints: one file from which a detector can be rebuilt and a training continued.

A checkpoint is a dict of plain values and tensors, so that it loads with `weights_only=True`:

=========  ======================================================================================
`format`   "detc"
`version`  of this layout
`spec`     the resolved spec, itself valid `.det`
`run`      the run's name in it
`classes`  class names in label order
`model`    state_dict to predict with: the averaged weights where there is an average
`metrics`  of the validation just before it was written
`train`    what `--resume` needs: live weights, optimiser, average, scaler, counters, random states
=========  ======================================================================================

Files are written beside their place and renamed into it, so a crash never leaves half of one.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from detc.dsl.diagnostics import DetError, error

if TYPE_CHECKING:
    from torch import Tensor, nn

FORMAT, VERSION = "detc", 1
FIELDS = {
    "version": int,
    "spec": str,
    "run": str,
    "classes": list,
    "model": dict,
    "metrics": dict,
    "train": dict,
}


@dataclass
class Checkpoint:
    """A checkpoint in memory; the fields are those of the module's table."""

    spec: str
    run: str
    classes: tuple[str, ...]
    model: dict[str, Tensor]
    metrics: dict[str, float] = field(default_factory=dict)
    train: dict[str, Any] = field(default_factory=dict)
    path: Path | None = None


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write `checkpoint` to `path` atomically.

    Raises:
        DetError: DET0712 if the file cannot be written (no space, no permission); what was at `path` stays.
    """
    data = {
        "format": FORMAT,
        "version": VERSION,
        "spec": checkpoint.spec,
        "run": checkpoint.run,
        "classes": list(checkpoint.classes),
        "model": checkpoint.model,
        "metrics": dict(checkpoint.metrics),
        "train": checkpoint.train,
    }
    atomic_save(path, data)


def atomic_save(path: Path, data: Any) -> None:
    """`torch.save` to a temporary file in the same folder, then rename; errors as in `save_checkpoint`."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "wb") as file:
            torch.save(data, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except (OSError, RuntimeError) as exc:
        # torch wraps an OSError of the file into a RuntimeError of its writer.
        cause: BaseException = exc
        while not isinstance(cause, OSError) and (cause.__cause__ or cause.__context__):
            cause = cause.__cause__ or cause.__context__  # type: ignore[assignment]
        reason = cause.strerror if isinstance(cause, OSError) and cause.strerror else str(exc).splitlines()[0]
        raise cannot_write(path, reason) from exc
    finally:
        temporary.unlink(missing_ok=True)


def same_checkpoint(path: Path, other: Path) -> None:
    """Make `other` hold what `path` holds, atomically, and without writing it twice if the disk can do that.

    Raises:
        DetError: DET0712 if it cannot be written.
    """
    temporary = other.with_name(f".{other.name}.{os.getpid()}.tmp")
    try:
        try:
            os.link(path, temporary)
        except OSError:  # a file system without hard links
            shutil.copyfile(path, temporary)
        os.replace(temporary, other)
    except OSError as exc:
        raise cannot_write(other, exc.strerror or str(exc)) from exc
    finally:
        temporary.unlink(missing_ok=True)


def cannot_write(path: Path, reason: str) -> DetError:
    """DET0712: `path` cannot be written."""
    return error(
        "DET0712",
        f"cannot write {path}: {reason}",
        notes=["files that were complete are as they were"],
        help="free some space or choose another folder with `-o`",
    )


def check_writable(folder: Path) -> None:
    """Make `folder` and prove that files can be created in it.

    Raises:
        DetError: DET0712 if not.
    """
    probe = folder / f".probe.{os.getpid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"detc")
        probe.unlink()
    except OSError as exc:
        raise cannot_write(folder, exc.strerror or str(exc)) from exc


def is_checkpoint(data: Any) -> bool:
    """True if `data` (what a file held) has the layout of a detc checkpoint."""
    return isinstance(data, Mapping) and data.get("format") == FORMAT and "model" in data


def read_checkpoint(path: Path | str) -> Checkpoint:
    """Read a checkpoint that detc wrote; executes no code.

    Raises:
        DetError: DET0901 if there is no such file, DET0911 if it is no detc checkpoint or a newer one.
    """
    from detc.runtime.weights.read import read_file

    path = Path(path)
    data = read_file(path)
    if not is_checkpoint(data):
        raise error(
            "DET0911",
            f"{path} is not a detc checkpoint",
            help="other programs' weights start a model: `node … from …`, `detc run train --init FILE`",
        )
    if isinstance(data.get("version"), int) and data["version"] > VERSION:
        raise error(
            "DET0911",
            f"{path} was written by a newer detc (layout {data['version']}, this one reads {VERSION})",
        )
    wrong = [name for name, kind in FIELDS.items() if not isinstance(data.get(name), kind)]
    if wrong:
        raise error("DET0911", f"{path} is a damaged checkpoint: its `{'`, `'.join(wrong)}` cannot be used")
    return Checkpoint(
        data["spec"],
        data["run"],
        tuple(data["classes"]),
        data["model"],
        dict(data["metrics"]),
        dict(data["train"]),
        path,
    )


def load_weights(program: Any, path: Path | str) -> Checkpoint | None:
    """Load a checkpoint's weights into a program, exactly.

    Args:
        program: a compiled program (its `model` receives the weights).
        path: a detc checkpoint, or a bare state_dict with the spec's names (.pt, .pth, .safetensors).

    Returns:
        The checkpoint; None for a bare state_dict.

    Raises:
        DetError: DET0901 (no file), DET0902 (weights of another model, with what differs), DET0911
        (unreadable).
    """
    from detc.runtime.train.shadow import filled
    from detc.runtime.weights.load import load_exactly
    from detc.runtime.weights.read import read_file, tensors_of

    data = read_file(Path(path))
    if is_checkpoint(data):
        checkpoint = read_checkpoint(path)
        load_exactly(program.model, filled(program, checkpoint.model), str(path))
        return checkpoint
    load_exactly(program.model, filled(program, tensors_of(data, Path(path))), str(path))
    return None


def state_of(model: nn.Module) -> dict[str, Tensor]:
    """The model's state as detached tensors (no copy)."""
    return {name: tensor.detach() for name, tensor in model.state_dict().items()}


def random_state() -> dict[str, Any]:
    """The states of all random generators of this process, as plain values and tensors."""
    import random

    import numpy as np

    kind, keys, position, has_gauss, gauss = np.random.get_state(legacy=True)  # type: ignore[misc]
    version, internal, spare = random.getstate()
    state: dict[str, Any] = {
        "torch": torch.get_rng_state(),
        "numpy": [
            str(kind),
            torch.from_numpy(np.asarray(keys, "int64")),
            int(position),
            int(has_gauss),
            float(gauss),
        ],
        "python": [version, list(internal), spare],
    }
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def restore_random_state(state: Mapping[str, Any]) -> None:
    """Put back what `random_state` returned."""
    import random

    import numpy as np

    torch.set_rng_state(state["torch"].cpu())
    kind, keys, position, has_gauss, gauss = state["numpy"]
    np.random.set_state((kind, keys.numpy().astype("uint32"), position, has_gauss, gauss))
    version, internal, spare = state["python"]
    random.setstate((version, tuple(internal), spare))
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"].cpu())
