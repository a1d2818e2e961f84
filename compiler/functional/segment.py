"""From queries with masks to objects, panoptic maps and maps of classes: static shapes, no loop over queries.

Shape legend: B images, Q queries, C classes, K detections, H and W pixels of the network's input, P = H W.
"""

from __future__ import annotations

import torch
from torch import Tensor


def content(image: dict[str, Tensor]) -> Tensor:
    """bool [B, H, W], true on the image and false on its padding."""
    height, width = image["pixels"].shape[-2:]
    size_B2 = image["size"]
    rows_H = torch.arange(height, device=size_B2.device)
    columns_W = torch.arange(width, device=size_B2.device)
    return (rows_H < size_B2[:, :1])[:, :, None] & (columns_W < size_B2[:, 1:])[:, None]


def spans(there_BKN: Tensor) -> tuple[Tensor, Tensor]:
    """First index that is true and last one plus 1, float [B, K]; 0 and 0 where none is."""
    count = there_BKN.shape[-1]
    index_N = torch.arange(count, device=there_BKN.device, dtype=torch.float32)
    low_BK = torch.where(there_BKN, index_N, torch.inf).amin(-1)
    high_BK = torch.where(there_BKN, index_N + 1, 0.0).amax(-1)
    return torch.where(high_BK > 0, low_BK, 0.0), high_BK


def boxes_of_masks(masks_BKHW: Tensor) -> Tensor:
    """Boxes [B, K, 4] (x1, y1, x2, y2) around bool masks; zeros for empty ones."""
    x1_BK, x2_BK = spans(masks_BKHW.any(-2))
    y1_BK, y2_BK = spans(masks_BKHW.any(-1))
    return torch.stack((x1_BK, y1_BK, x2_BK, y2_BK), -1)


def boxes_of_ids(ids_BHW: Tensor, count: int) -> Tensor:
    """Boxes [B, count, 4] around the pixels of each number 0 … count - 1; zeros for those that do not occur.

    Args:
        ids_BHW: int64, 0 … count; `count` itself stands for nothing.
    """
    batch, height, width = ids_BHW.shape
    edges = []
    for size, place in (
        (width, torch.arange(width, device=ids_BHW.device)),
        (height, torch.arange(height, device=ids_BHW.device)[:, None]),
    ):
        index_BP = (ids_BHW * size + place).flatten(1)
        seen = torch.zeros(batch, (count + 1) * size, device=ids_BHW.device)
        seen = seen.scatter(1, index_BP, torch.ones_like(index_BP, dtype=seen.dtype))
        edges.append(spans(seen.unflatten(1, (count + 1, size))[:, :count] > 0))
    (x1_BK, x2_BK), (y1_BK, y2_BK) = edges
    return torch.stack((x1_BK, y1_BK, x2_BK, y2_BK), -1)


def areas_of_ids(ids_BHW: Tensor, count: int) -> Tensor:
    """Pixels of each number 0 … count - 1: float32 [B, count]; see `boxes_of_ids`."""
    ids_BP = ids_BHW.flatten(1)
    ones_BP = torch.ones_like(ids_BP, dtype=torch.float32)
    total = torch.zeros(ids_BP.shape[0], count + 1, device=ids_BP.device)
    return total.scatter_add(1, ids_BP, ones_BP)[:, :count]


def _is_listed(labels: Tensor, listed: list[int]) -> Tensor:
    if not listed:
        return torch.zeros_like(labels, dtype=torch.bool)
    return (labels[..., None] == torch.tensor(listed, device=labels.device)).any(-1)


def instance_masks(
    logits_BQC: Tensor, masks_BQHW: Tensor, image: dict[str, Tensor], *, keep: int, stuff: list[int]
) -> dict[str, Tensor]:
    """`InstanceMasks`: detections [B, keep] with `masks` bool [B, keep, H, W]."""
    scores_BQC = logits_BQC.float().softmax(-1)[..., :-1]
    classes = scores_BQC.shape[-1]
    counted_C = ~_is_listed(torch.arange(classes, device=scores_BQC.device), stuff)
    scores_BQC = scores_BQC * counted_C
    top_BK, pair_BK = scores_BQC.flatten(1).topk(keep, dim=-1)
    query_BK = torch.div(pair_BK, classes, rounding_mode="floor")
    pixels = masks_BQHW.shape[-2:]
    shares_BKHW = masks_BQHW.gather(1, query_BK[..., None, None].expand(-1, -1, *pixels)).float().sigmoid()
    inside_BKHW = (shares_BKHW > 0.5) & content(image)[:, None]
    area_BK = inside_BKHW.sum((-2, -1))
    sure_BK = (shares_BKHW * inside_BKHW).sum((-2, -1)) / (area_BK + 1e-6)
    score_BK, order_BK = (top_BK * sure_BK).topk(keep, dim=-1)
    inside_BKHW = inside_BKHW.gather(1, order_BK[..., None, None].expand(-1, -1, *pixels))
    valid_BK = score_BK > 0
    return {
        "boxes": boxes_of_masks(inside_BKHW) * valid_BK[..., None],
        "scores": score_BK,
        "labels": (pair_BK % classes).gather(1, order_BK) * valid_BK,
        "valid": valid_BK,
        "masks": inside_BKHW,
    }


