"""One-to-one matching over padded truth, and the class loss of queries."""

from __future__ import annotations

import pytest
import torch
from scipy.optimize import linear_sum_assignment
from torch.nn import functional as F

from detc.compiler.dims import dim
from detc.compiler.ops.set_match import ClassCost, HungarianMatch, SetCrossEntropy
from detc.compiler.types import Mismatch, instances, tensor
from tests.ops.running import run

QUERIES, TRUTHS, CLASSES = 9, 4, 3
COUNTS = (0, 1, 4)


def truth() -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    valid = torch.arange(TRUTHS) < torch.tensor(COUNTS)[:, None]
    return {
        "boxes": torch.zeros(3, TRUTHS, 4),
        "labels": torch.randint(0, CLASSES, (3, TRUTHS)),
        "valid": valid,
    }


def test_the_match_is_scipys_and_padding_takes_no_part() -> None:
    given = truth()
    cost = torch.rand(3, QUERIES, TRUTHS)
    op = HungarianMatch()
    types = (tensor("B", QUERIES, "G"), instances())
    found = run(op, *types, given=[cost, given])
    for b, count in enumerate(COUNTS):
        rows, columns = linear_sum_assignment(cost[b, :, :count].numpy())
        index = torch.full((QUERIES,), -1)
        index[torch.from_numpy(rows)] = torch.from_numpy(columns)
        assert torch.equal(found["index"][b], index)
        assert torch.equal(found["labels"][b] >= 0, index >= 0)
        assert found["valid"][b].tolist() == given["valid"][b].tolist()
        for g in range(count):
            assert found["index"][b, found["row"][b, g]] == g
            assert found["labels"][b, found["row"][b, g]] == given["labels"][b, g]
    out = op.infer(*types)
    assert out.get("row").shape[1] == dim("G")  # type: ignore[union-attr]


def test_costs_that_are_not_finite_are_a_last_resort() -> None:
    given = {k: v[2:] for k, v in truth().items()}
    cost = torch.rand(1, QUERIES, TRUTHS)
    cost[0, :3] = torch.nan
    cost[0, 3] = torch.inf
    found = run(HungarianMatch(), tensor("B", QUERIES, "G"), instances(), given=[cost, given])
    assert (found["row"] >= 4).all()
    cost[:] = torch.nan
    found = run(HungarianMatch(), tensor("B", QUERIES, "G"), instances(), given=[cost, given])
    assert found["valid"].all() and len(set(found["row"][0].tolist())) == TRUTHS


def test_the_cost_of_a_class_is_its_probability() -> None:
    given = truth()
    logits = torch.randn(3, QUERIES, CLASSES + 1)
    cost = run(ClassCost(), tensor("B", QUERIES, CLASSES + 1), instances(), given=[logits, given])
    expected = -logits.softmax(-1)[2, 5, given["labels"][2, 3]]
    assert cost[2, 5, 3] == pytest.approx(float(expected))


def test_unmatched_queries_count_a_tenth() -> None:
    logits = torch.randn(2, QUERIES, CLASSES + 1, requires_grad=True)
    labels = torch.full((2, QUERIES), -1)
    labels[0, 2], labels[1, 4] = 1, 0
    types = (tensor("B", QUERIES, CLASSES + 1), tensor("B", QUERIES, dtype="int64"))
    loss = run(SetCrossEntropy(background=0.1), *types, given=[logits, labels])
    target = torch.where(labels < 0, CLASSES, labels)
    weight = torch.tensor([1.0, 1.0, 1.0, 0.1])
    expected = F.cross_entropy(logits.flatten(0, 1), target.flatten(), weight=weight)
    torch.testing.assert_close(loss, expected)
    loss.backward()
    assert logits.grad is not None and logits.grad.abs().sum() > 0


def test_what_does_not_fit_is_refused() -> None:
    for op, types in (
        (ClassCost(), (tensor("B", CLASSES), instances())),
        (HungarianMatch(), (tensor("B", QUERIES), instances())),
        (SetCrossEntropy(), (tensor("B", QUERIES, 2), tensor("B", QUERIES, 1))),
    ):
        with pytest.raises(Mismatch):
            op.infer(*types)
