"""Evaluate a file's weights on a split of its data."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from detc.dsl.diagnostics import error


def evaluate_file(
    source: str | Path,
    *,
    weights: str | Path | None = None,
    run: str | None = None,
    sets: Sequence[str] = (),
    split: str = "val",
    device: str | None = None,
    batch: int = 16,
    workers: int = 0,
    limit: int | None = None,
) -> dict[str, float]:
    """COCO box metrics of a spec with weights, of a checkpoint or of a training's folder.

    Args:
        source: a `.det` file, a checkpoint, or the folder of a training.
        weights: a checkpoint; needed with a `.det` file whose model has no `from "…"`.
        run, sets: as in `detc.runtime.api.open_run`.
        split: a split that the data declaration has.
        device: "cpu", "cuda", …; the fastest there is by default.
        batch, workers: of the data loader.
        limit: evaluate only so many images.

    Returns:
        "ap", "ap50", …, and "ap/<class>" for every class.

    Raises:
        DetError: if the spec has errors, it has no data, or the weights do not fit.
    """
    from detc.compiler.program import build
    from detc.runtime.api import open_run
    from detc.runtime.device import choose_device
    from detc.runtime.load import find
    from detc.runtime.train.checkpoint import load_weights
    from detc.runtime.train.validate import evaluate
    from detc.runtime.weights.apply import load_stated

    path = find(Path(source).expanduser())
    resolved = open_run(path, run=run, sets=sets)
    if resolved.data is None:
        raise error("DET0601", f"{path} has no data to evaluate on", help="write `data = …` in the run")
    where = choose_device(device)
    program = build(resolved)
    if weights or path.suffix != ".det":
        load_weights(program, find(Path(weights).expanduser()) if weights else path)
    elif not load_stated(program):
        raise error(
            "DET0901",
            f"{path} says nothing of the weights to evaluate",
            help='give them with --weights, or write model = … from "…"',
        )
    numbers = dict(
        evaluate(program, resolved.data, split=split, device=where, batch=batch, workers=workers, limit=limit)
    )
    if resolved.model.states and limit is None:
        from detc.runtime.mot import evaluate_tracks

        numbers = {**numbers, **evaluate_tracks(program, resolved.data, split, str(where))}
    return numbers
