"""Which images make up which batch: a function of seed, epoch, rank and world, and of nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Plan:
    """How `count` images become batches.

    Attributes:
        batch: images of one batch of one rank.
        train: shuffle, and give every rank the same number of full batches: the last ones are filled up from
            the start of the epoch's order, or dropped (`drop_last`).
        group: int [count] or None; training batches hold images of one group only.
    """

    count: int
    batch: int
    train: bool
    seed: int = 0
    rank: int = 0
    world: int = 1
    drop_last: bool = False
    group: Array | None = None

    def batches(self, epoch: int) -> list[list[int]]:
        """This rank's batches of an epoch, as indices of images."""
        if not self.train:
            mine = list(range(self.rank, self.count, self.world))
            return [mine[i : i + self.batch] for i in range(0, len(mine), self.batch)]
        rng = np.random.default_rng(np.random.SeedSequence([self.seed, epoch, 0x5EED]))
        order = rng.permutation(self.count)
        total = self.batch * self.world
        if self.group is None:
            chunks = list(self._chunks(order, total))
        else:
            groups = self.group[order]
            sorted_out = [order[groups == g] for g in np.unique(self.group)]
            chunks = [c for members in sorted_out for c in self._chunks(members, total, whole=True)]
            rest = np.concatenate([m[len(m) - len(m) % total :] for m in sorted_out])
            chunks += self._chunks(rest, total)
            rng.shuffle(chunks)  # type: ignore[arg-type]
        return [list(map(int, chunk[self.rank :: self.world])) for chunk in chunks]

    def _chunks(self, order: Array, total: int, whole: bool = False) -> Iterator[Array]:
        full = len(order) // total * total
        for i in range(0, full, total):
            yield order[i : i + total]
        if len(order) > full and not whole and not self.drop_last:
            yield np.resize(np.concatenate([order[full:], order[:full]]), total)

    def __len__(self) -> int:
        if not self.train:
            return -(-len(range(self.rank, self.count, self.world)) // self.batch)
        return len(self.batches(0))
