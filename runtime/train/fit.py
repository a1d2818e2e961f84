"""Fit a program to batches: put optimiser, schedule, average, precision and loop together and run them."""

from __future__ import annotations

import difflib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from detc.compiler.functional.normaliser import shared_by
from detc.compiler.spec import TrainSpec
from detc.dsl.diagnostics import error
from detc.runtime.train.checkpoint import Checkpoint, check_writable, read_checkpoint
from detc.runtime.train.ddp import World, synchronise
from detc.runtime.train.depthwise import native_depthwise
from detc.runtime.train.ema import WeightAverage
from detc.runtime.train.log import JsonLines, Sink, TensorBoard
from detc.runtime.train.loop import Feed, Loop, Options
from detc.runtime.train.moment import moment_of
from detc.runtime.train.norms import native_norms
from detc.runtime.train.optim import base_rate, build_optimizer
from detc.runtime.train.precision import Precision
from detc.runtime.train.progress import Display, Silent
from detc.runtime.train.schedule import RatePlan, make_clock, make_timetable
from detc.runtime.train.schema import EMA, CheckNaN, EarlyStop, Optimizer, Piece
from detc.runtime.train.shadow import live_state, shadows_of
from detc.runtime.train.step import Step
from detc.runtime.weights.load import load_exactly


@dataclass(frozen=True)
class TrainResult:
    """What came of a training.

    Attributes:
        out: the output folder.
        last, best: checkpoints; `best` is None if there was no validation.
        metrics, best_metrics: of the last and of the best validation.
        epochs, iterations: done in all, resumed ones included.
        seconds: of this call.
        stopped: "done", "interrupted", "limit" or "stale" (the EarlyStop hook).
    """

    out: Path
    last: Path
    best: Path | None
    metrics: dict[str, float] = field(default_factory=dict)
    best_metrics: dict[str, float] = field(default_factory=dict)
    epochs: float = 0.0
    iterations: int = 0
    seconds: float = 0.0
    stopped: str = "done"


def share_of_batch(spec: TrainSpec, processes: int) -> int:
    """Images of one forward pass of one process: the recipe's batch is what one optimiser step sees in all.

    Raises:
        DetError: DET0710 if the batch does not divide.
    """
    parts = processes * spec.accumulate
    if spec.batch % parts or spec.batch < parts:
        raise error(
            "DET0710",
            f"a batch of {spec.batch} images does not divide into {processes} processes"
            f" and {spec.accumulate} accumulated parts",
            help=f"choose a batch that is a multiple of {parts}, or another `accumulate` or `--procs`",
        )
    return spec.batch // parts


def place(program: Any, device: torch.device, channels_last: bool = True) -> None:
    """Move the model to the device, its convolutions into channels-last order, which they prefer."""
    layout = torch.channels_last if channels_last else torch.preserve_format
    # The graphs own constants besides the modules that they share.
    for graph in (program.model, program.train_graph, program.still_graph):
        graph.to(device=device, memory_format=layout)


