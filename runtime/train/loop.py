"""The training loop: iterations, and what happens between them.

An *iteration* is one optimiser step. Everything that happens at a time happens after a number of *done*
iterations, so a training that goes on from a checkpoint meets the same times.
"""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import torch

from detc.dsl.diagnostics import DetError, error
from detc.runtime.metrics.headline import headline
from detc.runtime.train.checkpoint import (
    Checkpoint,
    random_state,
    restore_random_state,
    same_checkpoint,
    save_checkpoint,
    state_of,
)
from detc.runtime.train.ddp import World
from detc.runtime.train.log import Sink
from detc.runtime.train.progress import Display, duration
from detc.runtime.train.schedule import RatePlan, Timetable
from detc.runtime.train.schema import CheckNaN, EarlyStop
from detc.runtime.train.shadow import below, shadowed
from detc.runtime.train.step import Batch, LossRing, Step
from detc.runtime.weights.report import shorten

_SAVE_SECONDS = 60.0  # between two checkpoints at ends of epochs that no validation asks for
_LOSE_SECONDS = 600.0  # at most so much is lost in the middle of a long epoch
_IMPATIENT_SECONDS = 0.5  # a second Ctrl-C that follows faster is the same one


class Feed(Protocol):
    """Training batches of this process."""

    def __len__(self) -> int:
        """Batches an epoch."""
        ...

    def epoch(self, epoch: int, pipeline: str, start: int = 0) -> Iterator[Batch]:
        """The batches of an epoch from number `start` on; the same ones whenever it is asked."""
        ...


@dataclass
class Options:
    """What the recipe and the command line say about the loop."""

    accumulate: int = 1
    active: str = "train"
    log_every: int = 20
    best: str = "ap"
    keep: int = 0  # checkpoints of past validations that stay, besides best.pt and last.pt
    limit: int | None = None  # iterations, for a short trial; the schedule stays that of the whole training
    check: CheckNaN = field(default_factory=CheckNaN)
    patience: EarlyStop | None = None


@dataclass
class Progress:
    """Where a training is; a checkpoint holds it."""

    done: int = 0
    best: float = -math.inf
    best_at: int = 0
    stale: int = 0  # validations since the best
    validated: int = 0  # the iteration of the last validation; -1 where a checkpoint does not say

    def state(self) -> dict[str, Any]:
        """As plain values."""
        return dict(vars(self))


