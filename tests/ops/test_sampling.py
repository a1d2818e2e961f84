"""Random sampling with fixed capacity, and top-k with padding."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from detc.compiler.functional.sample import random_sample, take, topk_padded, with_truth


@given(
    seed=st.integers(0, 10_000),
    positives=st.integers(0, 60),
    negatives=st.integers(0, 60),
    ignored=st.integers(0, 20),
    n=st.integers(1, 80),
    fraction=st.sampled_from([0.25, 0.5, 1.0]),
)
@settings(max_examples=150, deadline=None)
def test_counts_are_those_of_a_balanced_sampler(
    seed: int, positives: int, negatives: int, ignored: int, n: int, fraction: float
) -> None:
    torch.manual_seed(seed)
    index = torch.tensor([3] * positives + [-1] * negatives + [-2] * ignored + [-2])
    index = index[torch.randperm(len(index))]
    pick = random_sample({"index": index[None]}, n=n, positive=fraction)
    expected_positives = min(positives, int(n * fraction))
    expected_negatives = min(negatives, n - expected_positives)
    assert pick["index"].shape == (1, n)
    assert int(pick["positive"].sum()) == expected_positives
    assert int(pick["valid"].sum()) == expected_positives + expected_negatives
    chosen = pick["index"][pick["valid"]]
    assert len(chosen.unique()) == len(chosen)
    assert torch.equal(index[chosen] >= 0, pick["positive"][pick["valid"]])
    assert (index[chosen] != -2).all()


def test_every_box_is_drawn_equally_often() -> None:
    torch.manual_seed(0)
    index = torch.tensor([0] * 10 + [-1] * 20).expand(4000, -1)
    pick = random_sample({"index": index}, n=8, positive=0.5)
    counts = torch.zeros(30).index_add(0, pick["index"].flatten(), torch.ones(32_000))
    assert torch.allclose(counts[:10], torch.tensor(4000 * 4 / 10), rtol=0.08)
    assert torch.allclose(counts[10:], torch.tensor(4000 * 4 / 20), rtol=0.12)


def test_topk_pads_short_rows() -> None:
    values, index = topk_padded(torch.tensor([[3.0, 1.0]]), 4, -1.0)
    assert values.tolist() == [[3.0, 1.0, -1.0, -1.0]]
    assert index.tolist()[0][:2] == [0, 1]
    assert int(index.max()) < 2


def test_take() -> None:
    pick = {"index": torch.tensor([[2, 0], [1, 1]]), "valid": torch.tensor([[True, True], [True, False]])}
    rows = torch.arange(24.0).view(2, 3, 4)
    assert torch.equal(take(rows, pick), torch.stack((rows[0, [2, 0]], rows[1, [1, 1]])))
    assert torch.equal(take(rows[0], pick, shared=True), rows[0][pick["index"]])
    out = take({"boxes": rows, "valid": torch.ones(2, 3, dtype=torch.bool)}, pick)
    assert out["valid"].tolist() == pick["valid"].tolist()


def test_truth_is_added_and_marked() -> None:
    rois = {"boxes": torch.rand(1, 2, 4), "scores": torch.rand(1, 2), "valid": torch.tensor([[True, False]])}
    truth = {"boxes": torch.rand(1, 3, 4), "valid": torch.tensor([[True, True, False]])}
    out = with_truth(rois, truth)
    assert out["valid"].tolist() == [[True, False, True, True, False]]
    assert out["given"].tolist() == [[False, False, True, True, False]]
    assert torch.equal(out["boxes"][:, 2:], truth["boxes"])
