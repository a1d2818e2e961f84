"""Pseudo labels, box jitter and boxes between views, against plain numpy or by what must hold."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from detc.compiler.functional import semi


def found(count: int = 3, seed: int = 0) -> dict[str, torch.Tensor]:
    rng = torch.Generator().manual_seed(seed)
    corner = torch.rand(2, count, 2, generator=rng) * 40
    boxes = torch.cat([corner, corner + 5 + torch.rand(2, count, 2, generator=rng) * 30], -1)
    scores = torch.rand(2, count, generator=rng).sort(-1, descending=True).values
    return {
        "boxes": boxes,
        "scores": scores,
        "labels": torch.randint(0, 4, (2, count), generator=rng),
        "valid": torch.ones(2, count, dtype=torch.bool),
    }


def test_labels_are_the_sure_ones_and_keep_the_capacity() -> None:
    d = found(6)
    d["valid"][0, 0] = False
    out = semi.pseudo_labels(d, score=0.5, spread=None)
    assert out["boxes"].shape == (2, 6, 4) and set(out) == {"boxes", "labels", "valid"}
    assert torch.equal(out["valid"], d["valid"] & (d["scores"] > 0.5))
    scatter = torch.linspace(0, 0.05, 12).view(2, 6)
    out = semi.pseudo_labels(d, scatter, score=0.2, spread=0.02)
    assert torch.equal(out["valid"], d["valid"] & (d["scores"] > 0.2) & (scatter < 0.02))


def test_jitter_stays_within_its_share_of_the_sides() -> None:
    d = found(5)
    out = semi.jitter_boxes(d, times=7, amount=0.06)
    assert out["boxes"].shape == (2, 35, 4) and out["valid"].shape == (2, 35)
    moved = out["boxes"].view(2, 5, 7, 4) - d["boxes"][:, :, None]
    sides = (d["boxes"][..., 2:] - d["boxes"][..., :2]).repeat(1, 1, 2)
    share = (moved / sides[:, :, None]).abs()
    assert share.max() <= 0.06 + 1e-6 and share.max() > 0.05
    assert torch.equal(out["scores"].view(2, 5, 7)[..., 0], d["scores"])


def test_scatter_is_the_deviation_over_the_sides() -> None:
    d = found(3)
    again = semi.jitter_boxes(d, times=5, amount=0.2)["boxes"]
    out = semi.scatter(d, again)
    boxes, asked = d["boxes"].numpy(), again.numpy().reshape(2, 3, 5, 4)
    width, height = boxes[..., 2] - boxes[..., 0], boxes[..., 3] - boxes[..., 1]
    want = (asked.std(2, ddof=1) / (0.5 * (width + height))[..., None]).mean(-1)
    np.testing.assert_allclose(out.numpy(), want, rtol=1e-5)
    same = d["boxes"].repeat_interleave(5, 1)
    assert semi.scatter(d, {"boxes": same}).max() < 1e-6
    by_class = torch.randn(2, 15, 4, 4)
    chosen = torch.stack([by_class[b, n, d["labels"][b, n // 5]] for b in range(2) for n in range(15)])
    torch.testing.assert_close(semi.scatter(d, by_class), semi.scatter(d, chosen.view(2, 15, 4)))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 1 << 20))
def test_the_inverse_of_a_homography(seed: int) -> None:
    rng = np.random.default_rng(seed)
    matrix = np.eye(3) + rng.uniform(-0.4, 0.4, (2, 3, 3))
    got = semi.inverse(torch.tensor(matrix))
    np.testing.assert_allclose(got.numpy(), np.linalg.inv(matrix), rtol=1e-6, atol=1e-6)


def view(matrix: np.ndarray, height: float, width: float) -> dict[str, object]:
    return {
        "matrix": torch.tensor(matrix, dtype=torch.float32)[None],
        "image": {"size": torch.tensor([[height, width]])},
    }


def test_boxes_go_to_the_other_view_and_are_clipped() -> None:
    here = view(np.array([[-2.0, 0, 100], [0, 2, 0], [0, 0, 1]]), 80, 100)  # doubled and mirrored
    there = view(np.array([[1.0, 0, -10], [0, 1, 5], [0, 0, 1]]), 30, 30)  # shifted
    boxes = torch.tensor([[[40.0, 20, 60, 40], [96, 0, 100, 4], [10, 10, 50, 30]]])
    d = {"boxes": boxes, "labels": torch.zeros(1, 3), "valid": torch.ones(1, 3, dtype=torch.bool)}
    out = semi.to_view(d, here, there, min_size=1.0)
    want = [[10.0, 15, 20, 25], [0, 5, 0, 7], [15, 10, 30, 20]]
    torch.testing.assert_close(out["boxes"][0], torch.tensor(want))
    assert out["valid"].tolist() == [[True, False, True]]


def test_asked_boxes_are_answered_by_the_point_below_them() -> None:
    strides = [8.0, 16.0]
    levels = [torch.zeros(1, 4, 6, 8), torch.zeros(1, 4, 3, 4)]
    rows = torch.arange(48 + 12, dtype=torch.float32)
    boxes = rows[None, :, None].expand(1, -1, 4)
    asked = {"boxes": torch.tensor([[[0.0, 0, 64, 40], [4, 4, 188, 100], [500, 500, 560, 560]]])}
    out = semi.at_points(levels, boxes, asked, strides=strides, offset=0.5, size=11.3)[0, :, 0]
    # centre (32, 20), 64 wide: stride 8, row 2, column 3 or 4; (96, 52), 184 wide: stride 16, beyond the map
    assert out[0] in (2 * 8 + 3, 2 * 8 + 4) and out[1] == 48 + 2 * 4 + 3 and out[2] == 47


def test_any_object() -> None:
    valid = torch.zeros(2, 3, dtype=torch.bool)
    assert semi.any_object({"valid": valid}) == 0.0
    valid[1, 2] = True
    assert semi.any_object({"valid": valid}) == 1.0


def test_the_doubtful_are_those_between_two_scores() -> None:
    d = found(6)
    out = semi.pseudo_labels(d, score=0.2, spread=None, below=0.6)
    assert torch.equal(out["valid"], (d["scores"] > 0.2) & (d["scores"] <= 0.6))
    both = semi.pseudo_labels(d, score=0.6, spread=None)["valid"] | out["valid"]
    assert torch.equal(both, d["scores"] > 0.2)


def test_what_is_in_doubt_is_painted_over_but_not_what_is_sure() -> None:
    rng = torch.Generator().manual_seed(3)
    pixels = torch.rand(2, 3, 40, 50, generator=rng) * 100
    size = torch.tensor([[40.0, 50.0]] * 2)
    hidden, shown = found(3, seed=1), found(2, seed=2)
    hidden["valid"][0, 1] = False
    out = semi.cover({"pixels": pixels, "size": size}, hidden, shown, fill=114.0)
    want = pixels.numpy().copy()
    for b, y, x in np.ndindex(2, 40, 50):
        within = [
            any(
                bool(ok) and q[0] <= x + 0.5 < q[2] and q[1] <= y + 0.5 < q[3]
                for q, ok in zip(some["boxes"][b].tolist(), some["valid"][b], strict=True)
            )
            for some in (hidden, shown)
        ]
        if within[0] and not within[1]:
            want[b, :, y, x] = 114.0
    np.testing.assert_array_equal(out["pixels"].numpy(), want)
    assert (out["pixels"] == 114).any() and torch.equal(out["size"], size)
    everything = semi.cover({"pixels": pixels, "size": size}, hidden, fill=114.0)["pixels"] == 114
    assert (everything | ~(out["pixels"] == 114)).all() and everything.sum() > (out["pixels"] == 114).sum()
    nobody = {**hidden, "valid": torch.zeros_like(hidden["valid"])}
    assert torch.equal(semi.cover({"pixels": pixels, "size": size}, nobody, fill=1.0)["pixels"], pixels)
