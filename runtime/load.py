"""`detc.load`: a ready detector from a run's folder, a checkpoint, a spec or an ONNX file."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from detc.dsl.diagnostics import DetError, error

if TYPE_CHECKING:
    import torch

    from detc.compiler.experiments.runs import ResolvedRun
    from detc.runtime.detector import Detector

CHECKPOINTS = ("best.pt", "last.pt")


class RandomWeightsWarning(UserWarning):
    """A spec was loaded without weights: what it detects is noise."""


def load(
    source: str | Path,
    *,
    weights: str | Path | None = None,
    sets: Sequence[str] = (),
    run: str | None = None,
    device: str | torch.device | None = None,
    threads: int | None = None,
) -> Detector:
    """Load a detector.

    Args:
        source: the folder of a run (its best checkpoint is taken), a checkpoint (`.pt`), a spec (`.det`) or
            an ONNX file that detc compiled.
        weights: a checkpoint for a spec; without it the weights are those of the run's `model = M(…) from "…"`, or
            random, and a warning says so.
        sets: further edits of a spec, `"head.depth=3"`.
        run: which run of a spec that has several.
        device: where to put the weights; by default the GPU if there is one, for ONNX files the CPU.
        threads: intra-op threads of ONNX Runtime.

    Returns:
        A `torch.nn.Module` with `predict`.

    Raises:
        DetError: if the spec has errors, or the weights are missing, unreadable or of another model.
    """
    path = find(Path(source).expanduser())
    if path.suffix == ".onnx":
        from detc.runtime.onnx import load_onnx

        refuse_options(path, weights=weights, sets=sets, run=run)
        return load_onnx(path, device=str(device or "cpu"), threads=threads)
    if path.suffix == ".det":
        return from_spec(path, weights=weights, sets=sets, run=run, device=device)
    refuse_options(path, weights=weights, sets=sets, run=run)
    return from_checkpoint(path, device=device)


def find(path: Path) -> Path:
    """The file that a path means: a folder means its best checkpoint, else its last.

    Raises:
        DetError: DET0901 if there is none.
    """
    if path.is_dir():
        for name in CHECKPOINTS:
            if (path / name).exists():
                return path / name
        raise error(
            "DET0901",
            f"the folder {path} holds no checkpoint ({' or '.join(CHECKPOINTS)})",
            help="give the folder of a finished `detc run train`, a .pt, .onnx or .det file",
        )
    if not path.exists():
        raise error("DET0901", f"there is no file {path}")
    return path


def refuse_options(path: Path, **given: object) -> None:
    """A checkpoint and an ONNX file are complete: options that would change them are refused.

    Raises:
        ValueError: if any option is given.
    """
    wrong = [name for name, value in given.items() if value]
    if wrong:
        raise ValueError(
            f"{path.name} holds its own model and weights: `{'`, `'.join(wrong)}` goes with a .det file"
        )


def from_spec(
    path: Path,
    *,
    weights: str | Path | None,
    sets: Sequence[str],
    run: str | None,
    device: str | torch.device | None,
) -> Detector:
    """Build a spec's model, with weights or with a warning."""
    from detc.compiler.check import check

    result = check(str(path), sets=list(sets), run=run)
    if result.report.errors:
        raise DetError(*result.report.errors)
    resolved = result.run(run)
    if weights is None and resolved.weights is None:
        text = f"{path} is loaded without weights: they are random"
        warnings.warn(text, RandomWeightsWarning, stacklevel=3)
    return assemble(resolved, weights, str(path), device)


def from_checkpoint(path: Path, *, device: str | torch.device | None) -> Detector:
    """Rebuild a detector from a checkpoint alone: it holds its resolved spec."""
    from detc.compiler.check import check
    from detc.runtime.train.checkpoint import read_checkpoint

    checkpoint = read_checkpoint(path)
    result = check(checkpoint.spec)
    if result.report.errors:
        raise DetError(*result.report.errors)
    run = result.run(checkpoint.run or None)
    run.classes = run.classes or checkpoint.classes
    return assemble(run, path, str(path), device)


def assemble(
    run: ResolvedRun, weights: str | Path | None, name: str, device: str | torch.device | None
) -> Detector:
    """Build a resolved run, load weights, put it on a device, deploy it."""
    from detc.compiler.program import build
    from detc.runtime.detector import Detector
    from detc.runtime.device import choose_device
    from detc.runtime.train.checkpoint import load_weights
    from detc.runtime.weights.apply import load_stated

    where = choose_device(device)
    program = build(run)
    if weights is not None:
        load_weights(program, find(Path(weights).expanduser()))
    else:
        load_stated(program)
    program.model.eval()
    count = sum(p.numel() for p in program.model.parameters())
    deployed = program.deploy(run.target)
    return Detector(deployed, run.classes, run, name=name, parameter_count=count).to(where)
