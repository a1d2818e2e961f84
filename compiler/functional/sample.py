"""Choosing a fixed number of boxes: top-k with padding, random samples, gathering.

Shape legend: B images, N boxes or anchors, G truths, K slots.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

BACKGROUND, IGNORED = -1, -2  # in place of an index of a truth, or of a class


def topk_padded(values_BN: Tensor, k: int, fill: float) -> tuple[Tensor, Tensor]:
    """The `k` largest values of each row and their indices, both [B, k], also where N < k.

    Slots that no element fills hold `fill` (which must be below every value that counts) and an index that
    is safe to gather with. With a symbolic N the row is always padded: that needs no guard on N.
    """
    n = values_BN.shape[-1]
    if isinstance(n, torch.SymInt):
        values_BN = F.pad(values_BN, (0, k), value=fill)
    elif n < k:
        values_BN = F.pad(values_BN, (0, k - n), value=fill)
    top_BK, index_BK = values_BN.topk(k, dim=-1)
    return top_BK, index_BK.clamp(max=n - 1)


def take_rows(rows: Tensor, index_BK: Tensor) -> Tensor:
    """Rows [B, K, ...] of a tensor [B, N, ...] at `index_BK`."""
    trailing = rows.shape[2:]
    index = index_BK.view(*index_BK.shape, *[1] * len(trailing)).expand(*index_BK.shape, *trailing)
    return rows.gather(1, index)


def take(rows: Any, pick: dict[str, Tensor] | Tensor, *, shared: bool = False) -> Any:
    """`Take`: the rows that a sample chose.

    Args:
        rows: [B, N, ...]; [N, ...] with `shared`; or a dict of tensors [B, N, ...].
        pick: with `index` [B, K] and `valid` [B, K]; or the index alone.

    Returns:
        [B, K, ...], or a dict of such; a dict's `valid` is false in slots that were not filled.
    """
    index_BK = pick["index"] if isinstance(pick, dict) else pick
    if not isinstance(rows, dict):
        return rows[index_BK] if shared else take_rows(rows, index_BK)
    taken = {name: take_rows(x, index_BK) for name, x in rows.items()}
    if isinstance(pick, dict):
        taken["valid"] = taken["valid"] & pick["valid"]
    return taken


def random_sample(match: dict[str, Tensor], *, n: int, positive: float) -> dict[str, Tensor]:
    """`RandomSample`: at most `n * positive` matched boxes and, in the slots left, unmatched ones.

    Sampling is top-k over random keys: all matched boxes that were drawn rank above all unmatched ones, and
    those above the ignored. Draws from torch's global generator.

    Args:
        match: with `index` [B, N], see `compiler.functional.match`.

    Returns:
        `index` [B, n] int64 into N, `positive` [B, n] bool, `valid` [B, n] bool.
    """
    index_BN = match["index"]
    is_positive_BN, is_negative_BN = index_BN >= 0, index_BN == BACKGROUND
    key_BN = torch.rand_like(index_BN, dtype=torch.float32)
    drawn_BP, where_BP = topk_padded(torch.where(is_positive_BN, key_BN, -1.0), int(n * positive), -1.0)
    # 2 marks a drawn positive; slots that hold no positive add nothing
    mark_BN = torch.zeros_like(key_BN).scatter_add(1, where_BP, 2.0 * (drawn_BP >= 0))
    rank_BN = torch.where(mark_BN > 0, 2.0, torch.where(is_negative_BN, key_BN, -1.0))
    rank_BK, chosen_BK = topk_padded(rank_BN, n, -1.0)
    return {"index": chosen_BK, "positive": rank_BK >= 2, "valid": rank_BK >= 0}


def first(rows: Any, *, n: int) -> Any:
    """`First`: the first `n` rows of a tensor [B, N, ...], or of each tensor of a dict, also inside dicts."""
    if isinstance(rows, dict):
        return {name: first(x, n=n) for name, x in rows.items()}
    return rows[:, :n]


def with_truth(boxes: dict[str, Tensor], truth: dict[str, Tensor]) -> dict[str, Tensor]:
    """`WithTruth`: proposals [B, K] with the truth's boxes [B, G] after them, which `given` marks.

    Returns:
        `boxes` [B, K + G, 4], `scores`, `valid`, `given` [B, K + G].
    """
    scores_BG = torch.ones_like(truth["boxes"][..., 0])
    joined = {
        "boxes": torch.cat((boxes["boxes"], truth["boxes"]), 1),
        "scores": torch.cat((boxes["scores"], scores_BG), 1),
        "valid": torch.cat((boxes["valid"], truth["valid"]), 1),
        "given": torch.cat((torch.zeros_like(boxes["valid"]), truth["valid"]), 1),
    }
    return {name: x.detach() for name, x in joined.items()}
