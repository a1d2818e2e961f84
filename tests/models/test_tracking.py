"""Trackers: SORT's published numbers, ByteTrack against a plain implementation, models with state end to end."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment

from detc.compiler.check import check
from detc.compiler.program import Program, build
from detc.runtime.metrics.tracks import read_mot
from detc.runtime.metrics.voc import pairwise_iou
from detc.runtime.mot import Followed, mot_lines, read_detections, score_tracks, track_to
from detc.runtime.track import from_program
from detc.runtime.video import open_videos
from tests.data.making import shared

ROOT = Path(__file__).resolve().parents[2]
SMALL = """det 1
import std.models { FCOS, RTMDet, Tracking }
import std.backbones { ResNet }
import std.track { ByteTrack, SORT }
model Small extends RTMDet(deepen = 0.167, widen = 0.125, blocks = 1, exp_on_reg = false) {}
target tiny { image = 64x64 }
"""


def program(text: str, sets: tuple[str, ...] = ()) -> Program:
    """A program of a text or file, with fixed weights."""
    result = check(text, sets=list(sets))
    assert not result.report.errors, [d.message for d in result.report.errors]
    return build(result.run(), seed=0)


def sort(cap: int = 32) -> Program:
    """SORT on detections from files."""
    return program(str(ROOT / "specs/sort.det"), (f"tracker.cap={cap}", f"most={cap}"))


def test_sort_gives_the_published_numbers(tmp_path: Path) -> None:
    (video,) = open_videos(shared("mot_tud") / "TUD-Campus")
    found = track_to(from_program(sort(), "cpu"), video, tmp_path)
    (numbers,) = score_tracks([found]).values()
    assert (numbers["CLR_FP"], numbers["CLR_FN"], numbers["IDSW"]) == (15, 113, 6)
    assert round(100 * numbers["MOTA"], 1) == 62.7
    expected = json.loads((shared("mot_tud") / "expected.json").read_text())
    measured = next(v for k, v in expected.items() if k.startswith("TrackEval"))["SORT"]["TUD-Campus"]
    for name in ("HOTA", "MOTA", "IDF1", "MOTP"):
        assert numbers[name] == pytest.approx(measured[name], abs=2e-4), name
    # the file that SORT's own program wrote has the same boxes, frame by frame
    theirs = read_mot(video.sequence.folder / "tracker_sort" / "TUD-Campus.txt")  # type: ignore[union-attr]
    ours = read_mot(tmp_path / "TUD-Campus.txt")
    for t in range(1, 72):
        a, b = (sorted(tuple(box) for _, box, _, _ in rows.get(t, [])) for rows in (theirs, ours))
        np.testing.assert_allclose(np.array(b), np.array(a), atol=0.1)


def test_hota_of_a_real_trackers_file() -> None:
    (video,) = open_videos(shared("mot17_09") / "MOT17-09-DPM")
    lines = (shared("mot17_09") / "MOT17-09-DPM/tracker_MPNTrack/MOT17-09-DPM.txt").read_text()
    found = Followed(video, frames=525, lines=lines.splitlines(keepends=True))
    (numbers,) = score_tracks([found], mot17=True).values()
    assert numbers["HOTA"] == pytest.approx(0.647405, abs=6e-7)


class PlainByteTrack:
    """ByteTrack as the paper tells it, with lists, full matrices and an extended assignment problem."""

    def __init__(self, high: float, low: float, begin: float, keep: int) -> None:
        self.high, self.low, self.begin, self.keep = high, low, begin, keep
        self.tracks: list[dict[str, Any]] = []
        self.frame = self.last = 0

    def __call__(self, rows: np.ndarray) -> dict[int, np.ndarray]:
        self.frame += 1
        strong, weak = (
            rows[rows[:, 4] >= self.high],
            rows[(rows[:, 4] >= self.low) & (rows[:, 4] < self.high)],
        )
        pool = [t for t in self.tracks if t["sure"]]
        fresh = [t for t in self.tracks if not t["sure"]]
        for t in pool:
            self._predict(t)
        left = self._round(pool, strong, 0.2, fuse=True)
        current = [t for t in pool if not t["hit"] and t["age"] == 0]
        self._round(current, weak, 0.5, fuse=False)
        left = self._round(fresh, strong[left], 0.3, fuse=True, keep=left)
        for t in self.tracks:
            t["age"] = 0 if t["hit"] else t["age"] + 1
            t["sure"] = t["sure"] or t["hit"]
        self.tracks = [t for t in self.tracks if t["hit"] or (t["sure"] and t["age"] <= self.keep)]
        for i in left:
            if strong[i, 4] >= self.begin:
                self.last += 1
                self.tracks.append(self._new(strong[i]))
        self._twins()
        seen = [t for t in self.tracks if t["age"] == 0 and (t["sure"] or self.frame == 1)]
        for t in self.tracks:
            t["hit"] = False
        return {t["id"]: self._box(t) for t in seen}

    def _new(self, row: np.ndarray) -> dict[str, Any]:
        x, h = self._measure(row), row[3] - row[1]
        std = np.array([h / 10, h / 10, 1e-2, h / 10, h / 16, h / 16, 1e-5, h / 16])
        return {
            "x": np.concatenate([x, np.zeros(4)]),
            "p": np.diag(std**2),
            "id": self.last,
            "age": 0,
            "hit": False,
            "sure": self.frame == 1,
            "born": self.frame,
        }

    @staticmethod
    def _measure(row: np.ndarray) -> np.ndarray:
        w, h = row[2] - row[0], row[3] - row[1]
        return np.array([row[0] + w / 2, row[1] + h / 2, w / h, h])

    @staticmethod
    def _box(t: dict[str, Any]) -> np.ndarray:
        x, y, a, h = t["x"][:4]
        return np.array([x - a * h / 2, y - h / 2, x + a * h / 2, y + h / 2])

    @staticmethod
    def _predict(t: dict[str, Any]) -> None:
        if t["age"] > 0:
            t["x"][7] = 0
        h = t["x"][3]
        q = np.array([h / 20, h / 20, 1e-2, h / 20, h / 160, h / 160, 1e-5, h / 160]) ** 2
        f = np.eye(8) + np.eye(8, k=4)
        t["x"], t["p"] = f @ t["x"], f @ t["p"] @ f.T + np.diag(q)

    def _correct(self, t: dict[str, Any], row: np.ndarray) -> None:
        h = t["x"][3]
        r = np.diag(np.array([h / 20, h / 20, 1e-1, h / 20]) ** 2)
        gain = t["p"][:, :4] @ np.linalg.inv(t["p"][:4, :4] + r)
        t["x"] = t["x"] + gain @ (self._measure(row) - t["x"][:4])
        t["p"] = t["p"] - gain @ t["p"][:4]
        t["hit"] = True

    def _round(
        self,
        group: list[dict[str, Any]],
        rows: np.ndarray,
        least: float,
        fuse: bool,
        keep: list[int] | None = None,
    ) -> list[int]:
        """Match; return the (original) indices of the detections that are left."""
        keep = list(range(len(rows))) if keep is None else keep
        if not group or not len(rows):
            return keep
        cost = 1 - pairwise_iou(np.array([self._box(t) for t in group]), rows[:, :4]) * (
            rows[:, 4] if fuse else 1
        )
        n, m = cost.shape
        wide = np.full((n + m, n + m), (1 - least) / 2)  # leaving both alone costs as much as the limit
        wide[:n, :m], wide[n:, m:] = cost, 0
        taken = []
        for i, j in zip(*linear_sum_assignment(wide), strict=True):
            if i < n and j < m:
                self._correct(group[i], rows[j])
                taken.append(j)
        return [k for j, k in enumerate(keep) if j not in taken]

    def _twins(self) -> None:
        gone = set()
        for a in (t for t in self.tracks if t["age"] == 0):
            for b in (t for t in self.tracks if t["age"] > 0):
                if pairwise_iou(self._box(a)[None], self._box(b)[None])[0, 0] > 0.85:
                    older = self.frame - a["born"] > self.frame - b["age"] - b["born"]
                    gone.add(b["id"] if older else a["id"])
        self.tracks = [t for t in self.tracks if t["id"] not in gone]


@pytest.mark.parametrize(("high", "low"), [(0.9, 0.6), (0.97, 0.9)])
def test_bytetrack_equals_a_plain_implementation(high: float, low: float) -> None:
    begin = 0.5 + high / 2
    text = f"""det 1
