"""Small specs for the compiler's tests."""

from __future__ import annotations

from detc.compiler.check import CheckResult, check

TINY = """det 1
import std.ops {{ BatchNorm, Conv2d }}
import std.dense {{ DistanceDecode, DynamicSoftLabel, PointGrid }}
import std.losses {{ GIoU, QualityFocal }}
import std.post {{ ClassNMS }}

component Stem(width: int = 8) : Backbone {{
  input image: image
  node conv = Conv2d(width, kernel = 3, stride = 8, bias = false)
  node norm = BatchNorm()
  x[0] = image -> conv -> norm -> relu()
  node down = Conv2d(width * 2, kernel = 3, stride = 2)
  x[1] = x[0] -> down -> relu()
  output feats: pyramid = [x[0], x[1]]
}}

component Head(classes: labels, width: int = 8) : DenseHead {{
  input feats: pyramid
  node cls = Conv2d(len(classes))
  node reg = Conv2d(4)
  node tower = Conv2d(width, kernel = 3, bias = false)
  repeat l in 0 .. len(feats) {{
    node adapt[l] = Conv2d(width)
    node norm[l] = BatchNorm()
    t[l] = feats[l] -> adapt[l] -> tower -> norm[l] -> silu()
    logits[l] = t[l] -> cls
    ltrb[l] = exp(t[l] -> reg) * feats.strides[l]
  }}
  output logits: pyramid
  output ltrb: pyramid
}}

model Tiny(classes: labels = ["cat", "dog"], width: int = 8) : Detector {{
  input image: image
  node backbone: Backbone = Stem(width)
  node head: DenseHead = Head(classes, width)
  y = image -> backbone -> head
  feats = y.logits
  points = feats -> PointGrid(offset = 0.0)
  boxes = (points, y.ltrb) -> DistanceDecode()
  train {{
    input truth: instances
    target = (points, y.logits, boxes, truth) -> DynamicSoftLabel(topk = 13)
    loss cls(weight = 1.0) = (y.logits, target.scores, target.total) -> QualityFocal(beta = 2.0)
    loss box(weight = 2.0) = (boxes, target.boxes, target.weight, target.total) -> GIoU()
  }}
  infer {{
    output detections = (boxes, y.logits) -> ClassNMS(iou = 0.65, score = 0.1%, before = 1000, keep = 20)
  }}
}}
{more}
run {{ model = {model} }}
"""


def tiny(model: str = "Tiny()", more: str = "", sets: list[str] | None = None) -> CheckResult:
    """Check the tiny spec with other declarations and another model expression."""
    return check(TINY.format(model=model, more=more), sets=sets or [], name="tiny.det")
