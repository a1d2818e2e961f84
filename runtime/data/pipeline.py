"""Runs the steps of a pipeline over a batch of images, every random choice fixed by (seed, epoch, image).

Steps go over the whole batch one after the other, so that a step that mixes images can take its partners from
the batch. What stands before the first random step may come from a cache.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from detc.compiler.spec import NamedStep, PipelineStep, Size, Step, fan_of
from detc.dsl.diagnostics import error
from detc.runtime.data.cache import ImageCache
from detc.runtime.data.mixing import fit
from detc.runtime.data.records import Problem, Record
from detc.runtime.data.sample import Sample
from detc.runtime.images import ImageError


class SampleError(ValueError):
    """An image or its annotation is broken."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(f"{problem.file}: {problem.reason}")
        self.problem = problem


@dataclass
class Pipeline:
    """Steps over the records of a data set.

    Attributes:
        name: the pipeline's, for messages.
        exact: evaluation: pixels become float before the first resize, which is then the one that a
            deployed graph computes; nothing is cached but the decoded file; broken images are left out.
            In training a broken image is replaced by the next one.
        share: (rank, world); the images of a batch are dealt to the ranks in turn, so random choices are those
            of one process with all of it.
        on_error: "stop" raises at a broken image; "skip" notes it in `problems`, once.
    """

    name: str
    records: Sequence[Record]
    steps: Sequence[NamedStep]
    seed: int
    exact: bool
    on_error: str = "skip"
    cache: ImageCache | None = None
    share: tuple[int, int] = (0, 1)
    problems: list[Problem] = field(default_factory=list)

    def __post_init__(self) -> None:
        steps = [s for s in self.steps if s.step.on == "sample"]
        plain = [s.step for s in steps]
        self._fixed = fixed_prefix(plain, self.exact)
        self._box = cached_box(plain, self.exact)
        # The ways through the pipeline: that of the image itself, and one for each view of the fan.
        fan = fan_of(steps)
        self._fork = len(steps) if fan is None else fan[0]
        before, after = steps[: self._fork], steps[self._fork + 1 :]
        self._main = [_Applied(s) for s in (*before, *after)]
        branches = {} if fan is None else fan[1].branches
        self._views = {v: [_Applied(s) for s in (*before, *branch, *after)] for v, branch in branches.items()}
        self._known: dict[int, Sample] = {}
        self._broken: set[int] = set()

    def run(self, indices: Sequence[int], epoch: int) -> list[Sample]:
        """The finished samples of a batch, without their views; see `run_views`."""
        return self.run_views(indices, epoch)[0]

    def run_views(
        self, indices: Sequence[int], epoch: int, *, main: bool = True
    ) -> tuple[list[Sample], dict[str, list[Sample]]]:
        """The finished samples of a batch, and its views by name, of the same images in the same order.

        Fewer than asked for if evaluation left broken ones out. Without `main` only the views are made. The
        `matrix` of a view begins at the fan.

        Raises:
            SampleError: if an image is broken and `on_error` is "stop".
            DetError: DET0907 if a step cannot do its work; DET0905 if no usable image is left.
        """
        rngs = [self._rng(epoch, i, slot) for slot, i in enumerate(indices)]
        started = [self._start(i) for i in indices]
        samples = [s for s in started if s is not None]
        rngs = [r for r, s in zip(rngs, started, strict=True) if s is not None]
        if not self._views:
            return self._finish(self._main, samples, rngs, self._fixed, len(self._main)), {}
        samples = self._finish(self._main, samples, rngs, self._fixed, self._fork)
        views = {}
        for number, (view, way) in enumerate(self._views.items()):
            origin = [replace(s, matrix=np.eye(3)) for s in samples]
            own = [
                np.random.Generator(
                    np.random.PCG64(np.random.SeedSequence([self.seed, epoch, i, self._place(slot), number]))
                )
                for slot, i in enumerate(indices)
            ]
            views[view] = self._finish(way, origin, own, self._fork, len(way))
        done = self._finish(self._main, samples, rngs, self._fork, len(self._main)) if main else []
        return done, views

    def _finish(
        self,
        way: list[_Applied],
        samples: list[Sample],
        rngs: list[np.random.Generator],
        start: int,
        stop: int,
    ) -> list[Sample]:
        """Run the steps of a way from `start` to `stop`."""
        for k in range(start, stop):
            before, samples = samples, []
            for slot, (sample, rng) in enumerate(zip(before, rngs, strict=True)):
                try:
                    samples.append(way[k].apply(sample, rng, self._drawer(way, k, slot, before, rng)))
                except ValueError as fault:
                    item = way[k].item
                    step = f"step `{item.name}` of pipeline `{self.name}`"
                    raise error(
                        "DET0907", f"{step} failed on {sample.record.path}: {fault}", item.origin
                    ) from fault
        return samples

    def _drawer(
        self, way: list[_Applied], step: int, slot: int, batch: list[Sample], rng: np.random.Generator
    ) -> Callable[..., list[Sample]]:
        """See `steps.base.Draw`."""

        def draw(count: int, cache: int = 0) -> list[Sample]:
            pool = [(slot + 1 + k) % len(batch) for k in range(min(cache, len(batch) - 1))]
            if len(pool) >= count:
                return [batch[int(i)] for i in rng.choice(pool, count, replace=False)]
            found = []
            for _ in range(count):
                partner = self._start(int(rng.integers(len(self.records))))
                child = np.random.Generator(np.random.PCG64(int(rng.integers(1 << 62))))
                partners = [partner] if partner is not None else []
                found += self._finish(way, partners, [child], self._fixed, step)
            return found

        return draw

    def _rng(self, epoch: int, index: int, slot: int) -> np.random.Generator:
        seeds = np.random.SeedSequence([self.seed, epoch, index, self._place(slot)])
        return np.random.Generator(np.random.PCG64(seeds))

    def _place(self, slot: int) -> int:
        """A place in this rank's batch as one in the batch of all."""
        rank, world = self.share
        return slot * world + rank

    def _start(self, index: int) -> Sample | None:
        """A record after the steps that involve no chance; the next one's in the place of a broken one."""
        for k in range(len(self.records)):
            at = (index + k) % len(self.records)
            if at not in self._broken:
                try:
                    return self._cached(at) if self.cache is not None else self._prefix(at)
                except SampleError as fault:
                    if self.on_error == "stop":
                        raise
                    self._broken.add(at)
                    self.problems.append(fault.problem)
            if self.exact:
                return None
        raise error("DET0905", "no usable image is left: every file of the split is broken")

    def _prefix(self, index: int) -> Sample:
        sample = Sample(self.records[index])
        for k in range(self._fixed):
            try:
                sample = self._main[k].apply(sample, None, None)
            except ImageError as fault:
                raise SampleError(Problem(fault.name, fault.reason)) from fault
            except ValueError as fault:
                raise SampleError(Problem(sample.record.path, str(fault))) from fault
        return sample.with_image(sample.image.float()) if self.exact else sample

    def _cached(self, index: int) -> Sample:
        """The prefix' result with pixels in the cache; each process computes it once."""
        known = self._known.get(index)
        if known is None:
            assert self.cache is not None
            sample = self._prefix(index)
            if self._box is not None:
                sample = sample.resize(*fit(sample.height, sample.width, self._box.height, self._box.width))
            known = self._known[index] = sample.with_image(self.cache.put(index, sample.image))
        return known


