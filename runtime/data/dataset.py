"""The records of a split with its filters, as a torch map-style data set whose items are whole batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from detc.compiler.spec import DataSpec, NamedStep, fan_of
from detc.dsl.diagnostics import DetError, Diagnostic, error
from detc.runtime.data.cache import ImageCache, available_bytes
from detc.runtime.data.collate import collate
from detc.runtime.data.later import batch_steps
from detc.runtime.data.options import DataFields, options
from detc.runtime.data.pipeline import Pipeline, SampleError, cached_box, fixed_prefix
from detc.runtime.data.records import Annotations, Problem, Record, Tally
from detc.runtime.data.sample import Sample
from detc.runtime.data.steps.pad import Pad

Item = tuple[str, int, int]  # pipeline, epoch, index of the record


@dataclass(frozen=True)
class Batch:
    """What a worker hands over: a batch (None if every image of it was broken) and what went wrong."""

    data: dict[str, Any] | None
    problems: tuple[Problem, ...] = ()
    fatal: tuple[Diagnostic, ...] = ()


@dataclass
class DetectionDataset:
    """Images of a split, ready for pipelines.

    Attributes:
        records: those left after the filters.
        tally: what the filters dropped.
        fields: the declaration's plain fields.
        stuff: labels of classes whose objects are not counted; see `records.Annotations`.
        share: (rank, world) of the process whose batches these are.
    """

    split: str
    classes: tuple[str, ...]
    records: list[Record]
    tally: Tally
    fields: DataFields
    pipelines: dict[str, tuple[NamedStep, ...]]
    train: bool
    seed: int = 0
    warnings: list[str] = field(default_factory=list)
    stuff: frozenset[int] = frozenset()
    share: tuple[int, int] = (0, 1)

    def __post_init__(self) -> None:
        self._built: dict[str, Pipeline] = {}
        self._caches: dict[tuple[tuple[int, int] | None, int], ImageCache | None] = {}
        if self.fields.cache == "ram":
            for name in self._in_use():  # before workers are forked, so that they share the memory
                self._cache_for(name)

    def __len__(self) -> int:
        return len(self.records)

    def __getitems__(self, items: Sequence[Item]) -> Batch:
        """The batch of `items`, which share pipeline and epoch. Never raises for data's sake: see `Batch`."""
        name, epoch, _ = items[0]
        pipeline = self.pipeline(name)
        try:
            samples, views = pipeline.run_views([index for *_, index in items], epoch)
            problems, pipeline.problems = tuple(pipeline.problems), []
            if not samples:
                return Batch(None, problems)
            align, bucket, fill = self.padding(name)
            data = collate(samples, align=align, bucket=bucket, fill=fill)
            if views:
                data["views"] = {v: self.collate_view(name, v, made) for v, made in views.items()}
            return Batch(data, problems)
        except SampleError as fault:
            return Batch(None, (fault.problem,), fault.problem.error().diagnostics)
        except DetError as fault:
            return Batch(None, tuple(pipeline.problems), fault.diagnostics)

    def __getitem__(self, item: Item) -> Batch:
        return self.__getitems__([item])

    def pipeline(self, name: str) -> Pipeline:
        """The pipeline of that name over this split's records.

        Raises:
            DetError: DET0908 if the declaration has none of that name.
        """
        if name not in self._built:
            if name not in self.pipelines:
                raise error(
                    "DET0908", f"there is no pipeline `{name}`; there are {', '.join(self.pipelines)}"
                )
            self._built[name] = Pipeline(
                name,
                self.records,
                self.pipelines[name],
                self.seed,
                exact=not self.train,
                on_error=self.fields.on_error,
                share=self.share,
                cache=self._cache_for(name) if self.fields.cache == "ram" else None,
            )
        return self._built[name]

    def collate_view(self, name: str, view: str, samples: Sequence[Sample]) -> dict[str, Any]:
        """The batch of a view of a pipeline: `image`, `truth`, `meta`, and `matrix` [B, 3, 3] from the fan."""
        align, bucket, fill = self.padding(name, view)
        data = collate(samples, align=align, bucket=bucket, fill=fill)
        data["matrix"] = torch.tensor(np.stack([s.matrix for s in samples]), dtype=torch.float32)
        return data

    def later(self, name: str) -> tuple[NamedStep, ...]:
        """The steps of a pipeline that work on batches."""
        return batch_steps(self.pipelines[name])

    def padding(self, name: str, view: str | None = None) -> tuple[int, int, Any]:
        """(align, bucket, fill) of the batches of a pipeline (of a view), as the last `Pad` says."""
        steps = list(self.pipelines[name])
        fan = fan_of(steps)
        if view is not None and fan is not None:
            steps[fan[0] : fan[0] + 1] = fan[1].branches[view]
        pads = [s.step for s in steps if isinstance(s.step, Pad)]
        if not pads:
            return 1, 1, 0.0
        last = pads[-1]
        bucket = self.fields.bucket if self.train and last.size is None else 1
        return last.align or 1, bucket, last.fill

    def _in_use(self) -> list[str]:
        return [n for n in self.pipelines if n != "val"] if self.train else ["val"]

    def _cache_for(self, name: str) -> ImageCache | None:
        if not self.train:
            return None  # evaluation reads each file once an epoch, at full size
        steps = [s.step for s in self.pipelines[name]]
        box = cached_box(steps, exact=False)
        # A resize without chance comes before the cache, and it may enlarge.
        sizes = [getattr(step, "size", None) for step in steps[: fixed_prefix(steps, exact=False)]]
        enlarged = max((size.width * size.height for size in sizes if size is not None), default=0)
        key = ((box.width, box.height) if box else None, enlarged)
        if key not in self._caches:
            self._caches[key] = self._make_cache(*key)
        return self._caches[key]

    def _make_cache(self, box: tuple[int, int] | None, enlarged: int) -> ImageCache | None:
        if box is not None:
            bounds = [3 * box[0] * box[1]] * len(self.records)
        else:
            bounds = [3 * max(w * h, enlarged) for w, h in map(file_size, self.records)]
        room = available_bytes()
        if sum(bounds) > 0.5 * room:
            need = f"{sum(bounds) / 2**30:.1f} GiB of {room / 2**30:.1f} GiB"
            text = f'cache = "ram" would need {need}; not caching'
            self.warnings.append(text)
            return None
        return ImageCache(bounds)


