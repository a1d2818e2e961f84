"""Losses of the parts of a batch, on several processes, average to the loss of the whole batch."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor

from detc.compiler.functional import (
    distribution,
    instance_masks,
    losses,
    losses_iou,
    losses_quality,
    mask_queries,
    masks,
    normaliser,
    semi,
    set_match,
)

B, N, C = 4, 6, 3
Loss = Callable[..., Tensor]


class OtherProcess:
    """Stands for `dist.all_reduce` between two processes that take turns: first recording, then answering."""

    def __init__(self) -> None:
        self.said: dict[int, list[Tensor]] = {0: [], 1: []}
        self.turn, self.answers = 0, False

    def all_reduce(self, tensor: Tensor) -> None:
        if self.answers:
            tensor += self.said[1 - self.turn].pop(0)
        else:
            self.said[self.turn].append(tensor.clone())


def over_processes(monkeypatch: pytest.MonkeyPatch, loss: Loss, parts: list[list[Tensor]]) -> list[Tensor]:
    other = OtherProcess()
    monkeypatch.setattr(normaliser.dist, "all_reduce", other.all_reduce)
    found: list[Tensor] = []
    with normaliser.shared_by(2):
        for other.answers in (False, True):
            found = []
            for other.turn in (0, 1):
                found.append(loss(*parts[other.turn]))
    assert any(True for _ in found) and not any(other.said.values())
    return found


def labels() -> Tensor:
    """Unevenly spread over the images: the parts have 1 and 8 objects."""
    out = torch.full((B, N), -1)
    out[0, 0] = 1
    out[2], out[3, :2] = torch.tensor([0, 1, 2, 2, 1, 0]), 2
    out[1, 5] = -2
    return out


def boxes(seed: int) -> Tensor:
    low = torch.rand(B, N, 2, generator=torch.Generator().manual_seed(seed))
    return torch.cat([low, low + 0.5], -1)


def noise(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(7))


POSITIVE = (labels() >= 0).float()
QUALITY = torch.nn.functional.one_hot(labels().clamp(min=0), C) * POSITIVE[..., None] * 0.7
CASES: dict[str, tuple[Loss, list[Tensor]]] = {
    "cross_entropy": (losses.cross_entropy, [noise(B, N, C + 1), labels()]),
    "positives": (partial(losses.cross_entropy, by="positives"), [noise(B, N, C + 1), labels()]),
    "by_image": (partial(losses.focal, alpha=0.25, gamma=2.0, by="positives_per_image"),
                 [noise(B, N, C), labels()]),
    "weighted": (partial(losses.cross_entropy, background_weight=0.1), [noise(B, N, C + 1), labels()]),
    "sigmoid": (losses.sigmoid_cross_entropy, [noise(B, N, C), labels()]),
    "focal": (partial(losses.focal, alpha=0.25, gamma=2.0), [noise(B, N, C), labels()]),
    "smooth_l1": (lambda p, v, y: losses.smooth_l1(p, {"values": v, "labels": y}, beta=0.1),
                  [noise(B, N, 4), boxes(1), labels()]),
    "giou": (partial(losses_iou.iou_loss, kind="giou"), [boxes(1), boxes(2), POSITIVE]),
    "quality_focal": (partial(losses_quality.quality_focal, beta=2.0), [noise(B, N, C), QUALITY]),
    "varifocal": (partial(losses_quality.varifocal, alpha=0.75, gamma=2.0), [noise(B, N, C), QUALITY]),
    "bce": (losses_quality.binary_cross_entropy, [noise(B, N), POSITIVE * 0.5, POSITIVE]),
    "distribution": (partial(losses_quality.distribution_focal, bins=4),
                     [noise(B, N, 20), boxes(1) * 4, POSITIVE]),
    "kd": (partial(distribution.distribution_kd, bins=4, tau=2.0, least=1.0),
           [noise(B, N, 20), noise(B, N, 20) + 0.5 * boxes(3).repeat(1, 1, 5), POSITIVE]),
    "dice": (partial(instance_masks.dice, squared=True, smooth=0.0, eps=1e-3),
             [noise(B, N, 5, 5), (noise(B, N, 5, 5) > 0.3).float(), POSITIVE]),
    "row_bce": (mask_queries.row_bce, [noise(B, N, 9), (noise(B, N, 9) > 0).float(), POSITIVE]),
    "mask_bce": (masks.mask_bce, [noise(B, N, C, 4, 4), (noise(B, N, 4, 4) > 0).float(), labels()]),
    "set": (partial(set_match.set_cross_entropy, background=0.1), [noise(B, N, C + 1), labels()]),
    "nothing": (partial(losses.focal, alpha=0.25, gamma=2.0), [noise(B, N, C), torch.full((B, N), -1)]),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_parts_average_to_the_whole(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    loss, given = CASES[name]
    first = given[0].clone().requires_grad_()
    whole = loss(first, *given[1:])
    whole.backward()
    halves = [g[i : i + 2] for i in (0, 2) for g in given]
    parts = [halves[: len(given)], halves[len(given) :]]
    own = [p[0].clone().requires_grad_() for p in parts]
    found = over_processes(monkeypatch, loss, [[o, *p[1:]] for o, p in zip(own, parts, strict=True)])
    torch.testing.assert_close(torch.stack(found).mean(), whole)
    (torch.stack(found).mean()).backward()
    torch.testing.assert_close(torch.cat([o.grad for o in own]), first.grad)


def test_any_object_of_any_process(monkeypatch: pytest.MonkeyPatch) -> None:
    none, one = torch.zeros(2, 3, dtype=torch.bool), torch.tensor([[False, True, False]])
    both = over_processes(monkeypatch, lambda v: semi.any_object({"valid": v}), [[none], [one]])
    assert [float(x) for x in both] == [1.0, 1.0]


def test_one_process_asks_nobody() -> None:
    total = torch.tensor(3, requires_grad=False)
    assert float(normaliser.normaliser(total, 1)) == 3.0
    assert float(normaliser.normaliser(torch.tensor(0), 1)) == 1.0
    with pytest.raises(ZeroDivisionError), normaliser.shared_by(2):
        raise ZeroDivisionError
    assert float(normaliser.normaliser(total, 1)) == 3.0


def test_graphs_with_losses_export_and_compile() -> None:
    class Loss(torch.nn.Module):
        def forward(self, logits: Tensor, target: Tensor) -> Tensor:
            return losses.cross_entropy(logits, target)

    given = (noise(B, N, C + 1), labels())
    exported = torch.export.export(Loss(), given).module()
    compiled = torch.compile(Loss(), fullgraph=True, backend="eager")
    for made in (exported, compiled):
        torch.testing.assert_close(made(*given), losses.cross_entropy(*given))
