"""Evaluate a program on a split: inference over its images, and the metrics that the data binds to it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import torch

from detc.compiler.spec import DataSpec
from detc.runtime.train.ddp import World
from detc.runtime.train.step import network_input, to_device


class Validator:
    """Opens a split once and evaluates it as often as asked, with whatever weights the program has then.

    Args:
        split: a split of the data, read through its pipeline `val`.
        batch: images of one forward pass.
        workers: processes that prepare images; the data declaration's number if None.
        world: each process evaluates its share; all get the numbers.
        channels_last: pixels are given in channels-last order (where the weights are).
    """

    def __init__(
        self,
        program: Any,
        data: DataSpec,
        *,
        split: str = "val",
        device: torch.device | str = "cpu",
        batch: int = 16,
        workers: int | None = None,
        world: World | None = None,
        channels_last: bool = True,
    ) -> None:
        from detc.runtime.data.loader import make_loader
        from detc.runtime.metrics.base import evaluators

        self.program, self.device = program, torch.device(device)
        self.world = world or World()
        self.channels_last = channels_last
        self.loader = make_loader(
            data,
            split,
            batch,
            train=False,
            workers=workers,
            rank=self.world.rank,
            world=self.world.size,
            quiet=not self.world.first,
        )
        self.evaluators = evaluators(data, split, self.loader.dataset)

    @property
    def primary(self) -> str:
        """The name of the number that the best checkpoint has the highest of."""
        return plain_name(next(iter(self.evaluators.values())).primary)

    @torch.no_grad()
    def __call__(
        self, limit: int | None = None, progress: Callable[[int, int], None] | None = None
    ) -> dict[str, float]:
        """The metrics as plain floats: "ap", "ap50", "ap75", "ap_s", "ar_100", "ap/<class>", …

        Args:
            limit: evaluate so many images only.
            progress: called with the batches done and their number.
        """
        graph = self.program.still_graph
        self.program.model.eval()
        for evaluator in self.evaluators.values():
            evaluator.reset()
        seen = 0
        for number, batch in enumerate(self.loader, 1):
            image = network_input(batch["image"], self.device, self.channels_last)
            found = to_device(graph(image)["detections"], torch.device("cpu"))
            if limit is not None:
                keep = max(0, limit - seen * self.world.size)
                batch = {**batch, "meta": batch["meta"][:keep]}
            for evaluator in self.evaluators.values():
                evaluator.update(found, batch["meta"])
            seen += len(batch["meta"])
            if progress is not None:
                progress(number, len(self.loader))
            if limit is not None and seen * self.world.size >= limit:
                break
        return self._numbers()

    def _numbers(self) -> dict[str, float]:
        states = self.world.gather({name: e.state() for name, e in self.evaluators.items()})
        numbers: dict[str, float] = {}
        if self.world.first:
            for name, evaluator in self.evaluators.items():
                evaluator.merge(state[name] for state in states[1:])
                for key, value in evaluator.compute().items():
                    plain = plain_name(key)
                    # Two metrics may have a number of the same name: the second one's carries its own.
                    numbers[plain if plain not in numbers else f"{name}.{plain}"] = float(value)
        result: dict[str, float] = self.world.gather(numbers)[0]
        return result


_NAME = re.compile(r"(AP|AR)(\d*)([sml]?)(_mask)?")


def plain_name(key: str) -> str:
    """A metric's name in logs: `APs` is "ap_s", `AR100` "ar_100", `AP50_mask` "ap50_mask"."""
    name, slash, rest = key.partition("/")
    found = _NAME.fullmatch(name)
    if found is None:
        return key
    kind, number, area, mask = found.groups()
    number = f"_{number}" if kind == "AR" and number else number
    return kind.lower() + number + (f"_{area}" if area else "") + (mask or "") + slash + rest


def evaluate(
    program: Any,
    data: DataSpec,
    *,
    split: str = "val",
    device: torch.device | str = "cpu",
    batch: int = 16,
    workers: int | None = None,
    world: World | None = None,
    limit: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Mapping[str, float]:
    """Evaluate the weights that `program` has, once; see `Validator`.

    Raises:
        DetError: DET0903 to DET0908 of the data.
    """
    for module in (program.model, program.still_graph):
        module.to(device=torch.device(device), memory_format=torch.channels_last)
    options: dict[str, Any] = {"split": split, "device": device, "batch": batch, "workers": workers}
    return Validator(program, data, **options, world=world)(limit, progress)
