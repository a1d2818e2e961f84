"""`detc data`: the sample set, counts and pictures."""

from __future__ import annotations

import json
from pathlib import Path

from PIL import Image

SPEC = """det 1
import std.data {{ Synth }}
import std.models {{ RetinaNet }}
train T {{ epochs = 1ep  batch = 2img  optim = SGD(lr = 0.01) }}
run {{ data = Synth(root = "{root}", size = 96x96) model = RetinaNet(classes = data.classes)  train = T() }}
"""


def test_make_count_and_look(detc, tmp_path: Path) -> None:
    root = tmp_path / "s"
    done = detc("data", "synth", root, "--images", 4, "--val", 2, "--smallest", 64, "--largest", 80)
    assert done.code == 0 and "4 training images, 2 held-back images" in done.out
    spec = tmp_path / "x.det"
    spec.write_text(SPEC.format(root=root))

    done = detc("data", "report", spec, "--verify", "--json")
    assert done.code == 0
    train, val = json.loads(done.out)
    assert (train["images"], val["images"]) == (4, 2) and not train["problems"]
    assert sum(train["boxes"].values()) >= 4

    (root / "train/000001.jpg").write_bytes(b"no image")
    done = detc("data", "report", spec, "--verify")
    assert "train: 4 images" in done.out and "000001.jpg" in done.out and "val: 2 images" in done.out

    sheet = tmp_path / "out" / "sheet.png"
    done = detc("data", "browse", spec, "--split", "val", "-n", 2, "-o", sheet)
    assert done.code == 0 and "2 images" in done.out
    assert Image.open(sheet).width > 400


def test_mistakes_exit_without_a_traceback(detc, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("x")
    assert detc("data", "synth", tmp_path).code == 1
    assert detc("data", "synth", tmp_path / "a", "--smallest", 90, "--largest", 80).code == 2
    spec = tmp_path / "x.det"
    spec.write_text(SPEC.format(root=tmp_path / "none"))
    done = detc("data", "report", spec)
    assert done.code == 1 and "DET0903" in done.err and "no such annotation file" in done.err
