"""Layered drawing of a directed graph (Sugiyama, Tagawa, Toda 1981): ranks, crossings, coordinates.

Edges run from top to bottom. An edge over several ranks gets a bend point in each rank that it crosses, and
the bend points take part in the ordering, so that long edges find their way between boxes. Coordinates come
from weighted isotonic regression (pool adjacent violators): every row takes the positions nearest to what its
neighbours want, in the given order and without overlap.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

Key = Hashable
Point = tuple[float, float]
SWEEPS = 12
GAP_X, GAP_Y = 26.0, 34.0
BEND_WIDTH = 6.0
BEND_WEIGHT = 6.0  # how much a bend point holds to a straight line, compared with a box


@dataclass
class Layout:
    """Left upper corners of boxes and bend points of edges, and the whole drawing's size."""

    corners: dict[Key, Point] = field(default_factory=dict)
    routes: dict[tuple[Key, Key], list[Point]] = field(default_factory=dict)
    width: float = 0.0
    height: float = 0.0


@dataclass(frozen=True)
class _Bend:
    """Where the edge `edge` crosses a rank that it does not end in."""

    edge: tuple[Key, Key]
    rank: int


def layered(sizes: Mapping[Key, tuple[float, float]], edges: Sequence[tuple[Key, Key]]) -> Layout:
    """Lay out boxes (`sizes`: width, height) in the order in which they should be read.

    Edges against that order (a component that is applied again) do not influence the ranks; they get a
    straight route. An edge from a box to itself is left out.
    """
    if not sizes:
        return Layout()
    place = {key: i for i, key in enumerate(sizes)}
    down = list(dict.fromkeys((a, b) for a, b in edges if place[a] < place[b]))
    up = list(dict.fromkeys((a, b) for a, b in edges if place[a] > place[b]))
    rank = _ranks(list(sizes), down)
    rows, links = _with_bends(list(sizes), rank, down)
    _reduce_crossings(rows, links)
    width = {key: sizes[key][0] if key in sizes else BEND_WIDTH for row in rows for key in row}
    center = _coordinates(rows, links, width)
    return _finish(rows, sizes, width, center, down, up)


def _ranks(order: list[Key], edges: list[tuple[Key, Key]]) -> dict[Key, int]:
    """Longest path from the top; a source is then pulled down to just above its first reader."""
    before, after = defaultdict(list), defaultdict(list)
    for a, b in edges:
        before[b].append(a)
        after[a].append(b)
    rank: dict[Key, int] = {}
    for key in order:
        rank[key] = max((rank[a] + 1 for a in before[key]), default=0)
    for key in reversed(order):
        if not before[key] and after[key]:
            rank[key] = min(rank[b] for b in after[key]) - 1
    lowest = min(rank.values())
    return {key: r - lowest for key, r in rank.items()}


def _with_bends(
    order: list[Key], rank: dict[Key, int], edges: list[tuple[Key, Key]]
) -> tuple[list[list[Key]], list[tuple[Key, Key]]]:
    """Rows of boxes and bend points, and the links between neighbouring rows."""
    rows: list[list[Key]] = [[] for _ in range(max(rank.values()) + 1)]
    for key in order:
        rows[rank[key]].append(key)
    links: list[tuple[Key, Key]] = []
    for edge in edges:
        last: Key = edge[0]
        for r in range(rank[edge[0]] + 1, rank[edge[1]]):
            bend = _Bend(edge, r)
            rows[r].append(bend)
            links.append((last, bend))
            last = bend
        links.append((last, edge[1]))
    return rows, links


def _neighbours(links: list[tuple[Key, Key]]) -> tuple[dict[Key, list[Key]], dict[Key, list[Key]]]:
    above, below = defaultdict(list), defaultdict(list)
    for a, b in links:
        above[b].append(a)
        below[a].append(b)
    return above, below


