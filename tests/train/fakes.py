"""A tiny detector with the face of a compiled program, and a feed of synthetic batches."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from detc.compiler.spec import Quantity, Rate, TrainSpec
from detc.runtime.train.schema import SGD

SIZE = 32


class Net(nn.Module):
    """Backbone with a batch norm, and a head that finds one box an image."""

    def __init__(self, classes: int = 3, width: int = 8) -> None:
        super().__init__()
        self.backbone = nn.Sequential()
        self.backbone.add_module("conv", nn.Conv2d(3, width, 3, stride=2, padding=1, bias=False))
        self.backbone.add_module("norm", nn.BatchNorm2d(width))
        self.head = nn.Module()
        self.head.cls = nn.Conv2d(width, classes, 1)
        self.head.box = nn.Conv2d(width, 4, 1)

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        x = self.backbone((pixels - 127.0) / 64.0).relu()
        return self.head.cls(x).mean((2, 3)), self.head.box(x).mean((2, 3))


class TrainGraph(nn.Module):
    """(image, truth) -> weighted losses. The noise makes the random state matter."""

    def __init__(self, net: Net, noise: float) -> None:
        super().__init__()
        self.net, self.noise = net, noise

    def forward(self, image: dict[str, Tensor], truth: dict[str, Tensor]) -> dict[str, Tensor]:
        logits, boxes = self.net(image["pixels"])
        logits = logits + self.noise * torch.rand_like(logits)
        cls = nn.functional.cross_entropy(logits, truth["labels"][:, 0])
        box = (boxes - truth["boxes"][:, 0] / SIZE).abs().mean()
        return {"head.cls": cls, "head.box": 2.0 * box}


class InferGraph(nn.Module):
    """image -> detections of capacity 1."""

    def __init__(self, net: Net) -> None:
        super().__init__()
        self.net = net

    def forward(self, image: dict[str, Tensor]) -> dict[str, dict[str, Tensor]]:
        logits, boxes = self.net(image["pixels"])
        scores, labels = logits.softmax(1).max(1, keepdim=True)
        valid = torch.ones_like(labels, dtype=torch.bool)
        found = {"boxes": boxes[:, None] * SIZE, "scores": scores, "labels": labels, "valid": valid}
        return {"detections": found}


class Program:
    """The face of `compiler.program.Program` that training uses."""

    def __init__(self, classes: int = 3, noise: float = 0.1, seed: int = 0) -> None:
        torch.manual_seed(seed)
        self.model = Net(classes)
        self.train_graph = TrainGraph(self.model, noise)
        self.infer_graph = InferGraph(self.model)
        self.still_graph = self.infer_graph
        self.needs: dict[str, Any] = {"align": 1}


class Feed:
    """`count` batches an epoch, each a function of (epoch, number) only."""

    def __init__(self, count: int = 5, batch: int = 4, rank: int = 0, world: int = 1) -> None:
        self.count, self.batch, self.rank, self.world = count, batch, rank, world
        self.asked: list[tuple[int, str, int]] = []

    def __len__(self) -> int:
        return self.count

    def epoch(self, epoch: int, pipeline: str, start: int = 0) -> Iterator[dict[str, Any]]:
        self.asked.append((epoch, pipeline, start))
        for number in range(start, self.count):
            whole = self.make(epoch, number)
            yield {
                part: {k: v[self.rank :: self.world] for k, v in tensors.items()}
                for part, tensors in whole.items()
            }

    def make(self, epoch: int, number: int) -> dict[str, Any]:
        draw = torch.Generator().manual_seed(1000 * epoch + number)
        n = self.batch * self.world
        pixels = torch.randint(0, 256, (n, 3, SIZE, SIZE), dtype=torch.uint8, generator=draw)
        labels = torch.randint(0, 3, (n, 1), generator=draw)
        pixels[torch.arange(n), labels[:, 0]] //= 4  # the class is the dark channel
        corner = torch.rand(n, 1, 2, generator=draw) * SIZE / 2
        boxes = torch.cat([corner, corner + SIZE / 4], 2)
        valid = torch.ones(n, 1, dtype=torch.bool)
        return {
            "image": {"pixels": pixels, "size": torch.full((n, 2), float(SIZE))},
            "truth": {"boxes": boxes, "labels": labels, "valid": valid},
        }


def recipe(**changes: Any) -> TrainSpec:
    """A small recipe; `changes` are fields of `TrainSpec`."""
    fields: dict[str, Any] = {
        "name": "Tiny",
        "epochs": Quantity(3, "ep"),
        "batch": 4,
        "optim": SGD(lr=Rate(0.1, Quantity(16, "img")), momentum=0.9, weight_decay=1e-4),
    }
    return TrainSpec(**{**fields, **changes})


def run_of(spec: TrainSpec, text: str = "det 1\n") -> Any:
    """The face of a `ResolvedRun` that the engine uses, for a data set that is not there."""
    return SimpleNamespace(name="", train=spec, data=None, classes=("a", "b", "c"), text=text)
