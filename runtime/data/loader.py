"""Batches for training and evaluation.

    loader = make_loader(data, "train", 16, train=True, seed=0)
    loader.set_epoch(3, start=120)          # go on in the middle of an epoch, exactly
    for batch in loader: ...                # see `collate.collate`; tensors stay uint8 until the device
    loader.set_pipeline("late")             # from the next epoch on

What a batch holds depends on (seed, epoch, number of the batch, batch size, world), not on workers or on
what came before.
"""

from __future__ import annotations

import logging
import multiprocessing
import signal
import sys
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Sampler

from detc.compiler.spec import DataSpec
from detc.dsl.diagnostics import DetError, error
from detc.runtime.data.dataset import Batch, DetectionDataset, file_size, open_dataset
from detc.runtime.data.later import Later
from detc.runtime.data.mixture import MixedDataset, MixedPlan, mixed_plan, open_mixture
from detc.runtime.data.records import Problem, Tally
from detc.runtime.data.sampler import Plan

log = logging.getLogger("detc.data")
LIVES = 3  # times that workers are started without a batch from them


class _Feed(Sampler[list[Any]]):
    """Turns a plan's batches into items that carry pipeline and epoch: workers hold no state."""

    def __init__(self, plan: Plan | MixedPlan, pipeline: str, epoch: int) -> None:
        self.plan, self.pipeline, self.epoch, self.start = plan, pipeline, epoch, 0

    def __iter__(self) -> Iterator[list[Any]]:
        for batch in self.plan.batches(self.epoch)[self.start :]:
            yield [(self.pipeline, self.epoch, index) for index in batch]

    def __len__(self) -> int:
        return len(self.plan)