def panoptic_fusion(
    logits_BQC: Tensor,
    masks_BQHW: Tensor,
    image: dict[str, Tensor],
    *,
    stuff: list[int],
    score: float,
    overlap: float,
) -> dict[str, Tensor]:
    """`PanopticFusion`: detections [B, Q], best first, with `panoptic` int64 [B, H, W]."""
    queries = logits_BQC.shape[1]
    best_BQ, labels_BQ = logits_BQC.float().softmax(-1).max(-1)
    taking_BQ = (labels_BQ < logits_BQC.shape[-1] - 1) & (best_BQ > score)
    weight_BQ = torch.where(taking_BQ, best_BQ, 0.0)
    shares_BQHW = masks_BQHW.float().sigmoid()
    inside_BHW = content(image)
    strongest_BHW, query_BHW = (shares_BQHW * weight_BQ[..., None, None]).max(1)
    firm_BHW = shares_BQHW.gather(1, query_BHW[:, None]).squeeze(1) >= 0.5
    own_BQ = ((shares_BQHW >= 0.5) & inside_BHW[:, None]).sum((-2, -1))

    # from here on queries are in order of their scores
    self_Q = torch.arange(queries, device=labels_BQ.device)
    rank_BQ, order_BQ = weight_BQ.topk(queries, dim=-1)
    place_BQ = torch.zeros_like(order_BQ).scatter(1, order_BQ, self_Q.expand_as(order_BQ))
    owner_BHW = place_BQ.gather(1, query_BHW.flatten(1)).view_as(query_BHW)
    labels_BQ, taking_BQ, own_BQ = (x.gather(1, order_BQ) for x in (labels_BQ, taking_BQ, own_BQ))
    claimed_BHW = inside_BHW & (strongest_BHW > 0)
    got_BQ = areas_of_ids(torch.where(claimed_BHW, owner_BHW, queries), queries)
    firm_owner_BHW = torch.where(claimed_BHW & firm_BHW, owner_BHW, queries)
    seen_BQ = areas_of_ids(firm_owner_BHW, queries) > 0
    kept_BQ = taking_BQ & seen_BQ & (got_BQ >= overlap * own_BQ)

    # a stuff query joins the first kept one of its class
    is_stuff_BQ = _is_listed(labels_BQ, stuff) & kept_BQ
    same_BQQ = (labels_BQ[:, :, None] == labels_BQ[:, None]) & is_stuff_BQ[:, :, None] & is_stuff_BQ[:, None]
    first_BQ = torch.where(same_BQQ, self_Q, queries).amin(-1)
    target_BQ = torch.where(is_stuff_BQ, first_BQ, torch.where(kept_BQ, self_Q, queries))
    target_BR = torch.cat((target_BQ, torch.full_like(target_BQ[:, :1], queries)), 1)
    ids_BHW = target_BR.gather(1, firm_owner_BHW.flatten(1)).view_as(firm_owner_BHW)

    valid_BQ = target_BQ == self_Q
    return {
        "boxes": boxes_of_ids(ids_BHW, queries) * valid_BQ[..., None],
        "scores": rank_BQ * valid_BQ,
        "labels": labels_BQ * valid_BQ,
        "valid": valid_BQ,
        "panoptic": torch.where(ids_BHW < queries, ids_BHW + 1, 0),
    }


def class_map(logits_BQC: Tensor, masks_BQHW: Tensor, image: dict[str, Tensor]) -> dict[str, Tensor]:
    """`ClassMap`: detections [B, C], best first, with `semantic` int64 [B, H, W]."""
    scores_BQC = logits_BQC.float().softmax(-1)[..., :-1]
    classes = scores_BQC.shape[-1]
    sums_BCHW = torch.einsum("bqc,bqhw->bchw", scores_BQC, masks_BQHW.float().sigmoid())
    class_BHW = sums_BCHW.argmax(1)
    inside_BHW = content(image)
    ids_BHW = torch.where(inside_BHW, class_BHW, classes)
    sure_BC = (sums_BCHW * inside_BHW[:, None]).amax((-2, -1)).clamp(max=1)
    there_BC = areas_of_ids(ids_BHW, classes) > 0
    score_BC, label_BC = torch.where(there_BC, sure_BC, 0.0).topk(classes, dim=-1)
    valid_BC = score_BC > 0
    boxes_BC4 = boxes_of_ids(ids_BHW, classes).gather(1, label_BC[..., None].expand(-1, -1, 4))
    return {
        "boxes": boxes_BC4 * valid_BC[..., None],
        "scores": score_BC,
        "labels": label_BC * valid_BC,
        "valid": valid_BC,
        "semantic": torch.where(inside_BHW, class_BHW, -1),
    }
