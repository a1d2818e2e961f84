"""Sources made of other sources: a part of one, one without its truth, one with other class names."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from pydantic import Field, model_validator

from detc.compiler.spec import DataSource
from detc.dsl.diagnostics import did_you_mean, error

if TYPE_CHECKING:
    from detc.runtime.data.records import Annotations


class _Wrapped(DataSource):
    of: DataSource

    @property
    def annotated(self) -> bool:
        """As the source inside."""
        return self.of.annotated

    def splits(self) -> list[str]:
        """The splits of the source inside."""
        return list(self.of.splits())

    def read_classes(self) -> list[str] | None:
        """The names of the source inside."""
        return self.of.read_classes()


class Part(_Wrapped):
    """Some of a source's training images, drawn by `seed`: `count` of them, or a `share`.

    `rest` takes those that the same draw leaves over. Other splits stay whole.
    """

    module = "std.data"
    count: int | None = Field(None, ge=1)
    share: float | None = Field(None, gt=0, lt=1)
    seed: int = 0
    rest: bool = False

    @model_validator(mode="after")
    def _one(self) -> Part:
        if (self.count is None) == (self.share is None):
            raise ValueError("a part has a `count` of images or a `share` of them")
        return self

    def open(self, split: str, classes: list[str] | None = None) -> Annotations:
        """The split, thinned out if it is `train`.

        Raises:
            DetError: DET0905 if there are fewer images than `count`, or none is left; see `FileSource.open`.
        """
        import numpy as np

        found: Annotations = self.of.open(split, classes)
        if split != "train":
            return found
        total = len(found.records)
        count = self.count if self.count is not None else round((self.share or 0) * total)
        if count > total or count < 1 or (self.rest and count == total):
            which = "the rest" if self.rest else f"{count} images"
            raise error("DET0905", f"{self.name}: the source has {total} images, so {which} cannot be taken")
        order = np.random.default_rng(np.random.SeedSequence([self.seed, 0x9A27])).permutation(total)
        chosen = sorted(order[count:] if self.rest else order[:count])
        return replace(found, records=[found.records[i] for i in chosen])


class Unlabelled(_Wrapped):
    """A source's images without their truth."""

    module = "std.data"

    @property
    def annotated(self) -> bool:
        """False: the truth stays closed."""
        return False

    def open(self, split: str, classes: list[str] | None = None) -> Annotations:
        """The images of the split; see `FileSource.open`."""
        found: Annotations = self.of.open(split, self.of.read_classes() or classes)
        return replace(found, classes=tuple(classes or ()), records=[r.bare() for r in found.records])


class Relabel(_Wrapped):
    """A source under other class names: `pairs` of [its name, the new name], `none` drops its objects.

    `keep` lists the (new) names that stay, the others are dropped; none keeps all.
    """

    module = "std.data"
    pairs: list[list[str | None]] = Field(default_factory=list)
    keep: list[str] | None = None

    @model_validator(mode="after")
    def _check(self) -> Relabel:
        for pair in self.pairs:
            if len(pair) != 2 or pair[0] is None:
                raise ValueError(f"a pair is [its name, the new name or none], not {pair}")
        return self

    def _mapped(self) -> dict[str, str | None]:
        """New names by the source's own.

        Raises:
            DetError: DET0605 if a pair names a class that the source does not have.
        """
        own = self.of.read_classes() or []
        given = {str(a): b for a, b in self.pairs}
        for name in given:
            if own and name not in own:
                raise error(
                    "DET0605",
                    f"the source has no class `{name}` to map{did_you_mean(name, own)}",
                    help=f"it has: {', '.join(own[:20])}",
                )
        names = {name: given.get(name, name) for name in own}
        if self.keep is not None:
            names = {a: b if b in self.keep else None for a, b in names.items()}
        return names

    def read_classes(self) -> list[str] | None:
        """The new names, each once."""
        own = self.of.read_classes()
        if own is None:
            return self.keep
        return list(dict.fromkeys(n for n in self._mapped().values() if n is not None)) or None

    def open(self, split: str, classes: list[str] | None = None) -> Annotations:
        """The split with labels of `classes`; see `FileSource.open`."""
        import numpy as np

        names = self._mapped()
        own = list(names)
        wanted = classes if classes is not None else self.read_classes() or []
        found: Annotations = self.of.open(split, own)
        where = {name: i for i, name in enumerate(wanted)}
        index = np.array([where.get(names[n] or "", -1) for n in own], np.int64)
        records = []
        for record in found.records:
            new = index[record.labels] if len(record.labels) else record.labels
            gone = new < 0
            for label in record.labels[gone]:
                found.tally.drop_box(f"class `{own[label]}` is mapped to none", record.path)
            records.append(record.chosen(~gone, new[~gone]))
        stuff = frozenset(int(index[i]) for i in found.stuff if index[i] >= 0)
        return replace(found, classes=tuple(wanted), records=records, stuff=stuff)


class Folder(DataSource):
    """All images below a folder, without truth: what a network learns from without labels."""

    module = "std.data"
    root: str

    @property
    def annotated(self) -> bool:
        """False: there are only images."""
        return False

    def splits(self) -> list[str]:
        """Training only."""
        return ["train"]

    def read_classes(self) -> list[str] | None:
        """None: images do not say."""
        return None

    def open(self, split: str, classes: list[str] | None = None) -> Annotations:
        """The images, by path.

        Raises:
            DetError: DET0903 if there is no such folder, or no image in it.
        """
        from detc.runtime.data.sources.folder import read_folder

        if split != "train":
            raise error("DET0903", f"{self.name} has no split `{split}`: it holds images without truth")
        return read_folder(self.root, tuple(classes or ()))
