"""`train`: from a resolved run to a trained detector."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from detc.compiler.spec import DataSpec, TrainSpec
from detc.dsl.diagnostics import error
from detc.runtime.device import choose_device
from detc.runtime.malloc import keep_large_blocks
from detc.runtime.metrics.headline import headline
from detc.runtime.train import ddp
from detc.runtime.train.fit import TrainResult, describe, fit, share_of_batch
from detc.runtime.train.log import draw_curves, read_rows, write_summary
from detc.runtime.train.progress import Display, Silent, duration, make_display
from detc.runtime.weights.apply import initialise, sources_of

log = logging.getLogger("detc.train")


def train(
    run: Any,
    *,
    out: Path | str,
    device: str | None = None,
    procs: int = 1,
    resume: bool = False,
    init: str | None = None,
    weights_dir: Path | str | None = None,
    compile: bool = False,
    max_iterations: int | None = None,
    workers: int | None = None,
    draw: int = 8,
    plain: bool | None = None,
    aside: bool = False,
    build: Callable[[Any], Any] | None = None,
) -> TrainResult:
    """Train the model of a resolved run on its data, by its recipe.

    Args:
        run: a `ResolvedRun` with model, data and train; see `compiler.check`.
        out: the output folder: last.pt, best.pt, spec.det, metrics.jsonl, TensorBoard events, curves.png,
            drawings of predictions.
        device: "cpu", "cuda", "cuda:1", …; None takes a GPU if there is one.
        procs: processes on this machine (DDP). Started by torchrun itself, the function joins its processes.
        resume: go on from `out/last.pt`, exactly.
        init: None for the weights that the spec names, "random" for none, else a file to start from.
        weights_dir: a folder that is searched first for weights that the spec names.
        compile: put the train graph through `torch.compile`.
        max_iterations: stop when so many iterations are done in all (the schedule stays as written).
        workers: processes that prepare batches; the data declaration's number if None.
        draw: how many validation images to draw at the end.
        plain: True prints lines, False draws a bar; None decides by the terminal.
        aside: progress goes to standard error.
        build: makes a program of a run; `compiler.program.build` if None. Must pickle if `procs` > 1.

    Raises:
        DetError: DET0702 and DET0710 to DET0714 of this package, DET0901, DET0902, DET0911 and DET0912 of the
            weights, DET0903 to DET0908 of the data.
    """
    if run.data is None or run.train is None:
        lacking = "data" if run.data is None else "train"
        raise error("DET0710", f"run `{run.name}` has no `{lacking}`", help=f"add `{lacking} = …` to the run")
    job = _Job(
        run,
        Path(out),
        device,
        resume,
        init,
        Path(weights_dir) if weights_dir is not None else None,
        compile or bool(run.train.fields.get("compile", False)),
        max_iterations,
        workers,
        draw,
        plain,
        aside,
        build,
    )
    if procs > 1 and not ddp.launched():
        result: TrainResult = ddp.launch(_train_process, (job,), procs)
        return result
    return _train_process(job)


@dataclass(frozen=True)
class _Job:
    """The arguments of `train`, on their way to a process."""

    run: Any
    out: Path
    device: str | None
    resume: bool
    init: str | None
    weights_dir: Path | None
    compile: bool
    limit: int | None
    workers: int | None
    draw: int
    plain: bool | None
    aside: bool
    build: Callable[[Any], Any] | None


def set_seeds(seed: int, rank: int) -> None:
    """Seed all generators of this process; each process draws its own samples."""
    import random

    import numpy as np

    random.seed(seed + rank)
    np.random.seed((seed + rank) % 2**32)
    torch.manual_seed(seed + rank)


def _train_process(job: _Job) -> TrainResult:
    keep_large_blocks()
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    device = choose_device(job.device, local_rank, code="DET0710")
    if device.type == "cuda":
        torch.cuda.set_device(device)
    if device.type != "cpu":
        torch.backends.cudnn.benchmark = True
        return _train_on(job, device)
    # Denormal numbers are a hundred times slower than others, and mean nothing here. Whoever called `train`
    # from a program of their own gets them back.
    torch.set_flush_denormal(True)
    try:
        return _train_on(job, device)
    finally:
        torch.set_flush_denormal(False)


def _train_on(job: _Job, device: torch.device) -> TrainResult:
    from detc.runtime.train.validate import Validator

    run = job.run
    world = ddp.join(device)
    display: Display = make_display(job.plain, aside=job.aside) if world.first else Silent()
    spec: TrainSpec = run.train
    data: DataSpec = run.data
    set_seeds(spec.seed, 0)  # the same initial weights in every process
    program = (job.build or _build)(run)
    if not job.resume:
        for report in initialise(program, sources_of(run), weights_dir=job.weights_dir, init=job.init):
            for line in report.lines():
                display.say(line)
    set_seeds(spec.seed, world.rank)
    feed = LoaderFeed(data, share_of_batch(spec, world.size), spec.seed, world, job.workers)
    per_epoch = -(-len(feed) // spec.accumulate)
    for line in describe(spec, program, device, world, per_epoch):
        display.say(line)
    validate = Validator(
        program,
        data,
        device=device,
        batch=feed.batch,
        workers=job.workers,
        world=world,
        channels_last=bool(spec.fields.get("channels_last", True)),
    )
    result = fit(
        program,
        spec,
        feed=feed,
        validate=validate,
        out=job.out,
        identity=(run.text, run.name, tuple(run.classes)),
        device=device,
        world=world,
        display=display,
        active=data.active,
        resume=job.resume,
        compile=job.compile,
        limit=job.limit,
    )
    if world.first:
        _finish(job, result, device, display)
    world.barrier()
    return result


def _build(run: Any) -> Any:
    from detc.compiler.program import build

    return build(run)


class LoaderFeed:
    """Training batches of this process, out of the data's loader."""

    def __init__(self, data: DataSpec, batch: int, seed: int, world: ddp.World, workers: int | None) -> None:
        from detc.runtime.data.loader import make_loader

        self.batch = batch
        self._loader = make_loader(
            data,
            "train",
            batch,
            train=True,
            seed=seed,
            workers=workers,
            rank=world.rank,
            world=world.size,
            quiet=not world.first,
        )

    def __len__(self) -> int:
        return len(self._loader)

    def epoch(self, epoch: int, pipeline: str, start: int = 0) -> Iterator[dict[str, Any]]:
        """See `loop.Feed`."""
        self._loader.set_pipeline(pipeline)
        self._loader.set_epoch(epoch, start)
        return iter(self._loader)


