"""The resolved parts of an experiment: what the compiler hands to the runtime. Free of torch.

A run has a model (a graph, see `compiler.graph`), a data set, a training recipe and perhaps a target.
Steps, optimisers, schedules, hooks are pydantic primitives (`compiler.primitives`) with the name that the spec
gives them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from detc.compiler.primitives import Primitive
from detc.dsl.source import Origin


@dataclass(frozen=True)
class Quantity:
    """A number with a unit: ep, it, img, ms, s, px, GiB, MiB. Percentages become plain floats."""

    value: float
    unit: str

    def __str__(self) -> str:
        number = int(self.value) if float(self.value).is_integer() else self.value
        return f"{number}{self.unit}"


@dataclass(frozen=True)
class Rate:
    """`0.02 per 16img`: scales linearly with the batch; `per` is None for a plain number."""

    value: float
    per: Quantity | None = None

    def at(self, batch: int) -> float:
        """The value at a total batch of `batch` images."""
        return self.value if self.per is None else self.value * batch / self.per.value

    def __str__(self) -> str:
        return f"{self.value}" if self.per is None else f"{self.value} per {self.per}"


@dataclass(frozen=True)
class Size:
    """`1333x800`: width x height in pixels."""

    width: int
    height: int

    def __str__(self) -> str:
        return f"{self.width}x{self.height}"


class DataSource(Primitive):
    """A reader of annotated images (COCO, VOC, YOLO); concrete ones live in `runtime/data/sources`.

    The class is a torch-free schema; `open(split, classes)` builds the reader.
    """

    def open(self, split: str, classes: list[str] | None) -> Any:
        """Return a runtime dataset of `split` ("train", "val", "test")."""
        raise NotImplementedError

    def read_classes(self) -> list[str] | None:
        """Class names from the annotation files' header, or None if they are not there."""
        raise NotImplementedError


class Step(Primitive):
    """A data step. `reads`/`writes` are sample fields: image, boxes, labels, masks, size."""

    reads: ClassVar[tuple[str, ...]] = ("image",)
    writes: ClassVar[tuple[str, ...]] = ("image",)
    geometric: ClassVar[bool] = False  # moves pixels; illegal after a step with `pads = True`
    pads: ClassVar[bool] = False

    def build(self) -> Any:
        """The callable that does the work (imports numpy/torch)."""
        raise NotImplementedError


@dataclass(frozen=True)
class NamedStep:
    """A step of a pipeline with its name and place."""

    name: str
    step: Step
    origin: Origin | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True)
class DataSpec:
    """A resolved `data` declaration.

    `pipelines` holds at least "train" and "val" (and e.g. "late"); `active` is the training pipeline in use.
    """

    name: str
    classes: tuple[str, ...]
    source: DataSource
    pipelines: Mapping[str, tuple[NamedStep, ...]]
    active: str = "train"
    fields: Mapping[str, Any] = field(default_factory=dict)  # workers, on_error ("skip" | "stop"), …


@dataclass(frozen=True)
class Switch:
    """`at T { set path = value }`: from time `at` on, `data.active` etc. have other values."""

    at: Quantity
    path: str
    value: Any
    origin: Origin | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True)
class GroupRule:
    """`group "selector" { lr_scale = 0.1  weight_decay = 0 }`, with the parameters that it matches."""

    selector: str
    fields: Mapping[str, Any]
    origin: Origin | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True)
class TrainSpec:
    """A resolved `train` declaration; `runtime.train.schema` holds the optimisers, schedules and hooks."""

    name: str
    epochs: Quantity  # in ep or it
    batch: int
    optim: Primitive
    groups: tuple[GroupRule, ...] = ()
    lr: Mapping[str, Primitive] = field(default_factory=dict)
    hooks: Mapping[str, Primitive] = field(default_factory=dict)
    switches: tuple[Switch, ...] = ()
    clip: float | None = None
    amp: bool = False
    accumulate: int = 1
    validate_every: Quantity = Quantity(1, "ep")
    validate_late: Quantity | None = None  # after the last switch
    seed: int = 0
    fields: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class TargetSpec:
    """A resolved `target` declaration."""

    name: str = "default"
    opset: int = 18
    image: Size | None = None  # None: dynamic size
    batch: tuple[int, int] | None = None  # None: dynamic
    precision: str = "fp32"
    layout: str = "nchw"
    nms: str = "native"  # "native" | "NonMaxSuppression" | "topk" | "EfficientNMS_TRT"
    input: str = "uint8"  # "uint8" | "float32"
    stated: frozenset[str] = frozenset()  # the fields that the spec writes
