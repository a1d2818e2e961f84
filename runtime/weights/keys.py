"""What other programs call the same weights: key tables, which are data.

A table (`tables/*.json`) is either a list of `[regex, replacement]` pairs, or an object:

    sources      globs of the `from` texts that it is meant for (optional)
    rules        [regex, replacement] pairs, applied in order, each to the result of the one before
    drop         regexes of keys that have no counterpart here
    transforms   {regex of a new key: "flip_input" (BGR <-> RGB) or "transpose"}
    splits       {regex: replacements}: one tensor of the file is several here, cut along its first dimension
                 into equal parts; comes before the rules (torch's `in_proj_weight` is query, key and value)

All tables are tried, and the plain names too, each below every usual prefix (`backbone.`, `model.`, …); the
mapping that fits the most tensors by name and shape is taken. To add a table: put a file into the folder.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatch
from functools import cache
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

TABLES = Path(__file__).parent / "tables"


@dataclass(frozen=True)
class Table:
    """One key table."""

    name: str
    rules: tuple[tuple[re.Pattern[str], str], ...] = ()
    drop: tuple[re.Pattern[str], ...] = ()
    sources: tuple[str, ...] = ()
    transforms: tuple[tuple[re.Pattern[str], str], ...] = ()
    splits: tuple[tuple[re.Pattern[str], tuple[str, ...]], ...] = ()

    def parts(self, key: str, tensor: Tensor) -> list[tuple[str, Tensor]]:
        """A tensor of the file as the tensors that it is here, under the file's names."""
        for pattern, replacements in self.splits:
            if pattern.search(key) and tensor.dim() and tensor.shape[0] % len(replacements) == 0:
                pieces = tensor.chunk(len(replacements))
                return [(pattern.sub(r, key), p) for r, p in zip(replacements, pieces, strict=True)]
        return [(key, tensor)]

    def rename(self, key: str) -> str | None:
        """The key's name here; None if the table drops it."""
        if any(p.search(key) for p in self.drop):
            return None
        for pattern, replacement in self.rules:
            key = pattern.sub(replacement, key)
        return key

    def meant_for(self, source: str) -> bool:
        """True if one of the table's globs names the source."""
        return any(fnmatch(source, glob) for glob in self.sources)

    def transform(self, key: str, tensor: Tensor) -> Tensor:
        """The tensor as the parameter `key` here wants it."""
        for pattern, how in self.transforms:
            if pattern.search(key):
                tensor = _TRANSFORMS[how](tensor)
        return tensor


# flip_input: BGR <-> RGB of a first convolution [O, 3, kh, kw].
_TRANSFORMS = {
    "flip_input": lambda t: t.flip(1),
    "transpose": lambda t: t.transpose(0, 1).contiguous(),
}


def parse_table(name: str, text: str) -> Table:
    """Read a table from JSON.

    Raises:
        ValueError: naming the table, if it has an unknown field, a bad pattern or an unknown transform.
    """
    data = json.loads(text)
    if isinstance(data, list):
        data = {"rules": data}
    unknown = set(data) - {"rules", "drop", "sources", "transforms", "splits", "note"}
    if unknown:
        raise ValueError(f"key table {name}: unknown fields {sorted(unknown)}")
    try:
        rules = tuple((re.compile(p), r) for p, r in data.get("rules", []))
        drop = tuple(re.compile(p) for p in data.get("drop", []))
        transforms = tuple((re.compile(p), how) for p, how in data.get("transforms", {}).items())
        splits = tuple((re.compile(p), tuple(r)) for p, r in data.get("splits", {}).items())
    except re.error as exc:
        raise ValueError(f"key table {name}: bad pattern {exc.pattern!r}: {exc}") from exc
    for _, how in transforms:
        if how not in _TRANSFORMS:
            raise ValueError(
                f"key table {name}: unknown transform {how!r}; there are {', '.join(_TRANSFORMS)}"
            )
    return Table(name, rules, drop, tuple(data.get("sources", ())), transforms, splits)


@cache
def tables() -> tuple[Table, ...]:
    """The plain names, then all tables of the folder, by name."""
    found = [parse_table(p.stem, p.read_text(encoding="utf-8")) for p in sorted(TABLES.glob("*.json"))]
    return (Table("plain"), *found)


@dataclass
class Mapped:
    """The result of `map_keys`: `state` under the names here, `dropped` keys with the reason."""

    table: str
    prefix: str
    state: dict[str, Tensor]
    origin: dict[str, str]  # name here -> name in the file
    dropped: dict[str, str] = field(default_factory=dict)
    fits: int = 0


_PREFIXES = (
    "",
    "backbone.",
    "model.",
    "module.",
    "encoder.",
    "bbone.",
    "backbone.body.",
    "trunk.",
    "features.",
)


def map_keys(
    state: Mapping[str, Tensor],
    target: Mapping[str, Tensor],
    source: str = "",
    rename: Mapping[str, str] | None = None,
) -> Mapped:
    """Find the mapping of `state` (a file's tensors) onto `target` (a module's state) that fits best.

    Args:
        state: tensors by the file's names.
        target: tensors by the names here; only their shapes are read.
        source: the `from` text; tables that are meant for it win ties.
        rename: renamings that the user gave (old prefix -> new prefix), applied first.
    """
    if rename:
        state = {_rename(k, rename): v for k, v in state.items()}
    prefixes = [
        p for p in dict.fromkeys((*_PREFIXES, *_own_prefixes(state))) if any(k.startswith(p) for k in state)
    ]
    best: Mapped | None = None
    best_rank: tuple[int, int, int] = (-1, 0, 0)
    for table in tables():
        for prefix in prefixes:
            mapped = _apply(table, prefix, state, target)
            rank = (mapped.fits, int(table.meant_for(source)), -len(prefix))
            if rank > best_rank:
                best, best_rank = mapped, rank
    assert best is not None  # the plain table with the empty prefix always takes part
    return best


def _rename(key: str, rename: Mapping[str, str]) -> str:
    for old, new in rename.items():
        if key == old or key.startswith(old + "."):
            return new + key[len(old) :]
    return key


def _own_prefixes(state: Iterable[str]) -> list[str]:
    """What the file's own names begin with: the segments common to all, and each first segment."""
    names = [k.split(".")[:-1] for k in state]
    shared = takewhile(lambda level: len(set(level)) == 1, zip(*names, strict=False))
    common = "".join(f"{level[0]}." for level in shared)
    return [*([common] if common else []), *sorted({f"{n[0]}." for n in names if n})]


def _apply(table: Table, prefix: str, state: Mapping[str, Tensor], target: Mapping[str, Tensor]) -> Mapped:
    mapped = Mapped(table.name, prefix, {}, {})
    for key, tensor in state.items():
        if not key.startswith(prefix):
            mapped.dropped[key] = f"outside `{prefix.rstrip('.')}`"
            continue
        for part, piece in table.parts(key[len(prefix) :], tensor):
            name = table.rename(part)
            if name is None:
                mapped.dropped[key] = "has no counterpart here"
                continue
            mapped.state[name] = table.transform(name, piece)
            mapped.origin[name] = key
            want = target.get(name)
            mapped.fits += want is not None and want.shape == mapped.state[name].shape
    return mapped
