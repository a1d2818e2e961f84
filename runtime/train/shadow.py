"""Shadow nodes at run time: weights that follow others by a rule, after each optimiser step."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from detc.compiler.backends.tree import module_path
from detc.runtime.train.schema import Average

if TYPE_CHECKING:
    from torch import Tensor, nn

    from detc.compiler.graph import Shadow


@dataclass
class _Pairs:
    """The tensors of one shadow beside those that they follow."""

    rule: Average
    names: list[str] = field(default_factory=list)
    moving: tuple[list[Tensor], list[Tensor]] = field(default_factory=lambda: ([], []))
    copied: tuple[list[Tensor], list[Tensor]] = field(default_factory=lambda: ([], []))


class Shadows:
    """All shadows of a model. Every process computes the same update of the same weights, so none is sent."""

    def __init__(self, model: nn.Module, shadows: Mapping[str, Shadow]) -> None:
        self.steps = 0
        self._pairs: dict[str, _Pairs] = {}
        state = model.state_dict(keep_vars=True)
        parameters = {n for n, _ in model.named_parameters(remove_duplicate=False)}
        for shadow in shadows.values():
            assert isinstance(shadow.rule, Average)
            pairs = _Pairs(shadow.rule)
            own, other = module_path(shadow.path), module_path(shadow.source)
            for name in below(state, [own]):
                mine, theirs = state[name].data, state[other + name.removeprefix(own)].data
                moves = name in parameters or (mine.is_floating_point() and shadow.rule.buffers == "average")
                kind = pairs.moving if moves else pairs.copied
                kind[0].append(mine)
                kind[1].append(theirs)
                pairs.names.append(name)
            self._pairs[shadow.path] = pairs
        self.names = [n for pairs in self._pairs.values() for n in pairs.names]

    @torch.no_grad()
    def begin(self) -> None:
        """Make every shadow equal to what it follows."""
        for pairs in self._pairs.values():
            for mine, theirs in (pairs.moving, pairs.copied):
                if mine:
                    torch._foreach_copy_(mine, theirs)

    @torch.no_grad()
    def update(self) -> None:
        """Move the shadows, once after each optimiser step."""
        for pairs in self._pairs.values():
            if pairs.moving[0]:
                torch._foreach_lerp_(*pairs.moving, pairs.rule.momentum(self.steps))
            if pairs.copied[0]:
                torch._foreach_copy_(*pairs.copied)
        self.steps += 1


def below(names: Iterable[str], paths: Iterable[str]) -> list[str]:
    """Those of `names` that lie at or below one of the module paths."""
    starts = tuple(f"{p}." for p in paths)
    return [n for n in names if n.startswith(starts)] if starts else []


def shadowed(program: Any, *, saved: bool | None = None) -> list[str]:
    """Module paths of a program's shadows; `saved` chooses those that are saved, or are not."""
    shadows: Mapping[str, Shadow] = getattr(getattr(program, "spec", None), "shadows", {})
    return [module_path(s.path) for s in shadows.values() if saved is None or s.rule.saved == saved]


def shadows_of(program: Any) -> Shadows | None:
    """The shadows of a program, or None if it has none."""
    shadows: Mapping[str, Shadow] = getattr(getattr(program, "spec", None), "shadows", {})
    return Shadows(program.model, shadows) if shadows else None


def live_state(checkpoint: Any) -> dict[str, Tensor]:
    """The weights to go on training with: the live ones, and shadows that the checkpoint keeps for that alone."""
    state: dict[str, Tensor] = dict(checkpoint.train.get("model", checkpoint.model))
    return state | checkpoint.train.get("shadows", {}).get("tensors", {})


def begin_shadows(program: Any) -> None:
    """Make the shadows of a program equal to what they follow, after the weights were initialised."""
    shadows: Mapping[str, Shadow] = getattr(getattr(program, "spec", None), "shadows", {})
    if shadows:
        Shadows(program.model, shadows).begin()


def filled(program: Any, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A saved state with the shadows that are not saved, as they are at the beginning: what they follow."""
    shadows: Mapping[str, Shadow] = getattr(getattr(program, "spec", None), "shadows", {})
    full = dict(state)
    for shadow in shadows.values():
        own, other = module_path(shadow.path), module_path(shadow.source)
        for name in below(program.model.state_dict(), [own]):
            twin = other + name.removeprefix(own)
            if not shadow.rule.saved and name not in full and twin in full:
                full[name] = full[twin]
    return full