class Loader:
    """An iterable of batches; `len` is the number of batches of a whole epoch."""

    def __init__(
        self,
        dataset: DetectionDataset | MixedDataset,
        plan: Plan | MixedPlan,
        pipeline: str,
        epoch: int,
        workers: int,
    ) -> None:
        self.dataset: Any = dataset
        self.plan = plan
        self._feed = _Feed(plan, pipeline, epoch)
        fork = workers > 0 and sys.platform == "linux"  # forked workers share the image cache
        self._torch: DataLoader[Batch] = DataLoader(
            dataset,  # type: ignore[arg-type]
            batch_sampler=self._feed,
            collate_fn=_as_is,  # type: ignore[arg-type]
            num_workers=workers,
            persistent_workers=workers > 0,
            prefetch_factor=dataset.fields.prefetch if workers else None,
            multiprocessing_context=multiprocessing.get_context("fork") if fork else None,
            worker_init_fn=_begin_worker,
        )
        self._pin = torch.cuda.is_available()
        self._told: set[Problem] = set()
        self.tally: Tally = dataset.tally  # what was dropped so far

    @property
    def pipeline(self) -> str:
        """The pipeline in use."""
        return self._feed.pipeline

    def set_epoch(self, epoch: int, start: int = 0) -> None:
        """The next iteration goes over `epoch`, from its batch `start` on."""
        self._feed.epoch, self._feed.start = epoch, start

    def set_pipeline(self, name: str) -> None:
        """Use another pipeline from the next iteration on.

        Raises:
            DetError: DET0908 if there is none of that name.
        """
        self.dataset.pipeline(name)
        self._feed.pipeline = name

    def __len__(self) -> int:
        return len(self._feed)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Batches of the epoch.

        Workers that are ended from outside are started anew; the batches stay the same.

        Raises:
            DetError: DET0904 for a broken file if `on_error` is "stop", DET0907 if a step fails, DET0714 if
                workers die as soon as they are started.
        """
        later, epoch, number = self.dataset.later(self.pipeline), self._feed.epoch, self._feed.start - 1
        for batch in self._batches():
            number += 1
            for problem in batch.problems:
                self._tell(problem)
            if batch.fatal:
                raise DetError(*batch.fatal)
            if batch.data is None:
                continue
            data = _pin(batch.data) if self._pin else batch.data
            if later:
                data = {**data, "later": Later(later, (self.plan.seed, self.plan.rank, epoch, number))}
            yield data

    def _batches(self) -> Iterator[Batch]:
        first, lives = self._feed.start, LIVES
        while True:
            try:
                for batch in self._begun():
                    yield batch
                    first, lives = first + 1, LIVES
                return
            except RuntimeError as fault:
                dead = self._bury()
                if not dead:
                    raise
                lives -= 1
                if not lives:
                    raise error(
                        "DET0714",
                        f"the processes that prepare batches die again and again ({dead})",
                        help="lower `workers`, `prefetch` or `batch`, or do without: `workers = 0`",
                    ) from fault
                log.warning("a process that prepares batches has died (%s); starting anew", dead)
                self._feed.start = first

    def _begun(self) -> Iterator[Batch]:
        """The torch loader's iterator.

        torch would raise at a worker's death wherever this process is just then, in the middle of a step too.
        Without its handler it raises where a batch is awaited.
        """
        if threading.current_thread() is not threading.main_thread():
            return iter(self._torch)
        before = signal.getsignal(signal.SIGCHLD)
        try:
            return iter(self._torch)
        finally:
            signal.signal(signal.SIGCHLD, before)

    def _bury(self) -> str:
        """End the workers if one of them has died; returns how it did."""
        iterator = self._torch._iterator
        workers = getattr(iterator, "_workers", ())
        codes = {w.exitcode for w in workers if w.exitcode is not None}
        if codes:
            for worker in workers:  # one that waits for a lock that the dead one held would wait for ever
                worker.kill()
                worker.join()
            self._torch._iterator = None
        return ", ".join(sorted(map(_how, codes)))

    def _tell(self, problem: Problem) -> None:
        if problem not in self._told:
            self._told.add(problem)
            self.tally.problems.append(problem)
            self.tally.drop_image("the file is broken")
            log.warning("DET0904: %s: %s (skipped)", problem.file, problem.reason)


def _as_is(batch: Batch) -> Batch:
    return batch


def _begin_worker(worker: int) -> None:
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the training, which ends its workers


def _how(code: int) -> str:
    """How a process ended, from its exit code."""
    if code >= 0:
        return f"exit code {code}"
    name = signal.Signals(-code).name
    return f"{name}, perhaps for want of memory" if name == "SIGKILL" else name


def _pin(data: dict[str, Any]) -> dict[str, Any]:
    """Page-locked copies, which travel to the GPU without waiting."""

    def pinned(value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            return value.pin_memory()
        return {k: pinned(v) for k, v in value.items()} if isinstance(value, dict) else value

    return {key: pinned(part) for key, part in data.items()}


def make_loader(
    data: DataSpec,
    split: str,
    batch: int,
    *,
    train: bool,
    seed: int = 0,
    epoch: int = 0,
    workers: int | None = None,
    rank: int = 0,
    world: int = 1,
    drop_last: bool = False,
    quiet: bool = False,
) -> Loader:
    """Open a split and make its loader.

    Args:
        batch: images of one batch of one rank.
        train: shuffle, filter and use the active training pipeline; else the pipeline `val`.
        workers: processes; the declaration's `workers` if None.
        drop_last: training: drop the last, incomplete batch of an epoch instead of filling it up.
        quiet: do not log what the filters dropped.

    Raises:
        DetError: see `dataset.open_dataset`; DET0905 too if a training set has no whole batch.
    """
    mixed = train and bool(data.sources)
    share = (rank, world)
    dataset = (
        open_mixture(data, seed=seed, share=share)
        if mixed
        else open_dataset(data, split, train=train, seed=seed, share=share)
    )
    if isinstance(dataset, DetectionDataset) and train and drop_last and len(dataset) < batch * world:
        raise error(
            "DET0905",
            f"{len(dataset)} images make no batch of {batch * world}",
            help="lower `batch`",
        )
    if not quiet:
        for line in [*dataset.tally.lines(), *dataset.warnings]:
            log.warning("%s: %s", split, line)
        for problem in dataset.tally.problems:
            log.warning("DET0904: %s: %s (skipped)", problem.file, problem.reason)
    name = data.active if train else "val"
    dataset.pipeline(name)
    count = dataset.fields.workers if workers is None else workers
    if isinstance(dataset, MixedDataset):
        mixture = mixed_plan(data, dataset, batch, seed, rank, world)
        return Loader(dataset, mixture, name, epoch, count)
    group = None
    if train and dataset.fields.group == "shape" and _sizes_vary(dataset, name):
        group = np.array([int(w > h) for w, h in map(file_size, dataset.records)])
    plan = Plan(len(dataset), batch, train, seed, rank, world, drop_last, group)
    return Loader(dataset, plan, name, epoch, count)


def _sizes_vary(dataset: DetectionDataset, name: str) -> bool:
    """True if the pipeline's last `Pad` leaves batches of different sizes."""
    return dataset.padding(name)[1] > 1