def file_size(record: Record) -> tuple[int, int]:
    """(width, height) of an image, from its annotation or else its file's header; (0, 0) if unreadable."""
    if record.width and record.height:
        return record.width, record.height
    from PIL import Image

    try:
        with Image.open(record.path) as file:
            return file.size
    except OSError:
        return 0, 0


def open_dataset(
    data: DataSpec, split: str, *, train: bool, seed: int = 0, share: tuple[int, int] = (0, 1)
) -> DetectionDataset:
    """Read a split's annotations and apply the declaration's filters.

    Raises:
        DetError: DET0903 for missing files, DET0904 for a broken annotation if `on_error` is "stop",
            DET0905 if the filters leave no image, DET0605 if class spaces do not meet.
    """
    fields = options(data.fields)
    try:
        annotations: Annotations = data.source.open(split, list(data.classes))
    except DetError as fault:
        raise fault.at(data.origin, "read for this") from fault
    tally = annotations.tally
    if tally.problems and fields.on_error == "stop":
        raise DetError(*(p.diagnostic() for p in tally.problems))
    total = len(annotations.records) + len(tally.problems)
    tally.drop_image("their annotation is broken", len(tally.problems))
    records = annotations.records
    if train and fields.empty == "drop" and data.source.annotated:
        kept = [r for r in records if r.trainable.any()]
        crowded = sum(1 for r in records if len(r.labels) and not r.trainable.any())
        tally.drop_image("only crowds or difficult objects in them", crowded)
        tally.drop_image("no object in them", len(records) - len(kept) - crowded)
        records = kept
    if not records:
        notes = [f"kept 0 of {total}", *tally.lines()]
        raise error("DET0905", f"no images left in split `{split}` of {data.source.name}", notes=notes)
    pipelines = {name: tuple(steps) for name, steps in data.pipelines.items()}
    return DetectionDataset(
        split,
        data.classes,
        records,
        tally,
        fields,
        pipelines,
        train,
        seed,
        stuff=annotations.stuff,
        share=share,
    )
