"""The resolved parts of an experiment: what the compiler hands to the runtime. Free of torch.

A run has a model (a graph, see `compiler.graph`), a data set, a training recipe and perhaps a target.
Steps, optimisers, schedules, hooks are pydantic primitives (`compiler.primitives`) with the name that the spec
gives them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Union

from pydantic import Field

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


class Follow(Primitive):
    """Base of the rules by which a shadow node follows another; see `compiler.elaboration.shadow`.

    saved: whether checkpoints to predict with hold the shadow's weights. What `--resume` needs is always kept.
    """

    saved: bool = Field(True, kw_only=True)


class DataSource(Primitive):
    """A reader of images (COCO, VOC, YOLO, a folder); concrete ones live in `runtime/data/sources`.

    The class is a torch-free schema; `open(split, classes)` builds the reader.
    """

    @property
    def annotated(self) -> bool:
        """Whether its images come with their truth."""
        return True

    def splits(self) -> list[str]:
        """The splits that are declared."""
        return []

    def open(self, split: str, classes: list[str] | None) -> Any:
        """Return a runtime dataset of `split` ("train", "val", "test")."""
        raise NotImplementedError

    def read_classes(self) -> list[str] | None:
        """Class names from the annotation files' header, or None if they are not there."""
        raise NotImplementedError


class Step(Primitive):
    """A data step. `reads`/`writes` are sample fields: image, boxes, labels, masks, size.

    on: "sample" works on one image after the other, in the processes that prepare batches; "batch" works on
        the finished batch, on the device that trains (steps that say `batched` can).
    """

    reads: ClassVar[tuple[str, ...]] = ("image",)
    writes: ClassVar[tuple[str, ...]] = ("image",)
    geometric: ClassVar[bool] = False  # moves pixels; illegal after a step with `pads = True`
    pads: ClassVar[bool] = False
    loads: ClassVar[bool] = False  # brings a field from the file: what was done to it before is lost
    draws: ClassVar[int] = 0  # how many other images it mixes in
    batched: ClassVar[bool] = False  # has `on_batch`
    on: Literal["sample", "batch"] = Field("sample", kw_only=True)

    def build(self) -> Any:
        """The callable that does the work (imports numpy/torch)."""
        raise NotImplementedError


@dataclass(frozen=True)
class ChoiceBlock:
    """`choice scale { small: …  large { … } }`: one branch is drawn for each image.

    What it reads, writes and moves is what any of its steps does.
    """

    branches: Mapping[str, tuple[NamedStep, ...]]
    weights: tuple[float, ...] | None = None  # none: evenly
    pads: ClassVar[bool] = False
    random: ClassVar[bool] = True
    on: ClassVar[str] = "sample"
    name: ClassVar[str] = "choice"

    def steps(self) -> Iterator[NamedStep]:
        """The steps of all branches."""
        for steps in self.branches.values():
            yield from steps

    @property
    def reads(self) -> tuple[str, ...]:
        """Fields that some step reads."""
        return tuple(dict.fromkeys(f for s in self.steps() for f in s.step.reads))

    @property
    def writes(self) -> tuple[str, ...]:
        """Fields that some step writes."""
        return tuple(dict.fromkeys(f for s in self.steps() for f in s.step.writes))

    @property
    def geometric(self) -> bool:
        """Whether some step moves pixels."""
        return any(s.step.geometric for s in self.steps())

    @property
    def draws(self) -> int:
        """Images that the greediest step mixes in."""
        return max((s.step.draws for s in self.steps()), default=0)


@dataclass(frozen=True)
class FanBlock(ChoiceBlock):
    """`fan views { weak { … }  strong { … } }`: each branch makes a view of the image.

    `image` and `truth` go on as if the fan was not there. Each view keeps the homography from the image that
    came to the fan.
    """

    name: ClassVar[str] = "fan"


PipelineStep = Union[Step, ChoiceBlock]  # noqa: UP007  (ChoiceBlock: and its kin)


@dataclass(frozen=True)
class NamedStep:
    """A step of a pipeline, or a block of steps, with its name and place."""

    name: str
    step: PipelineStep
    origin: Origin | None = field(default=None, compare=False, repr=False)


def fan_of(steps: Sequence[NamedStep]) -> tuple[int, FanBlock] | None:
    """Where the fan of a pipeline stands, and the fan; None without one."""
    found = ((i, s.step) for i, s in enumerate(steps) if isinstance(s.step, FanBlock))
    return next(found, None)


@dataclass(frozen=True)
class NamedSource:
    """An entry of `sources { … }`. Its images take the pipeline of its name, if there is one."""

    name: str
    source: DataSource
    classes: tuple[str, ...] = ()  # its own names, a part of the data set's; () if it has no truth
    origin: Origin | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True)
class Sampling:
    """`sample { ratio = [1, 4]  epoch = "labelled" }`: how many images of each source a batch holds.

    `epoch` names the source whose images an epoch goes through once; None: the one that takes longest.
    """

    ratio: tuple[int, ...]
    epoch: str | None = None
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
    sources: tuple[
        NamedSource, ...
    ] = ()  # training draws from these, if there are any, and not from `source`
    sample: Sampling | None = None
    origin: Origin | None = field(default=None, compare=False, repr=False)  # of `source`

    def pipeline_of(self, source: str, active: str) -> str:
        """The name of the pipeline that a source's images take while `active` is in use."""
        return source if source in self.pipelines else active


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
    places: Mapping[str, Origin] = field(
        default_factory=dict, compare=False, repr=False
    )  # of fields and hooks


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
    pixels: str = "uint8"  # "uint8" | "float32", what the camera gives, 0 to 255
    stated: frozenset[str] = frozenset()  # the fields that the spec writes
    places: Mapping[str, Origin] = field(default_factory=dict, compare=False, repr=False)  # and where