import std.models {{ TrackDetections }}
import std.track {{ ByteTrack }}
run {{
  model = TrackDetections(most = 24, tracker = ByteTrack({high}, {low}, begin = {begin}, keep = 5, cap = 32))
}}
"""
    tracker = from_program(program(text), "cpu")
    plain = PlainByteTrack(high, low, begin, 5)
    path = shared("mot_tud") / "TUD-Stadtmitte/det/det.txt"
    tracked = reported = 0
    frames = list(read_detections(path))[:120]
    ordered = [f[np.argsort(-f[:, 4], kind="stable")].astype(np.float64) for f in frames]
    for rows, ours in zip(ordered, tracker.follow(frames), strict=True):
        theirs = plain(rows)
        assert sorted(theirs) == sorted(int(i) for i in ours.ids)
        for box, id in zip(ours.boxes, ours.ids, strict=True):
            np.testing.assert_allclose(box, theirs[int(id)], atol=0.02)
            tracked += 1
        reported += bool(theirs)
    assert tracked > 300 and reported > 100


def small(detector: str = 'Small(classes = ["a", "b"])', tracker: str = "ByteTrack(cap = 16)") -> Program:
    classes = 'classes = ["a", "b"]'
    run = (
        f"run {{ model = Tracking({classes}, detector = {detector}, tracker = {tracker})  target = tiny() }}"
    )
    return program(SMALL + run + "\n")


LOW = "SORT(score = 0.005, hits = 0, cap = 16)"  # an untrained detector scores about 0.01


def frames(batch: int, count: int = 4) -> Iterator[dict[str, torch.Tensor]]:
    noise = torch.rand(batch, 3, 64, 96, generator=torch.Generator().manual_seed(3)) * 255
    for t in range(count):
        yield {
            "pixels": noise.roll(2 * t, -1)[..., :64],
            "size": torch.full((batch, 2), 64.0),
        }


def test_a_detector_of_any_kind_is_tracked_and_trained() -> None:
    fcos = 'FCOS(classes = ["a", "b"], backbone = ResNet(18))'
    for made in (small(), small(fcos, "SORT(score = 0.01, cap = 16)")):
        truth = {
            "boxes": torch.tensor([[[8.0, 8.0, 40.0, 40.0]]]),
            "labels": torch.zeros(1, 1, dtype=torch.int64),
            "valid": torch.ones(1, 1, dtype=torch.bool),
        }
        image = next(frames(1))
        losses = made.train_graph(image, truth)
        assert losses and all(name.startswith("detector.") for name in losses)
        sum(losses.values()).backward()
        made.model.eval()
        with torch.no_grad():
            outputs = made.infer_graph(image, made.initial_state(1))
            still = made.still_graph(image)
        assert set(outputs) == {"detections", "tracks", "state"} and set(still) == {"detections", "tracks"}
        for name, value in still["detections"].items():
            assert torch.equal(value, outputs["detections"][name]), name
        assert outputs["state"]["tracker_tracks"]["frame"].item() == 1


def test_the_resolved_spec_is_a_fixed_point() -> None:
    text = small().run.text
    assert "state tracker_tracks: tracks[cap = 16] = std.track.NoTracks(cap = 16)" in text
    assert "next tracker_tracks = " in text
    again = check(text)
    assert not again.report.errors and again.run().text == text


def test_edits_reach_the_state() -> None:
    made = program(SMALL + 'run { model = Tracking(classes = ["a"]) }\n', ("tracker.tracks.cap=8",))
    assert made.initial_state(3)["tracker_tracks"]["ids"].shape == (3, 8)


def test_videos_in_a_batch_export_and_compile() -> None:
    made = small(tracker=LOW)
    graph = made.infer_graph.eval()
    example = next(frames(2))
    with torch.no_grad():
        batch = torch.export.Dim("batch")
        shapes: Any = torch.utils._pytree.tree_map(lambda _: {0: batch}, (example, made.initial_state(2)))
        exported = torch.export.export(graph, (example, made.initial_state(2)), dynamic_shapes=shapes)
        compiled = torch.compile(graph, fullgraph=True, backend="eager")
        states = [made.initial_state(3) for _ in range(3)]
        ids = 0
        for image in frames(3):
            outputs = [g(image, s) for g, s in zip((graph, exported.module(), compiled), states, strict=True)]
            states = [o["state"] for o in outputs]
            for other in outputs[1:]:
                assert torch.equal(outputs[0]["tracks"]["ids"], other["tracks"]["ids"])
                torch.testing.assert_close(outputs[0]["tracks"]["boxes"], other["tracks"]["boxes"])
            ids += int(outputs[0]["tracks"]["valid"].sum())
    assert ids > 0


def test_onnx_agrees_frame_by_frame(tmp_path: Path) -> None:
    from detc.runtime.export import compile_to
    from detc.runtime.track import load_tracker

    made = sort(16)
    written = compile_to(made.run, tmp_path / "sort.onnx")
    assert "16 frames" in written.notes[0] and " 0 boxes" not in written.notes[0]
    onnx, here = load_tracker(tmp_path / "sort.onnx"), from_program(made, "cpu")
    assert onnx.capacity == 16
    rng = np.random.default_rng(0)
    walk = np.cumsum(rng.normal(0, 2, (12, 5, 2)), 0) + rng.uniform(0, 200, (5, 2))
    rows = [np.concatenate([w, w + 40, np.full((5, 1), 0.9)], 1) for w in walk]
    rows[6] = rows[6][:0]  # a frame without detections
    seen = 0
    for number, (a, b) in enumerate(zip(here.follow(rows), onnx.follow(rows), strict=True), 1):
        assert mot_lines(number, a) == mot_lines(number, b)
        seen += len(a)
    assert seen > 20


def test_a_whole_model_as_onnx(tmp_path: Path) -> None:
    from detc.runtime.export import RandomWeightsWarning, compile_to

    made = small(tracker=LOW)
    with pytest.warns(RandomWeightsWarning):
        written = compile_to(made.run, tmp_path / "track.onnx")
    assert written.comparison is not None and written.comparison.problem is None
    import onnx

    model = onnx.load(str(tmp_path / "track.onnx"))
    told = {p.key: p.value for p in model.metadata_props}
    state = json.loads(told["state"])
    names = {i.name for i in model.graph.input}
    assert set(state) == names - {"image"}
    assert {one["next"] for one in state.values()} <= {o.name for o in model.graph.output}
    assert {"boxes", "tracks.boxes", "tracks.ids"} <= {o.name for o in model.graph.output}
