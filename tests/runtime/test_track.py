"""`detc run track`: videos in, MOTChallenge files, drawn videos and metrics out."""

from __future__ import annotations

import builtins
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from detc.cli.main import main
from detc.dsl.diagnostics import DetError
from detc.runtime.mot import read_detections
from detc.runtime.video import VideoWriter, open_videos

ROOT = Path(__file__).resolve().parents[2]
SORT = str(ROOT / "specs/sort.det")
SETS = ["--set", "tracker.cap=8", "--set", "most=8", "--set", "tracker.hits=1"]


@pytest.fixture
def sequence(tmp_path: Path) -> Path:
    """Two squares that move apart for eight frames, with frames, detections and truth."""
    folder = tmp_path / "walk"
    for name in ("img1", "gt", "det"):
        (folder / name).mkdir(parents=True)
    truth, found = "", ""
    for t in range(1, 9):
        pixels = np.zeros((64, 98, 3), np.uint8)
        for who, x in ((1, 10 + 2 * t), (2, 70 - 2 * t)):
            pixels[10 + 24 * who - 24 :, x : x + 12][:12] = 200
            truth += f"{t},{who},{x},{10 + 24 * who - 24},12,12,1,1,1\n"
            found += f"{t},-1,{x},{10 + 24 * who - 24},12,12,0.9,-1,-1,-1\n"
        Image.fromarray(pixels).save(folder / f"img1/{t:06d}.jpg")
    (folder / "gt/gt.txt").write_text(truth)
    (folder / "det/det.txt").write_text(found)
    return folder


def run(*args: str) -> int:
    with pytest.raises(SystemExit) as left:
        main(["run", "track", *args])
    return int(left.value.code or 0)


def test_a_sequence_is_tracked_drawn_and_scored(
    sequence: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert run(SORT, str(sequence), "-o", str(out), *SETS, "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["metrics"]["walk"]["MOTA"] == 1.0 and told["metrics"]["walk"]["IDSW"] == 0
    (video,) = told["videos"]
    assert (video["frames"], video["tracks"], video["boxes"]) == (8, 2, 16)
    lines = (out / "walk.txt").read_text().splitlines()
    assert len(lines) == 16 and lines[0].split(",")[:2] == ["1", "1"]
    (written,) = open_videos(out / "walk.mp4")
    frames = list(written.frames())
    assert len(frames) == 8 and frames[0].shape == (64, 98, 3)
    assert frames[4].std(-1).max() > 20  # boxes are drawn in colour on the grey frame


def test_text_for_people(sequence: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(SORT, str(sequence), "-o", str(tmp_path / "o"), *SETS, "--no-draw") == 0
    said = capsys.readouterr()
    assert "MOTA    1.0000" in said.out and "walk: 8 frames, 2 tracks" in said.err
    assert not (tmp_path / "o/walk.mp4").exists()


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("nowhere", "there is no file or folder"),
        ("notes.txt", "is no video"),
        ("empty", "holds no sequence"),
        ("broken.mp4", "cannot be read as a video"),
        ("images", "takes detections, and images has none"),
    ],
)
def test_what_cannot_be_tracked_is_said(
    spec: str, words: str, sequence: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / "empty").mkdir()
    (tmp_path / "images").mkdir()
    (sequence / "img1/000001.jpg").rename(tmp_path / "images/a.jpg")
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    assert run(SORT, str(tmp_path / spec), "-o", str(tmp_path / "o"), *SETS) == 1
    assert words in capsys.readouterr().err.replace("\n", " ")


def test_a_model_without_state_is_refused(
    sequence: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = tmp_path / "plain.det"
    spec.write_text('det 1\nimport std.models { RTMDetTiny }\nrun { model = RTMDetTiny(classes = ["a"]) }\n')
    assert run(str(spec), str(sequence), "-o", str(tmp_path / "o")) == 1
    said = capsys.readouterr().err
    assert "does not track" in said and "model = Tracking(" in said


def test_without_pyav_videos_say_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if name == "av":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    (tmp_path / "a.mp4").write_bytes(b"")
    for act in (
        lambda: open_videos(tmp_path / "a.mp4"),
        lambda: VideoWriter(tmp_path / "b.mp4", 10).write(Image.new("RGB", (8, 8))),
    ):
        with pytest.raises(DetError, match="PyAV") as caught:
            act()
        assert "pip install av" in str(caught.value.diagnostics[0].help)


def test_detection_files(tmp_path: Path) -> None:
    path = tmp_path / "det.txt"
    path.write_text("2,-1,10,20,30,40,0.5,-1,-1,-1\n")
    frames = list(read_detections(path, 3))
    assert [len(f) for f in frames] == [0, 1, 0]
    np.testing.assert_allclose(frames[1], [[10, 20, 40, 60, 0.5]])
    path.write_text("1,2\n")
    with pytest.raises(DetError, match="line 1"):
        list(read_detections(path))
