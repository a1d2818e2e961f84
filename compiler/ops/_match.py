"""What it means that two wires fit each other elementwise."""

from __future__ import annotations

from dataclasses import replace

from detc.compiler.dims import Dim
from detc.compiler.types import Map, Mismatch, Pyramid, Tensor, Type


def joined(verb: str, a: Type, b: Type, *, broadcast_channels: bool = False) -> Type:
    """The type of an elementwise operation on `a` and `b`.

    Maps need equal channels, strides and sizes; a map of one pixel (a global pooling) fits any, and with
    `broadcast_channels` a map of one channel too. Tensors broadcast as in torch. Pyramids go level by level.

    Raises:
        Mismatch: naming both sides' numbers.
    """
    if isinstance(a, Pyramid) or isinstance(b, Pyramid):
        return _pyramids(verb, a, b, broadcast_channels)
    if isinstance(a, Map) and isinstance(b, Map):
        return _maps(verb, a, b, broadcast_channels)
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return Tensor(_broadcast(verb, a, b), _dtype(a, b), a.kind if a.kind == b.kind else "tensor")
    for one, other in ((a, b), (b, a)):
        if isinstance(one, Map) and isinstance(other, Tensor) and all(d == Dim(1) for d in other.shape):
            return one
    raise Mismatch(f"cannot {verb} a {a} and a {b}", code="DET0303", inputs=_both(a, b))


def _both(a: Type, b: Type) -> tuple[tuple[int, str], ...]:
    return ((0, f"{a} comes from here"), (1, f"{b} comes from here"))


def _pyramids(verb: str, a: Type, b: Type, broadcast_channels: bool) -> Type:
    if not isinstance(a, Pyramid):
        assert isinstance(b, Pyramid)
        return replace(b, maps=tuple(_map(joined(verb, a, m)) for m in b.maps))
    if not isinstance(b, Pyramid):
        return replace(a, maps=tuple(_map(joined(verb, m, b)) for m in a.maps))
    if len(a.maps) != len(b.maps):
        raise Mismatch(
            f"cannot {verb} pyramids of {len(a.maps)} and {len(b.maps)} levels",
            inputs=((0, f"{len(a.maps)} levels come from here"), (1, f"{len(b.maps)} levels come from here")),
        )
    return Pyramid(tuple(_maps(verb, x, y, broadcast_channels) for x, y in zip(a.maps, b.maps, strict=True)))


def _map(value: Type) -> Map:
    assert isinstance(value, Map)
    return value


def _maps(verb: str, a: Map, b: Map, broadcast_channels: bool) -> Map:
    channels = a.channels
    if a.channels != b.channels:
        if not broadcast_channels or 1 not in (a.channels, b.channels):
            raise Mismatch(
                f"cannot {verb} feature maps with {a.channels} and {b.channels} channels",
                code="DET0302",
                inputs=(
                    (0, f"{a.channels} channels come from here"),
                    (1, f"{b.channels} channels come from here"),
                ),
            )
        channels = max(a.channels, b.channels)
    origin = a.origin if channels == a.channels else b.origin
    if is_pixel(b):
        return a.with_channels(channels, origin)
    if is_pixel(a):
        return b.with_channels(channels, origin)
    same_place(verb, (a, b))
    return a.with_channels(channels, origin)


def same_place(verb: str, maps: tuple[Map, ...]) -> None:
    """Check that maps have one stride and one size.

    Raises:
        Mismatch: if not, blaming the first and the one that differs.
    """
    first = maps[0]
    for i, other in enumerate(maps[1:], 1):
        if first.stride != other.stride:
            raise Mismatch(
                f"cannot {verb} feature maps of stride {first.stride} and stride {other.stride}",
                code="DET0303",
                inputs=((0, f"stride {first.stride}"), (i, f"stride {other.stride}")),
            )
        for what, x, y in (("height", first.height, other.height), ("width", first.width, other.width)):
            apart = x - y
            if apart.is_const and int(apart):
                raise Mismatch(
                    f"cannot {verb} feature maps of {what} {x} and {y}",
                    code="DET0303",
                    inputs=((0, f"{what} {x}"), (i, f"{what} {y}")),
                )


def is_pixel(m: Map) -> bool:
    """True for a map of one pixel, such as a global pooling yields."""
    return m.height == Dim(1) and m.width == Dim(1)


def _dtype(a: Tensor, b: Tensor) -> str:
    order = ["bool", "int64", "float16", "bfloat16", "float32", "float64"]
    ranks = [order.index(t.dtype) if t.dtype in order else 4 for t in (a, b)]
    return (a, b)[ranks.index(max(ranks))].dtype


def _broadcast(verb: str, a: Tensor, b: Tensor) -> tuple[Dim, ...]:
    shape = list(a.shape if len(a.shape) >= len(b.shape) else b.shape)
    for i in range(1, min(len(a.shape), len(b.shape)) + 1):
        x, y = a.shape[-i], b.shape[-i]
        apart = x - y
        if x == Dim(1):
            shape[-i] = y
        elif y == Dim(1) or apart == Dim(0):
            shape[-i] = x
        elif apart.is_const:
            raise Mismatch(
                f"cannot {verb} tensors whose dimension {-i} is {x} and {y}",
                inputs=((0, f"{a} comes from here"), (1, f"{b} comes from here")),
            )
        else:
            shape[-i] = x
    return tuple(shape)
