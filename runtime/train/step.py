"""One optimiser step: forward, backward, clip, update. Nothing in it waits for the device.

Losses go into a ring on the device; `LossRing.read` is the only place that copies them to the host.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from detc.runtime.train.ema import WeightAverage
from detc.runtime.train.precision import Precision

if TYPE_CHECKING:
    from torch import optim
    from torch.nn.parallel import DistributedDataParallel

    from detc.runtime.data.later import Later
    from detc.runtime.train.moment import Moment
    from detc.runtime.train.shadow import Shadows

Batch = Mapping[str, Any]  # as `runtime.data.collate` makes them


def to_device(value: Any, device: torch.device) -> Any:
    """Nested dicts of tensors, copied without waiting."""
    if isinstance(value, Tensor):
        return value.to(device, non_blocking=True)
    return {k: to_device(v, device) for k, v in value.items()} if isinstance(value, Mapping) else value


def network_input(
    image: Mapping[str, Tensor], device: torch.device, channels_last: bool
) -> dict[str, Tensor]:
    """The image dict of the graphs from a batch's: pixels as float 0..255 on the device.

    Pixels cross to the device as they come from the loader (uint8 is a quarter of the traffic).
    """
    pixels = image["pixels"].to(device, non_blocking=True).float()
    if channels_last:
        pixels = pixels.contiguous(memory_format=torch.channels_last)
    return {"pixels": pixels, "size": image["size"].to(device, non_blocking=True).float()}


class LossRing:
    """The losses of the last iterations, on the device: a row an iteration, a column a loss."""

    def __init__(self, capacity: int, device: torch.device) -> None:
        self.capacity, self.device = capacity, device
        self.names: list[str] = []
        self.rows: Tensor | None = None
        self.count = 0

    def add(self, losses: Mapping[str, Tensor]) -> None:
        """Keep one iteration's losses."""
        if self.rows is None:
            self.names = list(losses)
            self.rows = torch.zeros(self.capacity, len(self.names), device=self.device)
        values = torch.stack([losses[n].detach().float().reshape(()) for n in self.names])
        self.rows[self.count % self.capacity].copy_(values)
        self.count += 1

    @property
    def full(self) -> bool:
        """True if another `add` would overwrite a row that was not read."""
        return self.count >= self.capacity

    def read(self) -> Tensor:
        """The rows since the last read, [n, losses] on the host, in a new tensor; waits for the device."""
        if self.rows is None:
            return torch.zeros(0, 0)
        rows = self.rows[: min(self.count, self.capacity)].cpu().clone()
        self.count = 0
        return rows


class Step:
    """Runs optimiser steps.

    Args:
        forward: (image, truth) -> weighted losses; the train graph, perhaps compiled, perhaps wrapped in DDP.
        synchronised: the DDP wrapper, whose all-reduce is put off while gradients accumulate; else None.
        clip: the largest norm of all gradients together; None does not clip.
        views: the views that the train graph takes beside image and truth.
        shadows: moved after each step.
        moment: gives the training clock to a train graph that takes it; `done` says where the training is.
    """

    def __init__(
        self,
        forward: Callable[..., Mapping[str, Tensor]],
        optimizer: optim.Optimizer,
        precision: Precision,
        device: torch.device,
        *,
        clip: float | None = None,
        average: WeightAverage | None = None,
        synchronised: DistributedDataParallel | None = None,
        channels_last: bool = False,
        views: Sequence[str] = (),
        shadows: Shadows | None = None,
        moment: Moment | None = None,
    ) -> None:
        self.forward, self.optimizer, self.precision, self.device = forward, optimizer, precision, device
        self.clip, self.average, self.synchronised = clip, average, synchronised
        self.channels_last, self.views, self.shadows = channels_last, tuple(views), shadows
        self.moment, self.done = moment, 0
        self.parameters = [p for g in optimizer.param_groups for p in g["params"]]

    def __call__(self, batches: Sequence[Batch]) -> dict[str, Tensor]:
        """One step over `batches` (more than one: their gradients are averaged); returns the mean losses."""
        totals: dict[str, Tensor] = {}
        scaler, share = self.precision.scaler, 1.0 / len(batches)
        for i, batch in enumerate(batches):
            inputs = self._inputs(batch)
            last = i == len(batches) - 1
            hold = self.synchronised.no_sync() if self.synchronised and not last else nullcontext()
            with hold:
                with self.precision.autocast():
                    losses = self.forward(**inputs)
                    total = torch.stack([x.float().reshape(()) for x in losses.values()]).sum() * share
                scaler.scale(total).backward()
            for name, value in losses.items():
                part = value.detach() * share
                totals[name] = totals[name] + part if name in totals else part
        if self.clip is not None:
            scaler.unscale_(self.optimizer)
            torch.nn.utils.clip_grad_norm_(self.parameters, self.clip, foreach=True)
        scaler.step(self.optimizer)
        scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        if self.average is not None:
            self.average.update()
        if self.shadows is not None:
            self.shadows.update()
        return totals

    def _inputs(self, batch: Batch) -> dict[str, Any]:
        """What the train graph takes: `image`, `truth` and its views, on the device, after batch steps."""
        later = batch.get("later")
        main = self._part(batch, later)
        inputs: dict[str, Any] = {"image": main["image"], "truth": main["truth"]}
        if self.moment is not None:
            inputs["step"] = self.moment.at(self.done)
        for view in self.views:
            part = self._part(batch["views"][view], later)
            inputs[view] = {k: part[k] for k in ("image", "truth", "matrix")}
        return inputs

    def _part(self, part: Mapping[str, Any], later: Later | None) -> Mapping[str, Any]:
        found = {k: to_device(part[k], self.device) for k in ("truth", "matrix") if k in part}
        found["image"] = network_input(part["image"], self.device, self.channels_last)
        return later(found) if later is not None else found
