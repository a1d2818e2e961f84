"""Several sources in one data set: each batch holds a fixed number of images of each.

What a batch holds depends on (seed, epoch, number of the batch, batch size, world) alone. Images of sources with
truth make up `image` and `truth`; views hold the images of all sources whose pipelines make them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from detc.compiler.spec import DataSpec, NamedStep, Sampling
from detc.dsl.diagnostics import DetError, error
from detc.runtime.data.collate import collate
from detc.runtime.data.dataset import Batch, DetectionDataset, open_dataset
from detc.runtime.data.options import DataFields
from detc.runtime.data.pipeline import SampleError
from detc.runtime.data.records import Problem, Tally
from detc.runtime.data.sample import Sample

Place = tuple[int, int, int]  # source, number of the batch since the training began, index of the record


@dataclass
class MixedDataset:
    """Batches out of several data sets, which are called by the names of `sources`."""

    parts: dict[str, DetectionDataset]
    data: DataSpec

    @property
    def fields(self) -> DataFields:
        """The declaration's plain fields."""
        return next(iter(self.parts.values())).fields

    @property
    def tally(self) -> Tally:
        """What the filters of all sources dropped."""
        merged = Tally()
        for part in self.parts.values():
            merged.merge(part.tally)
        return merged

    @property
    def warnings(self) -> list[str]:
        """Of all sources."""
        return [w for part in self.parts.values() for w in part.warnings]

    def pipeline(self, name: str) -> None:
        """Make the pipelines ready that are in use while `name` is.

        Raises:
            DetError: DET0908 if there is none of that name.
        """
        for source, part in self.parts.items():
            part.pipeline(self.data.pipeline_of(source, name))

    def later(self, name: str) -> tuple[NamedStep, ...]:
        """The batch steps of the first source with truth."""
        for source in self.data.sources:
            if source.source.annotated:
                return self.parts[source.name].later(self.data.pipeline_of(source.name, name))
        return ()

    def __getitems__(self, items: Sequence[tuple[str, int, Place]]) -> Batch:
        """The batch of `items`; never raises for data's sake, see `Batch`."""
        problems: list[Problem] = []
        try:
            return self._batch(items, problems)
        except SampleError as fault:
            return Batch(None, (fault.problem,), fault.problem.error().diagnostics)
        except DetError as fault:
            return Batch(None, tuple(problems), fault.diagnostics)

    def _batch(self, items: Sequence[tuple[str, int, Place]], problems: list[Problem]) -> Batch:
        active = items[0][0]
        main: list[Sample] = []
        views: dict[str, list[Sample]] = {}
        owner: dict[str, tuple[DetectionDataset, str]] = {}  # which pipeline pads: the first that contributes
        for number, source in enumerate(self.data.sources):
            mine = [place for _, _, place in items if place[0] == number]
            if not mine:
                continue
            part, name = self.parts[source.name], self.data.pipeline_of(source.name, active)
            pipeline = part.pipeline(name)
            own, seen = pipeline.run_views([i for _, _, i in mine], mine[0][1], main=source.source.annotated)
            problems += pipeline.problems
            pipeline.problems = []
            if source.source.annotated:
                owner.setdefault("", (part, name))
                main += own
            for view, samples in seen.items():
                owner.setdefault(view, (part, name))
                views.setdefault(view, []).extend(samples)
        if not main:
            return Batch(None, tuple(problems))
        part, name = owner[""]
        align, bucket, fill = part.padding(name)
        data: dict[str, Any] = collate(main, align=align, bucket=bucket, fill=fill)
        if views:
            data["views"] = {
                v: owner[v][0].collate_view(owner[v][1], v, samples) for v, samples in views.items()
            }
        return Batch(data, tuple(problems))


@dataclass(frozen=True)
class MixedPlan:
    """How the images of several sources become batches; see `sampler.Plan`.

    Each source is gone through again and again, in another order each time.

    Attributes:
        counts: images of each source.
        shares: how many of each one batch of one rank holds.
        epoch: number of the source that an epoch goes through once; None: the one that takes longest.
    """

    counts: tuple[int, ...]
    shares: tuple[int, ...]
    seed: int = 0
    rank: int = 0
    world: int = 1
    epoch: int | None = None

    def __len__(self) -> int:
        lengths = [-(-n // (k * self.world)) for n, k in zip(self.counts, self.shares, strict=True)]
        return max(lengths) if self.epoch is None else lengths[self.epoch]

    def batches(self, epoch: int) -> list[list[Place]]:
        """This rank's batches of an epoch."""
        first = epoch * len(self)
        orders: dict[tuple[int, int], Any] = {}
        return [self._batch(first + b, orders) for b in range(len(self))]

    def _batch(self, number: int, orders: dict[tuple[int, int], Any]) -> list[Place]:
        found: list[Place] = []
        for source, (count, share) in enumerate(zip(self.counts, self.shares, strict=True)):
            start = number * share * self.world
            for k in range(self.rank, share * self.world, self.world):
                turn, at = divmod(start + k, count)
                if (source, turn) not in orders:
                    seeds = np.random.SeedSequence([self.seed, turn, source, 0x5EED])
                    orders[source, turn] = np.random.default_rng(seeds).permutation(count)
                found.append((source, number, int(orders[source, turn][at])))
        return found


def shares_of(sample: Sampling, batch: int) -> tuple[int, ...]:
    """Images of each source in a batch of one rank.

    Raises:
        DetError: DET0609 if the batch is no multiple of the ratio's sum.
    """
    total = sum(sample.ratio)
    if batch % total:
        raise error(
            "DET0609",
            f"a batch of {batch} images (of one process) does not divide into the ratio {list(sample.ratio)}",
            sample.origin,
            f"{total} images make one unit",
            help=f"choose a batch that is a multiple of {total}",
        )
    return tuple(n * (batch // total) for n in sample.ratio)


def open_mixture(data: DataSpec, *, seed: int = 0, share: tuple[int, int] = (0, 1)) -> MixedDataset:
    """Open the training images of every source.

    Raises:
        DetError: DET0605 if a source has a class that the data set does not list; see `open_dataset`.
    """
    parts = {}
    for number, source in enumerate(data.sources):
        names = source.source.read_classes() if source.source.annotated else None
        for name in names or ():
            if name not in data.classes:
                raise error(
                    "DET0605",
                    f"the source `{source.name}` has the class `{name}`, which is not in `classes`",
                    source.origin,
                    "this source",
                )
        own = replace(data, source=source.source, sources=(), sample=None)
        parts[source.name] = open_dataset(own, "train", train=True, seed=seed + 7919 * number, share=share)
    return MixedDataset(parts, data)


def mixed_plan(
    data: DataSpec, dataset: MixedDataset, batch: int, seed: int, rank: int, world: int
) -> MixedPlan:
    """The plan of a mixture's batches of `batch` images a rank."""
    sample = data.sample or Sampling((1,) * len(data.sources))
    names = [s.name for s in data.sources]
    return MixedPlan(
        tuple(len(dataset.parts[n]) for n in names),
        shares_of(sample, batch),
        seed,
        rank,
        world,
        names.index(sample.epoch) if sample.epoch is not None else None,
    )