def _reduce_crossings(rows: list[list[Key]], links: list[tuple[Key, Key]]) -> None:
    """Sort rows by their neighbours' mean place, down and up in turn; keep the best order seen."""
    above, below = _neighbours(links)
    best, least = [list(row) for row in rows], _crossings(rows, below)
    for sweep in range(SWEEPS):
        if least == 0:
            break
        side = above if sweep % 2 == 0 else below
        for r in range(1, len(rows)) if sweep % 2 == 0 else range(len(rows) - 2, -1, -1):
            other = {k: i for i, k in enumerate(rows[r - 1 if sweep % 2 == 0 else r + 1])}
            here = {k: i for i, k in enumerate(rows[r])}

            def mean(key: Key, other: dict[Key, int] = other, here: dict[Key, int] = here) -> float:
                places = [other[n] for n in side[key]]  # noqa: B023 (called before `side` changes)
                return sum(places) / len(places) if places else here[key]

            rows[r].sort(key=mean)
        count = _crossings(rows, below)
        if count < least:
            best, least = [list(row) for row in rows], count
    rows[:] = best


def _crossings(rows: list[list[Key]], below: Mapping[Key, list[Key]]) -> int:
    """Pairs of links that cross, over all pairs of neighbouring rows."""
    total = 0
    for upper, lower in pairwise(rows):
        place = {k: i for i, k in enumerate(lower)}
        ends = [place[b] for a in upper for b in sorted(below.get(a, ()), key=place.__getitem__)]
        total += sum(ends[i] > ends[j] for i in range(len(ends)) for j in range(i + 1, len(ends)))
    return total


def _coordinates(
    rows: list[list[Key]], links: list[tuple[Key, Key]], width: Mapping[Key, float]
) -> dict[Key, float]:
    """The x of every centre."""
    above, below = _neighbours(links)
    center: dict[Key, float] = {}
    for row in rows:
        x = 0.0
        for key in row:
            center[key] = x + width[key] / 2
            x += width[key] + GAP_X
    for sweep in range(SWEEPS):
        side = above if sweep % 2 == 0 else below
        for row in rows if sweep % 2 == 0 else reversed(rows):
            wanted = [
                sum(center[n] for n in side[k]) / len(side[k]) if side.get(k) else center[k] for k in row
            ]
            weight = [BEND_WEIGHT if isinstance(k, _Bend) else 1.0 if side.get(k) else 0.05 for k in row]
            center.update(zip(row, _spread(row, wanted, weight, width), strict=True))
    return center


def _spread(
    row: list[Key], wanted: list[float], weight: list[float], width: Mapping[Key, float]
) -> list[float]:
    """The positions nearest to `wanted` (weighted least squares) that keep the order and the gaps."""
    offsets, total = [], 0.0
    for i, key in enumerate(row):
        if i:
            total += width[row[i - 1]] / 2 + GAP_X + width[key] / 2
        offsets.append(total)
    blocks: list[tuple[float, float, int]] = []  # mean, weight, length
    for x, w, offset in zip(wanted, weight, offsets, strict=True):
        mean, mass, length = x - offset, w, 1
        while blocks and blocks[-1][0] >= mean:
            m, w0, n = blocks.pop()
            mean = (m * w0 + mean * mass) / (w0 + mass)
            mass, length = mass + w0, length + n
        blocks.append((mean, mass, length))
    flat = [mean for mean, _, length in blocks for _ in range(length)]
    return [x + offset for x, offset in zip(flat, offsets, strict=True)]


def _finish(
    rows: list[list[Key]],
    sizes: Mapping[Key, tuple[float, float]],
    width: Mapping[Key, float],
    center: dict[Key, float],
    down: list[tuple[Key, Key]],
    up: list[tuple[Key, Key]],
) -> Layout:
    out = Layout()
    left = min(center[k] - width[k] / 2 for row in rows for k in row)
    bends: dict[tuple[Key, Key], list[Point]] = defaultdict(list)
    y = 0.0
    for row in rows:
        tallest = max((sizes[k][1] for k in row if k in sizes), default=0.0)
        for key in row:
            x = center[key] - left
            if isinstance(key, _Bend):
                bends[key.edge] += [(x, y), (x, y + tallest)]
            else:
                w, h = sizes[key]
                out.corners[key] = (x - w / 2, y + (tallest - h) / 2)
                out.width = max(out.width, x + w / 2)
        y += tallest + GAP_Y
    out.height = y - GAP_Y
    out.width = max([out.width, *(x for points in bends.values() for x, _ in points)])
    out.routes = {edge: bends.get(edge, []) for edge in [*down, *up]}
    return out
