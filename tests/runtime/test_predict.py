"""Predictions as files, galleries, and the report of a run."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from detc.runtime.detector import Detector
from detc.runtime.gallery import annotated, gallery, read_gallery, save_gallery
from detc.runtime.predict import free_name, predict_to
from detc.runtime.run_report import best_row, make_report, write_run_report


class Middle(nn.Module):
    """Finds one box: the middle ninth of the image."""

    def forward(self, image):
        count, height, width = len(image), image.shape[2], image.shape[3]
        box = torch.tensor([[width / 3, height / 3, 2 * width / 3, 2 * height / 3]])
        return {
            "boxes": box.repeat(count, 1, 1),
            "scores": torch.full((count, 1), 0.8),
            "labels": torch.ones(count, 1, dtype=torch.int64),
            "valid": torch.ones(count, 1, dtype=torch.bool),
        }


@pytest.fixture
def detector() -> Detector:
    return Detector(Middle(), ["cat", "dog"])


@pytest.fixture
def folder(tmp_path):
    for name in ("a/one.png", "b/one.png", "b/two.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.fromarray(np.full((60, 90, 3), 90, np.uint8)).save(tmp_path / name)
    (tmp_path / "b/zbroken.png").write_bytes(b"no image")
    return tmp_path


def test_files_for_every_image(detector, folder):
    faults = []
    out = folder / "out"
    written = list(predict_to(detector, [folder / "a", folder / "b"], out, on_error=faults.append))
    assert sorted(p.name for p in out.iterdir()) == [
        "one.jpg", "one.json", "one_2.jpg", "one_2.json", "two.jpg", "two.json",
    ]  # fmt: skip
    assert [f.name.rsplit("/", 1)[1] for f in faults] == ["zbroken.png"]
    data = json.loads((out / "one_2.json").read_text())
    assert data["image"].endswith("b/one.png") and (data["width"], data["height"]) == (90, 60)
    assert data["objects"] == [{"box": [30, 20, 60, 40], "score": 0.8, "label": 1, "name": "dog"}]
    drawn = np.asarray(Image.open(written[0].picture))
    assert drawn.shape == (60, 90, 3) and drawn.std() > 5


def test_pictures_can_be_left_out(detector, folder):
    list(predict_to(detector, folder / "a", folder / "out", draw=False))
    assert [p.suffix for p in (folder / "out").iterdir()] == [".json"]


def test_names_never_collide():
    taken = set()
    assert [free_name(s, taken) for s in ("x", "X", "x", "x_2")] == ["x", "X_2", "x_3", "x_2_2"]


def record(path, boxes, crowd):
    from detc.runtime.data.records import Record

    n = len(boxes)
    crowds, labels, ignored = np.array(crowd, bool), np.zeros(n, np.int64), np.zeros(n, bool)
    return Record(1, str(path), 90, 60, np.array(boxes, np.float32), labels, np.ones(n), crowds, ignored)


def test_galleries_show_truth_beside_what_was_found(detector, folder):
    records = [record(folder / "a/one.png", [[1, 2, 30, 40], [5, 5, 9, 9]], [False, True])] * 3
    records.append(record(folder / "b/zbroken.png", [], []))
    drawn = list(gallery(detector, records, limit=4))
    assert [c for c, _ in drawn] == ["one.png: annotated 1 cat; found 1 dog"] * 3, (
        "crowds are not annotations"
    )
    assert drawn[0][1].size == (2 * 180 + 6, 120), "small images are enlarged"
    assert list(gallery(detector, [], limit=4)) == []
    truth = annotated(records[0], (60, 90), ("cat", "dog"))
    assert truth.boxes.tolist() == [[1, 2, 30, 40]]


def test_galleries_keep_their_captions(tmp_path):
    pictures = [
        ("b.jpg: found 1 Größe", Image.new("RGB", (20, 10))),
        ("a.jpg: nothing", Image.new("RGB", (20, 10))),
    ]
    save_gallery(pictures, tmp_path / "drawings")
    assert [c for c, _ in read_gallery(tmp_path / "drawings")] == ["a.jpg: nothing", "b.jpg: found 1 Größe"]
    assert read_gallery(tmp_path / "none") == []


SPEC = """det 1
import std.models { RetinaNet }
run { model = RetinaNet(classes = ["cat", "dog"]) }
"""
ROWS = [
    {"kind": "train", "iteration": 5, "time": 1030.0, "loss": 2.0, "cls": 1.2, "lr": 0.1, "epoch": 0.5},
    {
        "kind": "val",
        "iteration": 10,
        "time": 1060.0,
        "ap": 0.3,
        "ap50": 0.6,
        "ap/cat": 0.2,
        "ap/dog": None,
        "epoch": 1,
    },
    {
        "kind": "val",
        "iteration": 20,
        "time": 1120.0,
        "ap": 0.2,
        "ap50": 0.5,
        "ap/cat": 0.1,
        "ap/dog": 0.3,
        "epoch": 2,
    },
]


def test_the_report_of_a_run(tmp_path):
    (tmp_path / "spec.det").write_text(SPEC)
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in ROWS))
    save_gallery([("a.jpg: found 1 cat", Image.new("RGB", (20, 10)))], tmp_path / "drawings")
    text = write_run_report(tmp_path).read_text()
    for part in ("RetinaNet", "0.300", "AP 50:95", "Training loss", "a.jpg: found 1 cat", "model RetinaNet"):
        assert part in text


def test_a_report_shows_the_best_validation():
    from detc.compiler.check import check

    assert best_row([r for r in ROWS if r["kind"] == "val"])["ap50"] == 0.6
    assert best_row([]) == {}
    report = make_report(check(SPEC).run(), ROWS, best_row(ROWS[1:]), began=1000.0)
    assert report.facts["minutes"] == "2.0" and report.facts["epochs"] == "2"
    assert [(c.name, c.ap == c.ap) for c in report.classes] == [("cat", True), ("dog", False)]
    assert [c.title for c in report.charts] == ["Training loss", "Validation"]
    assert set(report.charts[0].series) == {"loss", "cls"}
