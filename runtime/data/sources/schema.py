"""The sources that a `data` declaration may name (module `std.data`). Free of torch and numpy at import.

Paths of a split are relative to `root`; `root` is relative to the working directory. A split that is not
given does not exist (asking for it is an error that names those that do).
"""

from __future__ import annotations

from abc import abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from pydantic import BaseModel, ConfigDict, Field

from detc.compiler.spec import DataSource
from detc.dsl.diagnostics import did_you_mean, error

if TYPE_CHECKING:
    from detc.runtime.data.records import Annotations
    from detc.runtime.data.sources.mot import Sequence

SPLITS = ("train", "val", "test")


class SplitModel(BaseModel):
    """Where a split lies; a record in a spec."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class CocoSplit(SplitModel):
    """`images` is a folder, `ann` a COCO JSON file."""

    images: str = ""
    ann: str


class PanopticSplit(SplitModel):
    """`images` is a folder, `ann` a panoptic JSON file, `maps` the folder of its PNGs.

    By default the maps lie in a folder of the JSON file's name.
    """

    images: str = ""
    ann: str
    maps: str | None = None


class VocSplit(SplitModel):
    """`list` names the file of image names; `images` and `ann` are folders (the usual ones by default)."""

    list: str
    images: str = "JPEGImages/"
    ann: str = "Annotations/"


class YoloSplit(SplitModel):
    """`images` is a folder or a text file of paths; `labels` a folder (else paths say `labels`)."""

    images: str
    labels: str | None = None


class FileSource(DataSource):
    """What sources on a disk share."""

    module: ClassVar[str | None] = None
    root: str

    def path(self, *parts: str) -> Path:
        """A path below `root`; absolute parts stay."""
        return Path(self.root).expanduser().joinpath(*parts)

    def splits(self) -> list[str]:
        """The splits that are declared."""
        return [s for s in SPLITS if getattr(self, s, None) is not None]

    def require(self, split: str) -> None:
        """Refuse a split that was not declared.

        Raises:
            DetError: DET0903, naming the splits that there are.
        """
        if split not in self.splits():
            there = ", ".join(self.splits()) or "none"
            hint = did_you_mean(split, self.splits())
            raise error("DET0903", f"{self.name} has no split `{split}`{hint}; declared: {there}")

    def open(self, split: str, classes: list[str] | None = None) -> Annotations:
        """Read the annotations of a split; labels index `classes` (the source's own if None).

        Raises:
            DetError: DET0903 if a file or folder that the split names is missing or unusable as a whole.
        """
        self.require(split)
        names = classes if classes is not None else self.read_classes()
        if not names:
            raise error(
                "DET0903",
                f"{self.name}({self.root}) does not say which classes there are",
                help='write them: `set classes = ["cat", "dog"]`',
            )
        return self.read(split, tuple(names))

    @abstractmethod
    def read(self, split: str, classes: tuple[str, ...]) -> Annotations:
        """The format's own part of `open`."""


def _categories(source: FileSource) -> list[str] | None:
    from detc.runtime.data.sources.coco_header import read_categories

    for split in source.splits():
        path = source.path(getattr(source, split).ann)
        if path.is_file():
            return [name for _, name in sorted(read_categories(path).items())]
    return None


class CocoJson(FileSource):
    """COCO's `instances` JSON: boxes, polygons and run-length codes, crowds, areas, image ids."""

    module = "std.data"
    train: CocoSplit | None = None
    val: CocoSplit | None = None
    test: CocoSplit | None = None

    def read_classes(self) -> list[str] | None:
        """Category names by ascending id, from the first annotation file that exists."""
        return _categories(self)

    def read(self, split: str, classes: tuple[str, ...]) -> Annotations:
        """See `FileSource.open`."""
        from detc.runtime.data.sources.coco import read_coco

        where = getattr(self, split)
        return read_coco(self.path(where.ann), self.path(where.images), split, classes)


class PanopticJson(FileSource):
    """COCO's panoptic format: segments of things and of stuff, with PNGs of segment numbers.

    Categories without `isthing` are things.
    """

    module = "std.data"
    train: PanopticSplit | None = None
    val: PanopticSplit | None = None
    test: PanopticSplit | None = None

    def read_classes(self) -> list[str] | None:
        """Category names by ascending id, from the first annotation file that exists."""
        return _categories(self)

    def read(self, split: str, classes: tuple[str, ...]) -> Annotations:
        """See `FileSource.open`."""
        from detc.runtime.data.sources.panoptic import read_panoptic

        where = getattr(self, split)
        maps = where.ann.removesuffix(".json") if where.maps is None else where.maps
        return read_panoptic(self.path(where.ann), self.path(maps), self.path(where.images), split, classes)


class PascalVoc(FileSource):
    """Pascal VOC: an XML file an image, and lists of image names (`ImageSets/Main/train.txt`).

    `first` is the coordinate of the first pixel: 1 in VOC itself, 0 in most sets made with labelling tools.
    Objects marked difficult are not trained on and count neither way in evaluation, unless `difficult` is
    "keep". A list line may carry a second column, as VOC's lists by class do: -1 leaves the image out.
    """

    module = "std.data"
    train: VocSplit | None = None
    val: VocSplit | None = None
    test: VocSplit | None = None
    first: int = Field(1, ge=0, le=1)
    difficult: str = Field("ignore", pattern="^(ignore|keep)$")

    def read_classes(self) -> list[str] | None:
        """All object names in the annotations of the declared splits, sorted."""
        from detc.runtime.data.sources.voc import read_names

        return read_names(self)

    def read(self, split: str, classes: tuple[str, ...]) -> Annotations:
        """See `FileSource.open`."""
        from detc.runtime.data.sources.voc import read_voc

        return read_voc(self, split, classes)


class YoloTxt(FileSource):
    """YOLO text labels: `class cx cy w h`, or `class x1 y1 x2 y2 x3 y3 …` for polygons, as fractions.

    `data` names a `data.yaml` (or a text file with a name a line) that holds the class names. An image
    without a label file has no objects.
    """

    module = "std.data"
    train: YoloSplit | None = None
    val: YoloSplit | None = None
    test: YoloSplit | None = None
    data: str | None = None

    def read_classes(self) -> list[str] | None:
        """The names in the `data` file, by index; None if there is no such file."""
        from detc.runtime.data.sources.yolo import read_yaml_names

        if self.data is None or not self.path(self.data).is_file():
            return None
        return read_yaml_names(self.path(self.data))

    def read(self, split: str, classes: tuple[str, ...]) -> Annotations:
        """See `FileSource.open`."""
        from detc.runtime.data.sources.yolo import read_yolo

        return read_yolo(self, split, classes)


class MotSequences(FileSource):
    """MOTChallenge folders: each split is a folder of sequences with `img1/` and `gt/gt.txt`.

    Their frames are the images of the split. The class of a box is the number in the file's eighth column, from 1;
    boxes that the file marks as not counting are not trained on.
    """

    module = "std.data"
    train: str | None = None
    val: str | None = None
    test: str | None = None

    def read_classes(self) -> list[str] | None:
        """The files know numbers only."""
        return None

    def sequences(self, split: str) -> list[Sequence]:
        """The sequences of a split, by name."""
        from detc.runtime.data.sources.mot import find_sequences

        self.require(split)
        return find_sequences(self.path(getattr(self, split)))

    def read(self, split: str, classes: tuple[str, ...]) -> Annotations:
        """See `FileSource.open`."""
        from detc.runtime.data.sources.mot import read_mot_split

        return read_mot_split(self.path(getattr(self, split)), split, classes)


class Concat(DataSource):
    """Several sources as one. Class spaces map by name; image ids get the source's number in front."""

    module = "std.data"
    sources: list[DataSource] = Field(min_length=1)

    def splits(self) -> list[str]:
        """The splits that at least one source declares."""
        there = {s for source in self.sources for s in source.splits()}
        return [s for s in SPLITS if s in there]

    def read_classes(self) -> list[str] | None:
        """The union of the sources' names, in order of first appearance."""
        names: dict[str, None] = {}
        for source in self.sources:
            names.update(dict.fromkeys(source.read_classes() or []))
        return list(names) or None

    def open(self, split: str, classes: list[str] | None = None) -> Annotations:
        """Read the split of every source that declares it; see `FileSource.open`."""
        from detc.runtime.data.records import Annotations

        names = classes if classes is not None else self.read_classes()
        merged = Annotations(split, tuple(names or ()), [])
        for number, source in enumerate(self.sources):
            if split not in source.splits():
                continue
            part = source.open(split, names)
            for record in part.records:
                record.id = f"{number}:{record.id}"
            merged.records += part.records
            merged.tally.merge(part.tally)
            merged.stuff |= part.stuff
        return merged
