"""HOTA, CLEAR MOT and IDF1 equal the reference implementations' numbers on real tracks."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from detc.runtime.metrics.mot import track_metrics
from detc.runtime.metrics.tracks import Tracks, read_mot, sequence
from tests.data.making import shared

TUD = {"TUD-Campus": 71, "TUD-Stadtmitte": 179}


def agree(ours: dict[str, float], expected: dict[str, float]) -> None:
    for name, value in expected.items():
        assert ours[name] == pytest.approx(value, abs=6e-7), name


@pytest.mark.parametrize("tracker", ["motmetrics_test", "SORT"])
def test_tud(tracker: str) -> None:
    root = shared("mot_tud")
    file = {"motmetrics_test": "tracker_motmetrics/test.txt", "SORT": "tracker_sort/{}.txt"}[tracker]
    tracks = {
        name: sequence(
            read_mot(root / name / "gt/gt.txt"), read_mot(root / name / file.format(name)), length=length
        )
        for name, length in TUD.items()
    }
    ours = track_metrics(tracks)
    expected = json.loads((root / "expected.json").read_text())
    measured = next(v for k, v in expected.items() if k.startswith("TrackEval"))[tracker]
    for name in TUD:
        agree(ours[name], measured[name])
    agree(ours["combined"], measured["COMBINED_SEQ"])
    if tracker == "SORT":
        campus = ours["TUD-Campus"]
        assert (campus["CLR_FP"], campus["CLR_FN"], campus["IDSW"]) == (15, 113, 6)
        assert round(100 * campus["MOTA"], 1) == 62.7


def test_mot17_with_its_preprocessing() -> None:
    root = shared("mot17_09")
    folder = root / "MOT17-09-DPM"
    truth = read_mot(folder / "gt/gt.txt")
    found = read_mot(folder / "tracker_MPNTrack/MOT17-09-DPM.txt")
    (ours,) = track_metrics({"a": sequence(truth, found, length=525, mot17=True)}).values()
    (measured,) = json.loads((root / "expected.json").read_text()).values()
    agree(ours, measured["MOT17-09-DPM"])
    assert ours["HOTA"] == pytest.approx(0.647405, abs=6e-7)


def toy(tmp_path: Path, found: str) -> Tracks:
    (tmp_path / "gt.txt").write_text("".join(f"{t},7,0,0,10,10,1,1,1\n" for t in range(1, 6)))
    (tmp_path / "p.txt").write_text(found)
    return sequence(read_mot(tmp_path / "gt.txt"), read_mot(tmp_path / "p.txt"))


def test_perfect_tracks_score_one(tmp_path: Path) -> None:
    found = "".join(f"{t},3,0,0,10,10,1,-1,-1,-1\n" for t in range(1, 6))
    numbers = track_metrics({"x": toy(tmp_path, found)})["x"]
    assert all(numbers[k] == pytest.approx(1.0) for k in ("HOTA", "MOTA", "MOTP", "IDF1", "LocA", "AssA"))
    assert numbers["MT"] == 1 and numbers["IDSW"] == numbers["Frag"] == 0


def test_a_switch_and_a_gap_are_counted(tmp_path: Path) -> None:
    found = "".join(f"{t},{1 if t < 3 else 2},0,0,10,10,1\n" for t in (1, 2, 4, 5))
    numbers = track_metrics({"x": toy(tmp_path, found)})["x"]
    assert (numbers["IDSW"], numbers["Frag"], numbers["CLR_FN"]) == (1, 0, 1)  # the frame without tracks is
    # skipped by the reference, so the gap is no fragmentation
    assert numbers["IDTP"] == 2 and numbers["MOTA"] == pytest.approx((4 - 0 - 1) / 5)


def test_no_tracks_and_no_objects(tmp_path: Path) -> None:
    numbers = track_metrics({"x": toy(tmp_path, "")})["x"]
    assert numbers["MOTA"] == numbers["HOTA"] == numbers["IDF1"] == 0 and numbers["ML"] == 1
    nothing = track_metrics({"x": sequence({}, {1: [(1.0, np.array([0, 0, 1, 1.0]), 1.0, 1.0)]})})["x"]
    assert nothing["CLR_FP"] == 1 and nothing["HOTA"] == 0


def test_a_short_line_is_refused_with_its_number(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("1,1,2,3,4,5\n1,2,3\n")
    with pytest.raises(ValueError, match="line 2: 3 numbers"):
        read_mot(tmp_path / "a.txt")