class _Applied:
    """A step or a choice with the function that does its work."""

    def __init__(self, item: NamedStep) -> None:
        self.item = item
        self.apply: Callable[..., Sample] = _function(item.step)


def _function(step: PipelineStep) -> Callable[..., Sample]:
    if isinstance(step, Step):
        made: Callable[..., Sample] = step.build()
        return made
    branches = [[_function(s.step) for s in steps] for steps in step.branches.values()]
    total = sum(step.weights) if step.weights is not None else 1.0
    shares = None if step.weights is None else [w / total for w in step.weights]

    def choose(sample: Sample, rng: np.random.Generator, draw: Any) -> Sample:
        for apply in branches[int(rng.choice(len(branches), p=shares))]:
            sample = apply(sample, rng, draw)
        return sample

    return choose


def fixed_prefix(steps: Sequence[PipelineStep], exact: bool) -> int:
    """How many steps at the start involve no chance (in evaluation: up to the first that moves pixels)."""
    count = 0
    for step in steps:
        if getattr(step, "random", True) or step.pads or (exact and step.geometric):
            break
        count += 1
    return count


def cached_box(steps: Sequence[PipelineStep], exact: bool) -> Size | None:
    """The box that the first random step fits every image into, if it does."""
    at = fixed_prefix(steps, exact)
    if exact or at == len(steps):
        return None
    fitted = getattr(steps[at], "fitted", None)
    return fitted() if fitted is not None else None