def fit(
    program: Any,
    spec: TrainSpec,
    *,
    feed: Feed,
    validate: Callable[[], Mapping[str, float]] | None,
    out: Path,
    identity: tuple[str, str, tuple[str, ...]],
    device: torch.device,
    world: World,
    display: Display,
    active: str = "train",
    resume: bool = False,
    compile: bool = False,
    limit: int | None = None,
) -> TrainResult:
    """Train `program` as `spec` says.

    Args:
        program: a compiled program whose weights are initialised; see `compiler.program`.
        feed: batches of this process, of `share_of_batch` images each.
        validate: computes the metrics of the present weights, on every process; None never validates.
        out: receives last.pt, best.pt, spec.det, metrics.jsonl and TensorBoard events.
        identity: (resolved spec, run name, class names), for the checkpoints.
        active: the name of the pipeline to begin with.
        resume: go on from `out/last.pt`.
        compile: put the train graph through `torch.compile`.
        limit: stop when so many iterations are done in all; the schedule stays that of the whole training.

    Raises:
        DetError: DET0702 to DET0713, as the parts document; DET0902 if `last.pt` holds another model.
    """
    began = time.monotonic()
    if world.first:
        check_writable(out)
    checkpoint = _to_resume(out, identity[0], display) if resume else None
    if not resume and (out / "last.pt").exists():
        raise error(
            "DET0713",
            f"{out} already holds a training",
            help="go on with it with `--resume`, or choose another folder with `-o`",
        )
    world.barrier()
    channels_last = bool(spec.fields.get("channels_last", True))
    place(program, device, channels_last)
    if checkpoint is not None:
        load_exactly(program.model, live_state(checkpoint), str(checkpoint.path))
    optimizer = build_optimizer(spec, program.model, device)
    per_epoch = -(-len(feed) // spec.accumulate)
    clock = make_clock(spec.epochs, per_epoch)
    hooks = {type(h): h for h in spec.hooks.values()}
    ema, stop, check = hooks.get(EMA), hooks.get(EarlyStop), hooks.get(CheckNaN, CheckNaN())
    assert isinstance(check, CheckNaN) and isinstance(spec.optim, Optimizer)
    shadows = shadows_of(program)
    skip = shadows.names if shadows is not None else ()
    average = WeightAverage(program.model, ema, clock, skip) if isinstance(ema, EMA) else None
    try:
        precision = Precision.of(spec.amp, spec.fields.get("amp_dtype"), device)
    except ValueError as exc:
        raise error("DET0710", str(exc)) from exc
    precision.spare_predictions(program.train_graph)
    if precision.note:
        display.say(precision.note)
    forward, wrapped = _forward(program, device, world, compile)
    step = Step(
        forward,
        optimizer,
        precision,
        device,
        clip=spec.clip,
        average=average,
        synchronised=wrapped,
        channels_last=channels_last,
        views=tuple(getattr(program.spec, "views", ())) if hasattr(program, "spec") else (),
        shadows=shadows,
        moment=moment_of(program, clock, device),
    )
    primary = stop.metric if isinstance(stop, EarlyStop) else getattr(validate, "primary", "ap")
    pieces = {name: piece for name, piece in spec.lr.items() if isinstance(piece, Piece)}
    first = checkpoint.train["progress"]["done"] if checkpoint else 0
    sinks: list[Sink] = []
    if world.first:
        (out / "spec.det").write_text(identity[0], encoding="utf-8")
        sinks = [JsonLines(out / "metrics.jsonl", first), TensorBoard(out / "tensorboard", first)]
    loop = Loop(
        program=program,
        step=step,
        feed=feed,
        plan=RatePlan(base_rate(spec.optim, spec.batch), pieces, clock),
        timetable=make_timetable(spec, clock),
        options=Options(
            accumulate=spec.accumulate,
            active=active,
            log_every=min(int(spec.fields.get("log_every", 20)), per_epoch),
            best=str(spec.fields.get("best", primary)),
            keep=int(spec.fields.get("keep", 0)),
            limit=limit,
            check=check,
            patience=stop if isinstance(stop, EarlyStop) else None,
        ),
        out=out,
        identity=identity,
        validate=validate,
        world=world,
        display=display if world.first else Silent(),
        sinks=sinks,
    )
    if checkpoint is not None:
        loop.restore(checkpoint)
    try:
        with shared_by(world.size):
            stopped = loop.run()
    finally:
        display.stop()
        for sink in sinks:
            sink.close()
    best = out / "best.pt"
    return TrainResult(
        out=out,
        last=out / "last.pt",
        best=best if best.exists() else None,
        metrics=loop.metrics,
        best_metrics=loop.best_metrics,
        epochs=loop.progress.done / per_epoch,
        iterations=loop.progress.done,
        seconds=time.monotonic() - began,
        stopped=stopped,
    )


def _forward(program: Any, device: torch.device, world: World, compile: bool) -> tuple[Any, Any]:
    """The callable of a forward pass, and the DDP wrapper if there is one."""
    if compile:
        graph: Any = torch.compile(program.train_graph, fullgraph=True)
    elif device.type == "cpu":
        graph = native_depthwise(native_norms(program.train_graph))
    else:
        graph = program.train_graph
    if world.size == 1:
        return graph, None
    used = {id(p) for p in program.train_graph.parameters()}
    unused = any(p.requires_grad and id(p) not in used for p in program.model.parameters())
    wrapped = synchronise(graph, device, unused)
    return wrapped, wrapped


def _to_resume(out: Path, text: str, display: Display) -> Checkpoint:
    if not (out / "last.pt").exists():
        raise error(
            "DET0713", f"there is no training to resume in {out}", help="start one without `--resume`"
        )
    checkpoint = read_checkpoint(out / "last.pt")
    if "progress" not in checkpoint.train:
        raise error("DET0713", f"{out / 'last.pt'} holds no training state, only weights")
    if checkpoint.spec != text:
        lines = difflib.unified_diff(
            checkpoint.spec.splitlines(), text.splitlines(), "then", "now", n=0, lineterm=""
        )
        changed = [x for x in lines if x[:1] in "+-" and not x.startswith(("+++", "---"))]
        display.say("the spec has changed since this training began:")
        for line in changed[:10]:
            display.say(f"  {line}")
        if len(changed) > 10:
            display.say(f"  … and {len(changed) - 10} more lines")
    return checkpoint


def describe(spec: TrainSpec, program: Any, device: torch.device, world: World, per_epoch: int) -> list[str]:
    """What is about to be trained, in lines: sizes, the batch and learning rate in effect, the device."""
    assert isinstance(spec.optim, Optimizer)
    parameters = list(program.model.parameters())
    total = sum(p.numel() for p in parameters)
    frozen = sum(p.numel() for p in parameters if not p.requires_grad)
    share = share_of_batch(spec, world.size)
    clock = make_clock(spec.epochs, per_epoch)
    parts = [f"{share} images a pass"]
    parts += [f"{spec.accumulate} passes a step"] if spec.accumulate > 1 else []
    parts += [f"{world.size} processes"] if world.size > 1 else []
    where = (
        torch.cuda.get_device_name(device)
        if device.type == "cuda"
        else f"cpu, {torch.get_num_threads()} threads"
    )
    options = spec.optim.model_dump()
    options.pop("lr")
    shown = ", ".join(f"{k} {v}" for k, v in options.items())
    rate = base_rate(spec.optim, spec.batch)
    return [
        f"{total:,} parameters" + (f", {frozen:,} of them frozen" if frozen else "") + f"; {where}",
        f"batch {spec.batch} ({', '.join(parts)}); {per_epoch} iterations an epoch, {clock.total} in all",
        f"{type(spec.optim).__name__}: lr {rate:g} (written {spec.optim.lr}), {shown}",
    ]