class Loop:
    """Runs a training from `progress` to its end. `run` returns why it stopped."""

    def __init__(
        self,
        *,
        program: Any,
        step: Step,
        feed: Feed,
        plan: RatePlan,
        timetable: Timetable,
        options: Options,
        out: Path,
        identity: tuple[str, str, tuple[str, ...]],
        validate: Callable[[], Mapping[str, float]] | None,
        world: World,
        display: Display,
        sinks: Sequence[Sink] = (),
    ) -> None:
        self.program, self.step, self.feed, self.plan, self.timetable = program, step, feed, plan, timetable
        self.options, self.out, self.identity, self.validate = options, out, identity, validate
        self.world, self.display, self.sinks = world, display, sinks
        self.progress = Progress()
        self.metrics: dict[str, float] = {}
        self.best_metrics: dict[str, float] = {}
        self.interrupted = False
        self._saved = time.monotonic()
        self._whole = True  # the state is that after `progress.done` iterations, and fit to be saved
        self._data_seconds = self._seconds = 0.0
        self._recent: list[torch.Tensor] = []
        self._images = 0
        on_host = step.device.type == "cpu"
        check_every = plan.clock.iterations(options.check.every)
        self.ring = LossRing(1 if on_host else max(1, min(options.log_every, check_every)), step.device)

    # --- the loop --------------------------------------------------------------------------------

    def run(self) -> str:
        """Train. Returns "done", "interrupted", "limit" or "stale" (no better for long)."""
        clock, progress = self.plan.clock, self.progress
        self.display.start(clock.total, progress.done)
        self.program.model.train()
        with self._signals(), self._nothing_lost():
            if progress.done and self.timetable.validates(progress.done) and self._owes_validation():
                self._validate()
            while progress.done < clock.total:
                epoch, offset = divmod(progress.done, clock.per_epoch)
                end = min((epoch + 1) * clock.per_epoch, self.timetable.next_switch(progress.done))
                reason = self._stretch(epoch, offset, end)
                if reason:
                    self._read()
                    self.save("last.pt")
                    self._log()
                    return reason
        return "done"

    def _stretch(self, epoch: int, offset: int, end: int) -> str | None:
        """Iterations of one epoch under one pipeline; a reason if the training stops here."""
        progress, options = self.progress, self.options
        active = self.timetable.value("data.active", options.active, progress.done)
        batches = self.feed.epoch(epoch, active, start=offset * options.accumulate)
        start, mark = progress.done, time.monotonic()
        while progress.done < end:
            group = list(islice(batches, options.accumulate))
            if not group:
                # The loader drops batches whose images are all broken: the clock goes on all the same.
                if progress.done == start and end - start > 1:
                    raise error("DET0710", f"epoch {epoch + 1} has no image that can be used")
                progress.done = end
                return self._between(end)
            self._data_seconds += time.monotonic() - mark
            self._whole = False
            lr = self.plan.apply(self.step.optimizer, progress.done)
            self.step.done = progress.done
            self.ring.add(self.step(group))
            progress.done += 1
            self._images += sum(len(b["image"]["pixels"]) for b in group) * self.world.size
            self._account(lr, group, last=progress.done == end)
            self._whole = True
            self._seconds += time.monotonic() - mark
            reason = self._between(end)
            if reason:
                return reason
            mark = time.monotonic()
        return None

    def _between(self, end: int) -> str | None:
        progress, options = self.progress, self.options
        validates = self.timetable.validates(progress.done) and self.validate is not None
        # A signal reaches the processes at different iterations: they agree on one.
        often = self.step.device.type == "cpu"  # next to a step on a CPU, asking costs nothing
        agree = often or progress.done % 10 == 0 or progress.done == end
        stop = self.world.any(self.interrupted) if agree else False
        if stop and not validates:
            return "interrupted"
        if validates:
            self._read()
            if self._due(_SAVE_SECONDS):
                self.save("last.pt")
            self._validate()
            if options.patience and progress.stale >= options.patience.patience:
                return "stale"
        elif agree and self._due(_SAVE_SECONDS if progress.done == end else _LOSE_SECONDS):
            self._read()
            self.save("last.pt")
        if stop:
            return "interrupted"
        if options.limit is not None and options.limit <= progress.done < self.plan.clock.total:
            return "limit"
        return None

    def _due(self, seconds: float) -> bool:
        # The first process's clock decides for all: saving gathers random states from every one.
        last = self.progress.done == self.plan.clock.total
        return bool(self.world.gather(last or time.monotonic() - self._saved > seconds)[0])

    def _owes_validation(self) -> bool:
        """True if the training was ended before or during the validation of the present iteration."""
        return self.validate is not None and 0 <= self.progress.validated < self.progress.done

    @contextmanager
    def _nothing_lost(self) -> Iterator[None]:
        """What ends the training between two steps (a broken file, a second Ctrl-C) leaves a checkpoint behind.

        Several processes would have to fail together to write one.
        """
        try:
            yield
        except BaseException:
            if self._whole and self.world.size == 1 and self.progress.done:
                with suppress(DetError):
                    self.save("last.pt")
                    self.display.say(f"saved after iteration {self.progress.done}: go on with `--resume`")
            raise

    # --- numbers ---------------------------------------------------------------------------------

    def _account(self, lr: float, group: Sequence[Batch], last: bool) -> None:
        done = self.progress.done
        logs = done % self.options.log_every == 0 or last
        if self.ring.full or logs:
            self._read(group)
        if not self._recent:
            return
        clock = self.plan.clock
        newest = self._recent[-1][-1]
        epoch = f"epoch {math.ceil(done / clock.per_epoch)}/{math.ceil(clock.total / clock.per_epoch)}"
        self.display.update(done, epoch, {"loss": float(newest.sum()), "lr": lr})
        if logs:
            self._log()

    def _log(self) -> None:
        if not self._recent:
            return
        means = torch.cat(self._recent).mean(0)
        self.world.mean_([means])  # each process has the losses of its part of the batch
        lr = self.plan.rate(max(self.progress.done - 1, 0))
        values = {"loss": float(means.sum())}
        values |= {n: float(v) for n, v in zip(self.ring.names, means, strict=True)}
        values |= {"lr": lr, "epoch": self.progress.done / self.plan.clock.per_epoch}
        if self._seconds > 0:
            values["images_per_second"] = self._images / self._seconds
            values["data_share"] = self._data_seconds / self._seconds
        if self.step.device.type == "cuda":
            values["memory_gib"] = torch.cuda.max_memory_allocated(self.step.device) / 2**30
        self._recent, self._images, self._seconds, self._data_seconds = [], 0, 0.0, 0.0
        for sink in self.sinks:
            sink.row("train", self.progress.done, values)

    def _read(self, group: Sequence[Batch] = ()) -> None:
        rows = self.ring.read()
        if not len(rows):
            return
        self._recent.append(rows)
        if not self.options.check.enabled or bool(rows.isfinite().all()):
            return
        self._whole = False
        first = int((~rows.isfinite()).any(1).nonzero()[0])
        values = dict(zip(self.ring.names, rows[first].tolist(), strict=True))
        words = ", ".join(f"loss `{n}` is {v}" for n, v in values.items() if not math.isfinite(v))
        iteration = self.progress.done - len(rows) + first + 1
        epoch = math.ceil(iteration / self.plan.clock.per_epoch)
        notes = [f"epoch {epoch}; no checkpoint of these weights was written"]
        images = [str(m["path"]) for batch in group for m in batch.get("meta", ())]
        if len(rows) == 1 and images:
            notes.append(f"images of the batch: {shorten(images, 8)}")
        raise error(
            "DET0711",
            f"{words} at iteration {iteration}",
            notes=notes,
            help="lower the learning rate, warm up for longer, set `clip`, or turn `amp` off",
        )

    # --- validation and checkpoints --------------------------------------------------------------

    def _validate(self) -> None:
        assert self.validate is not None
        progress, average = self.progress, self.step.average
        self._share_statistics()
        began = time.monotonic()
        # Validation must not change what training draws afterwards.
        held = random_state()
        with average.in_place() if average else nullcontext():
            self.metrics = dict(self.validate())
        restore_random_state(held)
        self.program.model.train()
        progress.validated = progress.done
        epoch = progress.done / self.plan.clock.per_epoch
        score = self.metrics.get(self.options.best, math.nan)
        margin = self.options.patience.min_delta if self.options.patience else 0.0
        better = score > progress.best + margin or (progress.best == -math.inf and not math.isnan(score))
        if better:
            progress.best, progress.best_at, progress.stale = score, progress.done, 0
            self.best_metrics = dict(self.metrics)
        else:
            progress.stale += 1
        if self.world.first:
            for sink in self.sinks:
                sink.row("val", progress.done, {**self.metrics, "epoch": epoch})
        words = headline(self.metrics)
        mark = "  (best so far)" if better else ""
        self.display.say(f"epoch {epoch:g}: {words}{mark}  [{duration(time.monotonic() - began)}]")
        kept = f"iter_{progress.done:07d}.pt" if self.options.keep else None
        self.save("best.pt" if better else None, "last.pt", kept)
        if self.options.keep and self.world.first:
            for old in sorted(self.out.glob("iter_*.pt"))[: -self.options.keep]:
                old.unlink()

    def _share_statistics(self) -> None:
        """Make batch-norm statistics those of all processes; as running means they add up, whenever it is done."""
        if self.world.size == 1:
            return
        buffers = [b for b in self.program.model.buffers() if b.is_floating_point()]
        self.world.mean_(buffers)
        if self.step.average:
            names = {n for n, b in self.program.model.named_buffers() if b.is_floating_point()}
            self.world.mean_([t for n, t in self.step.average.average.items() if n in names])

    def save(self, *names: str | None) -> None:
        """Write the present state under `names` in the output folder (the first process does)."""
        self._share_statistics()
        states = self.world.gather(random_state())
        wanted = [n for n in names if n]
        if self.world.first and wanted:
            checkpoint = self._checkpoint(states)
            save_checkpoint(self.out / wanted[0], checkpoint)
            for name in wanted[1:]:
                same_checkpoint(self.out / wanted[0], self.out / name)
        self._saved = time.monotonic()
        self.world.barrier()

    def _checkpoint(self, states: list[dict[str, Any]]) -> Checkpoint:
        average, model = self.step.average, self.program.model
        live = state_of(model)
        train: dict[str, Any] = {
            "progress": self.progress.state(),
            "best_metrics": self.best_metrics,
            "optimizer": self.step.optimizer.state_dict(),
            "scaler": self.step.precision.scaler.state_dict(),
            "random": states,
        }
        if self.step.shadows is not None:
            hidden = below(live, shadowed(self.program, saved=False))
            train["shadows"] = {"steps": self.step.shadows.steps, "tensors": {n: live.pop(n) for n in hidden}}
        if average is not None:
            train |= {"model": live, "average_steps": average.steps}
            live = live | average.average
        spec, run, classes = self.identity
        return Checkpoint(spec, run, classes, live, dict(self.metrics), train)

    def restore(self, checkpoint: Checkpoint) -> None:
        """Go on from what `save` wrote. The model must already hold `checkpoint.model`."""
        train = checkpoint.train
        average = self.step.average
        if average is not None and "model" in train:
            average.restore({"steps": train["average_steps"], "tensors": checkpoint.model})
        if self.step.shadows is not None:
            self.step.shadows.steps = int(train["shadows"]["steps"])
        self.step.optimizer.load_state_dict(train["optimizer"])
        self.step.precision.scaler.load_state_dict(train["scaler"])
        self.progress = Progress(**{"validated": -1, **train["progress"]})
        self.metrics, self.best_metrics = dict(checkpoint.metrics), dict(train["best_metrics"])
        restore_random_state(train["random"][self.world.rank % len(train["random"])])

    # --- signals ---------------------------------------------------------------------------------

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """The first Ctrl-C (or SIGTERM) ends the training after the present step, a second Ctrl-C at once."""
        asked = 0.0

        def ask(number: int, frame: object) -> None:
            nonlocal asked
            if self.interrupted:
                # With several processes one Ctrl-C arrives twice: from the terminal and from the launcher.
                if number == signal.SIGINT and time.monotonic() - asked > _IMPATIENT_SECONDS:
                    raise KeyboardInterrupt
                return
            self.interrupted, asked = True, time.monotonic()
            self.display.say("stopping after this step; press Ctrl-C again to stop at once")

        try:
            before = {n: signal.signal(n, ask) for n in (signal.SIGINT, signal.SIGTERM)}
        except ValueError:  # not the main thread: a notebook's or a server's; they stop it their own way
            before = {}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
