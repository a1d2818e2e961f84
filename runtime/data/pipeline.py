"""Runs the steps of a pipeline over a batch of images, every random choice fixed by (seed, epoch, image).

Steps go over the whole batch one after the other, so that a step that mixes images can take its partners from
the batch. What stands before the first random step may come from a cache.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from detc.compiler.spec import NamedStep, Size, Step
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
        on_error: "stop" raises at a broken image; "skip" notes it in `problems`, once.
    """

    name: str
    records: Sequence[Record]
    steps: Sequence[NamedStep]
    seed: int
    exact: bool
    on_error: str = "skip"
    cache: ImageCache | None = None
    problems: list[Problem] = field(default_factory=list)

    def __post_init__(self) -> None:
        plain = [s.step for s in self.steps]
        self._apply = [step.build() for step in plain]
        self._fixed = fixed_prefix(plain, self.exact)
        self._box = cached_box(plain, self.exact)
        self._known: dict[int, Sample] = {}
        self._broken: set[int] = set()

    def run(self, indices: Sequence[int], epoch: int) -> list[Sample]:
        """The finished samples of a batch; fewer than asked for if evaluation left broken ones out.

        Raises:
            SampleError: if an image is broken and `on_error` is "stop".
            DetError: DET0907 if a step cannot do its work; DET0905 if no usable image is left.
        """
        rngs = [self._rng(epoch, i, slot) for slot, i in enumerate(indices)]
        started = [self._start(i) for i in indices]
        samples = [s for s in started if s is not None]
        rngs = [r for r, s in zip(rngs, started, strict=True) if s is not None]
        return self._finish(samples, rngs, len(self.steps))

    def _finish(self, samples: list[Sample], rngs: list[np.random.Generator], stop: int) -> list[Sample]:
        """Run the steps from the first random one to `stop`."""
        for k in range(self._fixed, stop):
            before, samples = samples, []
            for slot, (sample, rng) in enumerate(zip(before, rngs, strict=True)):
                try:
                    samples.append(self._apply[k](sample, rng, self._drawer(k, slot, before, rng)))
                except ValueError as fault:
                    step = f"step `{self.steps[k].name}` of pipeline `{self.name}`"
                    raise error(
                        "DET0907", f"{step} failed on {sample.record.path}: {fault}", self.steps[k].origin
                    ) from fault
        return samples

    def _drawer(
        self, step: int, slot: int, batch: list[Sample], rng: np.random.Generator
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
                found += self._finish([partner] if partner is not None else [], [child], step)
            return found

        return draw

    def _rng(self, epoch: int, index: int, slot: int) -> np.random.Generator:
        return np.random.Generator(np.random.PCG64(np.random.SeedSequence([self.seed, epoch, index, slot])))

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
                sample = self._apply[k](sample, None, None)  # type: ignore[arg-type]
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


def fixed_prefix(steps: Sequence[Step], exact: bool) -> int:
    """How many steps at the start involve no chance (in evaluation: up to the first that moves pixels)."""
    count = 0
    for step in steps:
        if getattr(step, "random", True) or step.pads or (exact and step.geometric):
            break
        count += 1
    return count


def cached_box(steps: Sequence[Step], exact: bool) -> Size | None:
    """The box that the first random step fits every image into, if it does."""
    at = fixed_prefix(steps, exact)
    if exact or at == len(steps):
        return None
    fitted = getattr(steps[at], "fitted", None)
    return fitted() if fitted is not None else None
