"""COCO JSON and YOLO txt of the same images: the same AP for the same weights, and both train."""

from __future__ import annotations

from pathlib import Path

import pytest

from detc.compiler.check import check
from detc.runtime.evaluate import evaluate_file

SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "data"
SET, WEIGHTS = SHARED / "coco64", SHARED / "weights" / "fastestdet"
FASTEST = Path(__file__).resolve().parents[2] / "specs" / "fastestdet.det"

YOLO = """det 1
import "{fastest}" {{ FastestDet }}
import std.data {{ Yolo }}
import std.recipes {{ SGD1x }}

data Stretched extends Yolo(root = "{root}", names = "{names}", size = 352x352) {{
  set train.images = "images/"
  set train.labels = "labels_yolo_seg/"
  set val.images = "images/"
  set val.labels = "labels_yolo_seg/"
  pipeline val {{ set resize.mode = "exact" }}
}}

run {{
  data = Stretched()
  model = FastestDet(classes = data.classes) from "{weights}"
  train = SGD1x(batch = 16img)
}}
"""


@pytest.mark.slow
@pytest.mark.skipif(not SET.is_dir() or not WEIGHTS.is_dir(), reason="../shared/data/coco64 is not there")
def test_both_formats_give_one_ap(tmp_path: Path) -> None:
    coco = check(FASTEST)
    assert coco.ok, coco.report.errors
    (tmp_path / "names.txt").write_text("\n".join(coco.run().classes))
    file = tmp_path / "yolo.det"
    weights = next(WEIGHTS.glob("*.pth"))
    file.write_text(YOLO.format(fastest=FASTEST, root=SET, names=tmp_path / "names.txt", weights=weights))
    a, b = evaluate_file(FASTEST, weights=weights), evaluate_file(file, weights=weights)
    assert a["ap"] > 0.2
    for name in ("ap", "ap50", "ap75"):
        assert a[name] == pytest.approx(b[name], abs=1e-4), name