def _finish(job: _Job, result: TrainResult, device: torch.device, display: Display) -> None:
    """Curves, drawings and the last words; by the first process."""
    if result.stopped == "interrupted":
        display.say(f"stopped at epoch {result.epochs:.4g}; go on with `--resume` (from {result.last})")
        return
    write_summary(result)
    draw_curves(read_rows(result.out / "metrics.jsonl"), result.out / "curves.png")
    if job.draw and result.best is not None:
        folder = result.out / "drawings"
        count = _draw(job, result.best, device, folder)
        display.say(f"drawings of {count} validation images, annotated beside found: {folder}")
    why = {"stale": " (no better for long)", "limit": " (as many iterations as asked for)"}.get(
        result.stopped, ""
    )
    display.say(f"{result.epochs:.4g} epochs in {duration(result.seconds)}{why}")
    if result.best is not None and headline(result.best_metrics):
        display.say(f"best: {headline(result.best_metrics)}  {result.best}")
    display.say(f"last: {result.last}")


def _draw(job: _Job, weights: Path, device: torch.device, folder: Path) -> int:
    from detc.runtime.gallery import gallery, save_gallery
    from detc.runtime.load import assemble

    detector = assemble(job.run, weights, str(weights), device)
    data: DataSpec = job.run.data
    records = data.source.open("val", list(data.classes)).records
    return len(save_gallery(gallery(detector, records, limit=job.draw), folder))


def override(run: Any, **fields: Any) -> Any:
    """A run whose recipe has other values, e.g. `override(run, epochs=Quantity(2, "ep"))`."""
    return replace(run, train=replace(run.train, **fields))
