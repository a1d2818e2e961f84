"""Wire types: what flows along the edges of a detection graph. Free of torch.

How each type looks at run time (B images, C channels, N/K/G capacities):

=============  ==============================================================================
`Map`          float tensor [B, C, H, W]
`Pyramid`      list of such tensors, finest level first
`Image`        dict: `pixels` [B, 3, H, W] float (RGB, 0..255), `size` [B, 2] float (height, width of the
               content; what lies beyond is padding)
`Tensor`       one tensor; `kind` names its meaning ("boxes" are xyxy in pixels of the network's input)
`Struct`       dict of tensors, by field name
=============  ==============================================================================
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Union

from detc.compiler.dims import Dim, DimLike, dim
from detc.dsl.source import Origin

BATCH = dim("B")
CLOCK = {"iterations": "it", "epochs": "ep"}  # kinds of scalars that count time, with their units


@dataclass(frozen=True)
class Tensor:
    """A dense tensor. `dtype` is a torch dtype's name: "float32", "int64", "bool"."""

    shape: tuple[Dim, ...]
    dtype: str = "float32"
    kind: str = "tensor"

    def __str__(self) -> str:
        return f"{self.kind}[{', '.join(map(str, self.shape))}]"


@dataclass(frozen=True)
class Map:
    """A feature map; `origin` is where its channel count was decided."""

    channels: int
    stride: Fraction
    height: Dim
    width: Dim
    origin: Origin | None = field(default=None, compare=False, repr=False)

    def with_channels(self, channels: int, origin: Origin | None = None) -> Map:
        """This map with another channel count."""
        return replace(self, channels=channels, origin=origin)

    def __str__(self) -> str:
        return f"map[{self.channels} ch, stride {self.stride}]"


@dataclass(frozen=True)
class Pyramid:
    """Maps, finest first."""

    maps: tuple[Map, ...]

    def __str__(self) -> str:
        levels = ", ".join(f"{m.channels}@{m.stride}" for m in self.maps)
        return f"pyramid[{levels}]"


@dataclass(frozen=True)
class Image:
    """The network's input. `align`: height and width are multiples of it."""

    height: Dim
    width: Dim
    channels: int = 3
    batch: Dim = BATCH

    @property
    def pixels(self) -> Map:
        """The image as a feature map of stride 1."""
        return Map(self.channels, Fraction(1), self.height, self.width)

    def __str__(self) -> str:
        return f"image[{self.height} x {self.width}]"


@dataclass(frozen=True)
class Struct:
    """Named tensors that travel together: instances, proposals, detections, targets, …"""

    kind: str
    fields: tuple[tuple[str, Type], ...]

    def get(self, name: str) -> Type | None:
        """The type of a field, or None."""
        return dict(self.fields).get(name)

    def names(self) -> list[str]:
        """Field names in order."""
        return [n for n, _ in self.fields]

    def __str__(self) -> str:
        return self.kind


Type = Union[Tensor, Map, Pyramid, Image, Struct]  # noqa: UP007


class Mismatch(Exception):
    """Raised by `Op.infer`: the inputs do not fit.

    `code` is a diagnostic code. `inputs` are indices of the inputs to blame (first = primary), with the
    text of each one's label; `param` names the op's own parameter at fault, if one is.
    """

    def __init__(
        self,
        message: str,
        *,
        code: str = "DET0304",
        inputs: tuple[tuple[int, str], ...] = (),
        param: str | None = None,
        help: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message, self.code, self.inputs, self.param, self.help = message, code, inputs, param, help


def tensor(*shape: DimLike | str, dtype: str = "float32", kind: str = "tensor") -> Tensor:
    """Shorthand: `tensor("B", n, 4, kind="boxes")`."""
    return Tensor(tuple(dim(s) for s in shape), dtype, kind)


def instances(masks: bool = False) -> Struct:
    """Padded ground truth: boxes [B, G, 4], labels [B, G] int64, valid [B, G] bool (masks [B, G, H, W])."""
    fields: list[tuple[str, Type]] = [
        ("boxes", tensor("B", "G", 4, kind="boxes")),
        ("labels", tensor("B", "G", dtype="int64", kind="labels")),
        ("valid", tensor("B", "G", dtype="bool")),
    ]
    if masks:
        fields.append(("masks", tensor("B", "G", "H", "W", dtype="bool")))
    return Struct("instances", tuple(fields))


def proposals(count: DimLike | str) -> Struct:
    """Detached boxes [B, K, 4] with scores [B, K] and valid [B, K]."""
    return Struct(
        "proposals",
        (
            ("boxes", tensor("B", count, 4, kind="boxes")),
            ("scores", tensor("B", count)),
            ("valid", tensor("B", count, dtype="bool")),
        ),
    )


def detections(count: DimLike | str, **more: Tensor) -> Struct:
    """boxes [B, K, 4], scores [B, K], labels [B, K] int64, valid [B, K]; sorted by score.

    Masks, where there are some, are probabilities: `box_masks` [B, K, m, m], each stretched over its box, or
    `masks` [B, K, h, w], each over the whole input of the network, padding included.
    """
    return Struct(
        "detections",
        (
            ("boxes", tensor("B", count, 4, kind="boxes")),
            ("scores", tensor("B", count)),
            ("labels", tensor("B", count, dtype="int64", kind="labels")),
            ("valid", tensor("B", count, dtype="bool")),
            *more.items(),
        ),
    )


def view(image: Image) -> Struct:
    """One of the ways in which a fan shows images: `image`, the `truth` in it, and the homography `matrix` [B, 3, 3]
    from the image that came to the fan."""
    fields = (
        ("image", image),
        ("truth", instances(masks=True)),
        ("matrix", tensor("B", 3, 3, kind="homography")),
    )
    return Struct("view", fields)


def clock() -> Struct:
    """The training clock `step`: scalars `iter`, `epoch` (with fractions) and `progress` (0 to 1)."""
    parts = {
        "iter": Tensor((), kind="iterations"),
        "epoch": Tensor((), kind="epochs"),
        "progress": Tensor(()),
    }
    return Struct("step", tuple(parts.items()))


def struct(kind: str, **fields: Type) -> Struct:
    """Shorthand for a struct of one op's own kind."""
    return Struct(kind, tuple(fields.items()))
