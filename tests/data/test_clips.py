"""Sample clips and MOTChallenge folders."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from detc.dsl.diagnostics import DetError
from detc.runtime.data.shapes import CLASSES
from detc.runtime.data.sources import MotSequences
from detc.runtime.data.sources.mot import find_sequences, read_sequence, read_truth
from detc.runtime.data.synth_clips import generate_clips


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("clips") / "set"
    return generate_clips(root, 2, 5, val=1, frames=6, width=96, height=80, workers=1)


def test_clips_are_the_same_for_a_seed(clips: Path, tmp_path: Path) -> None:
    again = generate_clips(tmp_path / "b", 2, 5, val=1, frames=6, width=96, height=80, workers=2)
    other = generate_clips(tmp_path / "c", 2, 6, val=1, frames=6, width=96, height=80, workers=1)
    truth = "train/clip-0001/gt/gt.txt"
    assert (clips / truth).read_text() == (again / truth).read_text() != (other / truth).read_text()
    frame = "val/clip-0000/img1/000003.jpg"
    assert (clips / frame).read_bytes() == (again / frame).read_bytes()
    assert generate_clips(clips, 2, 5, val=1, frames=6, width=96, height=80) == clips  # there already


def test_objects_move_smoothly_under_one_id(clips: Path) -> None:
    sequence = read_sequence(clips / "train/clip-0000")
    assert sequence.length == len(sequence.frames) == 6 and sequence.size == (96, 80) and sequence.rate == 10
    assert sequence.truth is not None
    rows = read_truth(sequence.truth)
    seen: dict[int, list[np.ndarray]] = {}
    for frame in sorted(rows):
        for who, box, counts, kind in rows[frame]:
            assert counts == 1 and 1 <= kind <= len(CLASSES)
            assert 0 <= box[0] < box[2] <= 96 and 0 <= box[1] < box[3] <= 80
            seen.setdefault(who, []).append(np.array(box))
    assert 2 <= len(seen) <= 5
    assert max(np.abs(np.diff(b, axis=0)).max() for b in seen.values() if len(b) > 1) < 40
    assert any(np.abs(b[-1] - b[0]).max() > 2 for b in seen.values())


def test_frames_are_the_images_of_a_split(clips: Path) -> None:
    source = MotSequences(root=str(clips), train="train/", val="val/")
    found = source.open("train", list(CLASSES))
    assert len(found.records) == 12 and found.records[0].id == "clip-0000/000001"
    assert [s.name for s in source.sequences("val")] == ["clip-0000"]
    rows = read_truth(clips / "train/clip-0000/gt/gt.txt")[1]
    np.testing.assert_allclose(found.records[0].boxes, [box for _, box, _, _ in rows])
    assert found.records[0].labels.tolist() == [kind - 1 for *_, kind in rows]
    fewer = source.open("train", ["circle"])
    assert all((r.labels == 0).all() for r in fewer.records) and fewer.tally.boxes


def test_boxes_that_do_not_count_are_not_trained_on(tmp_path: Path, clips: Path) -> None:
    folder = tmp_path / "train/a"
    (folder / "img1").mkdir(parents=True)
    (folder / "gt").mkdir()
    (folder / "img1/000001.jpg").write_bytes((clips / "val/clip-0000/img1/000001.jpg").read_bytes())
    (folder / "gt/gt.txt").write_text("1,1,5,5,20,20,1,1,1\n1,2,40,40,10,10,0,1,1\n1,3,2,2,9,9,1,-1,-1\n")
    (record,) = MotSequences(root=str(tmp_path), train="train/").open("train", ["person"]).records
    assert record.trainable.tolist() == [True, False, True] and record.labels.tolist() == [0, 0, 0]


def test_what_is_no_sequence_is_said(tmp_path: Path) -> None:
    for folder, word in ((tmp_path, "holds no sequence"), (tmp_path / "x", "there is no folder")):
        with pytest.raises(DetError, match=word):
            find_sequences(folder)
    (tmp_path / "seqinfo.ini").write_text("[Sequence]\nseqLength=many\n")
    with pytest.raises(DetError, match="no number"):
        read_sequence(tmp_path)
    (tmp_path / "seqinfo.ini").write_text("nothing")
    with pytest.raises(DetError, match="no MOTChallenge header"):
        read_sequence(tmp_path)
