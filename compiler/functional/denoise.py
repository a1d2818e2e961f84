"""Contrastive denoising queries of DINO (Zhang et al., ICLR 2023, section 3.3), with static shapes.

Shape legend: B images, G truths, R groups, D = 2 G R noisy queries (by group, first the positives of all truths,
then the negatives), N other queries, T = D + N.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from detc.compiler.functional.sample import BACKGROUND, IGNORED
from detc.compiler.functional.set_prediction import targets_of, to_fractions


@torch.no_grad()
def contrastive_denoising(
    truth: dict[str, Tensor],
    image: dict[str, Tensor],
    *,
    classes: int,
    queries: int,
    count: int,
    label_noise: float,
    box_noise: float,
    eps: float,
) -> dict[str, Any]:
    """`ContrastiveDenoising`: noisy `labels` and `boxes`, the attention `mask`, and the `target`."""
    batch, capacity = truth["labels"].shape
    groups = max(count // capacity, 1)
    device = truth["labels"].device
    index_D = torch.arange(capacity, device=device).repeat(2 * groups)
    negative_D = (torch.arange(2 * groups, device=device) % 2 == 1).repeat_interleave(capacity)
    index_BD, valid_BD = index_D.expand(batch, -1), truth["valid"][:, index_D]
    target = targets_of(index_BD, truth, image)
    labels_BD, wanted_BD4 = truth["labels"][:, index_D], truth["boxes"].float()[:, index_D]
    kept_BD = valid_BD & ~negative_D
    role_BD = torch.where(valid_BD, torch.where(negative_D, BACKGROUND, labels_BD), IGNORED)
    target["labels"], target["positive"] = role_BD, kept_BD.float()
    target["codes"] = {"values": target["codes"]["values"], "labels": role_BD}  # type: ignore[index, assignment]

    drawn_BD = torch.randint_like(labels_BD, classes)
    other_BD = torch.rand(labels_BD.shape, device=device) < label_noise * 0.5
    noisy_BD = torch.where(other_BD, drawn_BD, labels_BD)
    # each corner moves by up to half the object's size, a negative's by half to all of it
    size_BD4 = (wanted_BD4[..., 2:] - wanted_BD4[..., :2]).repeat(1, 1, 2)
    sign_BD4 = torch.randint_like(wanted_BD4, 2) * 2 - 1
    part_BD4 = (torch.rand_like(wanted_BD4) + negative_D[:, None]) * sign_BD4
    moved_BD4 = wanted_BD4 + part_BD4 * size_BD4 * (box_noise / 2)
    limit_B14 = image["size"].float().flip(-1).repeat(1, 2)[:, None]
    boxes_BD4 = to_fractions(torch.minimum(moved_BD4.clamp(min=0), limit_B14), image).clamp(eps, 1 - eps)
    return {
        "labels": noisy_BD,
        "boxes": boxes_BD4,
        "mask": group_mask(valid_BD, capacity, queries),
        "target": target,
    }


def group_mask(valid_BD: Tensor, capacity: int, queries: int) -> Tensor:
    """[B, T, T]: noisy queries look at the valid ones of their own group and at all others, these only at each other."""
    batch, noisy = valid_BD.shape
    place_T = torch.arange(noisy + queries, device=valid_BD.device)
    other_T = place_T >= noisy
    group_T = torch.where(other_T, -1, place_T // (2 * capacity))
    valid_BT = torch.cat((valid_BD, valid_BD.new_ones(batch, queries)), 1)
    return other_T | ((group_T[:, None] == group_T) & valid_BT[:, None])
