"""Masks at points, the masks of queries, and what matching them costs."""

from __future__ import annotations

from fractions import Fraction

import pytest
import torch
from torch.nn import functional as F

from detc.compiler.dims import dim
from detc.compiler.ops.mask_points import PointSample, RandomPoints, TakeMasks, UncertainPoints
from detc.compiler.ops.mask_queries import MaskCost, MaskedView, QueryMasks, RowBCE
from detc.compiler.types import Image, Map, Mismatch, struct, tensor
from tests.ops.running import run


def grid(masks: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    """torch's sampler at [M, P, 2] for masks [M, H, W]."""
    return F.grid_sample(masks[:, None], 2 * points[:, None] - 1, align_corners=False)[:, 0, 0]


def test_points_of_an_image_and_points_of_each_mask() -> None:
    torch.manual_seed(0)
    masks = torch.randn(2, 3, 8, 12)
    shared, own = torch.rand(2, 40, 2), torch.rand(2, 3, 40, 2)
    kind = {"kind": "points"}
    types = (tensor("B", 3, 8, 12), tensor("B", 40, 2, **kind))
    found = run(PointSample(), *types, given=[masks, shared])
    wide = shared[:, None].expand(-1, 3, -1, -1).flatten(0, 1)
    torch.testing.assert_close(found.flatten(0, 1), grid(masks.flatten(0, 1), wide))
    found = run(PointSample(), types[0], tensor("B", 3, 40, 2, **kind), given=[masks > 0, own])
    torch.testing.assert_close(
        found.flatten(0, 1), grid((masks > 0).float().flatten(0, 1), own.flatten(0, 1))
    )
    assert PointSample().infer(Map(3, Fraction(4), dim("H"), dim("W")), types[1]).shape[1] == dim(3)
    with pytest.raises(Mismatch, match="B, P, 2"):
        PointSample().infer(types[0], tensor("B", 40, 3))
    with pytest.raises(Mismatch, match="3 predictions for 5"):
        PointSample().infer(types[0], tensor("B", 5, 40, 2))


def test_uncertain_points_lie_where_logits_are_near_zero() -> None:
    torch.manual_seed(0)
    ramp = torch.linspace(-8, 8, 32).expand(1, 2, 32, 32)  # zero in the middle column
    types = (tensor("B", 2, 32, 32),)
    op = UncertainPoints(count=100, oversample=3.0, importance=0.75)
    points = run(op, *types, given=[ramp.contiguous()])
    assert points.shape == (1, 2, 100, 2) == tuple(d.evaluate({"B": 1}) for d in op.infer(*types).shape)
    assert (points[..., :75, 0] - 0.5).abs().max() < 0.2
    assert (points[..., 75:, 0] - 0.5).abs().max() > 0.35
    every = run(UncertainPoints(count=64, importance=0.0), *types, given=[ramp.contiguous()])
    assert (every[..., 0] - 0.5).abs().mean() == pytest.approx(0.25, abs=0.06)


def test_points_come_from_torchs_generator() -> None:
    image = {"pixels": torch.zeros(3, 3, 8, 8), "size": torch.full((3, 2), 8.0)}
    op = RandomPoints(count=50)
    found = []
    for _ in range(2):
        torch.manual_seed(4)
        found.append(run(op, Image(dim("H"), dim("W")), given=[image]))
    assert torch.equal(*found) and found[0].shape == (3, 50, 2)
    assert 0 <= found[0].min() and found[0].max() < 1


def test_each_truth_takes_the_mask_that_found_it() -> None:
    masks = torch.randn(2, 5, 4, 4)
    row = torch.tensor([[3, -1, 0], [4, 1, -1]])
    match = struct("match", row=tensor("B", 3, dtype="int64"))
    found = run(TakeMasks(), tensor("B", 5, 4, 4), match, given=[masks, {"row": row}])
    assert torch.equal(found[0, 0], masks[0, 3]) and torch.equal(found[1, 1], masks[1, 1])
    with pytest.raises(Mismatch, match="which row"):
        TakeMasks().infer(tensor("B", 5, 4, 4), struct("match", index=tensor("B", 5)))


def test_queries_draw_their_masks() -> None:
    query, pixels = torch.randn(2, 5, 8), torch.randn(2, 8, 6, 7)
    x = Map(8, Fraction(4), dim(6), dim(7))
    op = QueryMasks()
    found = run(op, tensor("B", 5, 8), x, given=[query, pixels])
    torch.testing.assert_close(found[1, 3, 2, 4], query[1, 3] @ pixels[1, :, 2, 4])
    assert op.infer(tensor("B", 5, 8), x).channels == 5
    with pytest.raises(Mismatch, match="width 9 and pixels of 8"):
        op.infer(tensor("B", 5, 9), x)


def test_a_query_looks_where_its_mask_is_or_everywhere() -> None:
    masks = torch.full((1, 3, 8, 8), -5.0)
    masks[0, 0, :4, :4] = 5.0
    masks[0, 2] = 5.0
    like = Map(6, Fraction(8), dim(4), dim(4))
    seen = run(
        MaskedView(), Map(3, Fraction(4), dim(8), dim(8)), like, given=[masks, torch.zeros(1, 6, 4, 4)]
    )
    assert seen[0, 0].view(4, 4).nonzero().tolist() == [[0, 0], [0, 1], [1, 0], [1, 1]]
    assert seen[0, 1].all() and seen[0, 2].all()


def test_the_cost_is_the_loss_of_each_pair() -> None:
    torch.manual_seed(0)
    logits, target = torch.randn(2, 5, 30), (torch.rand(2, 3, 30) > 0.5).float()
    cost = run(MaskCost(bce=2.0, dice=3.0), tensor("B", 5, 30), tensor("B", 3, 30), given=[logits, target])
    x, t = logits[1, 4], target[1, 2]
    dice = 1 - (2 * (x.sigmoid() * t).sum() + 1) / (x.sigmoid().sum() + t.sum() + 1)
    expected = 2 * F.binary_cross_entropy_with_logits(x, t) + 3 * dice
    torch.testing.assert_close(cost[1, 4, 2], expected)
    with pytest.raises(Mismatch, match="30 points against masks at 20"):
        MaskCost().infer(tensor("B", 5, 30), tensor("B", 3, 20))


def test_rows_that_do_not_count_are_left_out() -> None:
    torch.manual_seed(0)
    logits, target = torch.randn(2, 3, 7), torch.rand(2, 3, 7)
    valid = torch.tensor([[True, False, True], [False] * 3])
    types = (tensor("B", 3, 7), tensor("B", 3, 7), tensor("B", 3, dtype="bool"))
    found = run(RowBCE(), *types, given=[logits, target, valid])
    expected = F.binary_cross_entropy_with_logits(logits[0, [0, 2]], target[0, [0, 2]])
    torch.testing.assert_close(found, expected)
    assert run(RowBCE(), *types, given=[logits, target, valid & False]) == 0
