"""Tracks: filters against full matrices, association against search, births and deaths, static graphs."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
import torch

from detc.compiler.functional import kalman, tracks
from detc.compiler.functional.track_match import match_tracks

ALL = ["new", "tracked", "lost"]
MATCH = {"above": 0.0, "below": None, "iou": 0.3, "of": ALL, "fuse": False, "by_class": True}


def detections(*rows: list[float], capacity: int = 6, label: int = 0) -> dict[str, torch.Tensor]:
    """One video's detections: rows of x1 y1 x2 y2 score."""
    padded = torch.zeros(1, capacity, 5)
    if rows:
        padded[0, : len(rows)] = torch.tensor(rows)
    return {
        "boxes": padded[..., :4],
        "scores": padded[..., 4],
        "labels": torch.full((1, capacity), label),
        "valid": torch.arange(capacity)[None] < len(rows),
    }


def frame(
    state: dict[str, torch.Tensor],
    found: dict[str, torch.Tensor],
    *,
    motion: str = "xyah",
    keep: int = 2,
    confirm: int = 1,
    above: float = 0.0,
) -> dict[str, torch.Tensor]:
    """One frame of a tracker with one round."""
    moved = tracks.predict(state, motion=motion, of=ALL)
    matches = match_tracks(moved, found, **MATCH)
    moved = tracks.update(moved, found, matches, motion=motion, keep=keep)
    return tracks.start(moved, found, matches, motion=motion, above=above, confirm=confirm)


