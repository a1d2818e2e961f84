"""The moving average of the weights that is evaluated and saved in their place."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

from detc.runtime.train.schema import EMA, Clock

if TYPE_CHECKING:
    from torch import Tensor, nn


class WeightAverage:
    """Averages of the trainable parameters and of the floating-point buffers of `model`.

    Frozen parameters never change, so they have no average; nor have shadow nodes (`skip`), which are averages
    themselves. One `torch._foreach_lerp_` updates all.
    """

    def __init__(self, model: nn.Module, hook: EMA, clock: Clock, skip: Sequence[str] = ()) -> None:
        self.hook, self.clock, self.steps = hook, clock, 0
        self.live: dict[str, Tensor] = {n: p.data for n, p in model.named_parameters() if p.requires_grad}
        self.live |= {n: b for n, b in model.named_buffers() if b.is_floating_point()}
        for name in skip:
            self.live.pop(name, None)
        self.average = {name: tensor.detach().clone() for name, tensor in self.live.items()}
        self._live, self._average = list(self.live.values()), list(self.average.values())

    @torch.no_grad()
    def update(self) -> None:
        """Move the averages towards the weights, once after each optimiser step."""
        momentum = self.hook.rate(self.steps, self.clock)
        torch._foreach_lerp_(self._average, self._live, momentum)
        self.steps += 1

    @torch.no_grad()
    def _swap(self) -> None:
        held = [t.clone() for t in self._live]
        torch._foreach_copy_(self._live, self._average)
        torch._foreach_copy_(self._average, held)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Within the block the model holds the averages."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def state(self) -> dict[str, Any]:
        """What a checkpoint needs to go on."""
        return {"steps": self.steps, "tensors": dict(self.average)}

    @torch.no_grad()
    def restore(self, state: dict[str, Any]) -> None:
        """Take over what `state` returned."""
        self.steps = int(state["steps"])
        for name, tensor in self.average.items():
            tensor.copy_(state["tensors"][name])