@pytest.mark.parametrize("motion", ["xyah", "xysr"])
def test_filters_equal_full_matrices(motion: str) -> None:
    """The blockwise filter against the textbook's matrices, in float64."""
    rng = np.random.default_rng(0)
    boxes = torch.tensor(np.cumsum(rng.normal(0, 2, (6, 4)), 0) + [10, 20, 60, 120], dtype=torch.float64)
    mean, covariance = kalman.kalman_begin(boxes[0], motion)
    velocity = torch.zeros_like(mean)
    x = np.concatenate([mean.numpy(), np.zeros(4)])
    p = np.diag(np.concatenate([covariance[:, 0].numpy(), covariance[:, 2].numpy()]))
    f = np.eye(8) + np.eye(8, k=4)
    for box in boxes[1:]:
        h = x[3]
        if motion == "xyah":
            q = np.array([h / 20, h / 20, 1e-2, h / 20, h / 160, h / 160, 1e-5, h / 160]) ** 2
        else:
            q = np.array([1, 1, 1, 1, 1e-2, 1e-2, 1e-4, 0])
        x, p = f @ x, f @ p @ f.T + np.diag(q)
        mean, velocity, covariance = kalman.kalman_predict(
            mean, velocity, covariance, torch.tensor(False), motion
        )
        r = (
            np.array([x[3] / 20, x[3] / 20, 1e-1, x[3] / 20]) ** 2
            if motion == "xyah"
            else np.array([1, 1, 10, 10])
        )
        z = kalman.boxes_to_mean(box, motion).numpy()
        gain = p[:, :4] @ np.linalg.inv(p[:4, :4] + np.diag(r))
        x, p = x + gain @ (z - x[:4]), p - gain @ p[:4]
        mean, velocity, covariance = kalman.kalman_correct(mean, velocity, covariance, box, motion)
        np.testing.assert_allclose(np.concatenate([mean, velocity]), x, rtol=1e-9)
        np.testing.assert_allclose(covariance[:, 0], np.diag(p)[:4], rtol=1e-9)
        np.testing.assert_allclose(covariance[:, 1], np.diag(p[:4, 4:]), rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(
        kalman.mean_to_boxes(kalman.boxes_to_mean(boxes, motion), motion), boxes, rtol=1e-9, atol=1e-9
    )


def test_matching_has_the_greatest_gain_of_all() -> None:
    rng = np.random.default_rng(1)
    for _ in range(30):
        corner = rng.uniform(0, 25, (2, 4, 2))
        boxes = np.concatenate([corner, corner + rng.uniform(10, 30, (2, 4, 2))], -1).astype(np.float32)
        found = detections(*[[*b, 0.9] for b in boxes[1].tolist()], capacity=4)
        state = tracks.no_tracks(torch.zeros(1), cap=4)
        state |= {"boxes": torch.tensor(boxes[:1]), "valid": torch.ones(1, 4, dtype=torch.bool)}
        matches = match_tracks(state, found, **MATCH)
        overlap = tracks.pairwise_iou(state["boxes"], found["boxes"])[0].numpy()
        gain = np.maximum(overlap - 0.3, 0)
        best = max(sum(gain[i, j] for i, j in enumerate(order)) for order in permutations(range(4)))
        picked = [(i, int(j)) for i, j in enumerate(matches["detection"][0]) if j >= 0]
        assert sum(gain[i, j] for i, j in picked) == pytest.approx(best, abs=1e-5)
        assert all(overlap[i, j] > 0.3 for i, j in picked)
        for i, j in picked:
            assert int(matches["track"][0, j]) == i


def test_rounds_keep_what_earlier_ones_matched() -> None:
    state = frame(
        tracks.no_tracks(torch.zeros(1), cap=4), detections([0, 0, 10, 10, 0.9], [50, 50, 60, 60, 0.9])
    )
    found = detections([0, 0, 10, 10, 0.9], [50, 50, 60, 60, 0.3])
    first = match_tracks(state, found, **{**MATCH, "above": 0.6})
    assert first["detection"][0].tolist() == [0, -1, -1, -1]
    second = match_tracks(state, found, first, **{**MATCH, "above": 0.1, "below": 0.6})
    assert second["detection"][0].tolist() == [0, 1, -1, -1]
    assert second["track"][0].tolist()[:2] == [0, 1]
    other = match_tracks(state, {**found, "labels": torch.ones(1, 6, dtype=torch.int64)}, **MATCH)
    assert (other["detection"] < 0).all()


def test_a_life() -> None:
    """Born, confirmed by a match, lost for two frames, found again under its id, ended after more."""
    box = [20.0, 20.0, 40.0, 60.0, 0.9]
    state = tracks.no_tracks(torch.zeros(1), cap=3)
    state = frame(state, detections())
    state = frame(state, detections(box))
    assert state["ids"][0].tolist() == [1, 0, 0] and not state["confirmed"].any()
    assert not tracks.report(state, hits=1)["valid"].any()  # seen once, and not in the first frame
    state = frame(state, detections(box))
    assert state["confirmed"][0, 0] and tracks.report(state, hits=1)["ids"][0, 0] == 1
    for _ in range(2):
        state = frame(state, detections())
        assert state["valid"][0, 0] and not tracks.report(state, hits=1)["valid"].any()
    assert tracks.report(frame(state, detections(box)), hits=1)["ids"][0, 0] == 1
    state = frame(state, detections())
    assert not state["valid"].any() and state["last_id"].item() == 1
    state = frame(state, detections(box))
    assert state["ids"][0].max() == 2  # ids are not used again
    once = frame(frame(tracks.no_tracks(torch.zeros(1), cap=3), detections()), detections(box))
    assert not frame(once, detections())["valid"].any()  # not confirmed: gone at the first miss


def test_when_slots_run_out_the_best_detections_begin_tracks() -> None:
    rows = [[30.0 * i, 0.0, 30.0 * i + 20, 20.0, 0.9 - 0.1 * i] for i in range(5)]
    state = frame(tracks.no_tracks(torch.zeros(1), cap=3), detections(*rows), above=0.6)
    assert state["ids"][0].tolist() == [1, 2, 3]
    torch.testing.assert_close(state["scores"][0], torch.tensor([0.9, 0.8, 0.7]))
    again = frame(state, detections(*rows), above=0.6)
    assert again["ids"][0].tolist() == [1, 2, 3] and again["last_id"].item() == 3


def test_of_twins_the_one_that_lived_longer_stays() -> None:
    state = tracks.no_tracks(torch.zeros(1), cap=3)
    box = torch.tensor([10.0, 10.0, 50.0, 50.0])
    state |= {
        "boxes": box.expand(1, 3, 4) + torch.tensor([0.0, 1.0, 200.0])[None, :, None],
        "valid": torch.ones(1, 3, dtype=torch.bool),
        "ids": torch.tensor([[1, 2, 3]]),
        "age": torch.tensor([[0, 2, 1]]),
        "born": torch.tensor([[8, 1, 1]]),
        "frame": torch.tensor([10]),
    }
    assert tracks.remove_twins(state, iou=0.85)["ids"][0].tolist() == [0, 2, 3]
    state["born"] = torch.tensor([[1, 7, 1]])
    assert tracks.remove_twins(state, iou=0.85)["ids"][0].tolist() == [1, 0, 3]


def test_videos_of_a_batch_do_not_know_of_each_other() -> None:
    one = detections([0, 0, 10, 10, 0.9], [50, 50, 70, 70, 0.8])
    two = detections()
    both = {k: torch.cat([one[k], two[k]]) for k in one}
    state, alone = tracks.no_tracks(torch.zeros(2), cap=4), tracks.no_tracks(torch.zeros(1), cap=4)
    for _ in range(3):
        state, alone = frame(state, both), frame(alone, one)
    for name, value in alone.items():
        assert torch.equal(state[name][:1], value), name
    assert not state["valid"][1].any()


def test_no_number_grows_without_bound_in_free_slots() -> None:
    state = frame(tracks.no_tracks(torch.zeros(1), cap=2), detections([0, 0, 10, 10, 0.9]))
    for _ in range(50):
        state = frame(state, detections())
    assert all(torch.isfinite(v).all() for v in state.values())
    assert float(state["covariance"].abs().max()) < 100


def test_static_graphs() -> None:
    class Frame(torch.nn.Module):
        def forward(
            self, state: dict[str, torch.Tensor], found: dict[str, torch.Tensor]
        ) -> dict[str, torch.Tensor]:
            return tracks.remove_twins(frame(state, found), iou=0.9)

    found = detections([0, 0, 10, 10, 0.9], [50, 50, 70, 70, 0.8])
    state = Frame()(tracks.no_tracks(torch.zeros(1), cap=4), found)
    expected = Frame()(state, found)
    exported = torch.export.export(Frame(), (state, found)).module()(state, found)
    compiled = torch.compile(Frame(), fullgraph=True, backend="eager")(state, found)
    for name, value in expected.items():
        assert torch.equal(exported[name], value) and torch.equal(compiled[name], value), name
