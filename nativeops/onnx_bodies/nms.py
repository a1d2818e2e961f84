"""`nms` in ONNX: NonMaxSuppression, with NaN scores first as the op has them."""

from __future__ import annotations

from onnxscript import FLOAT, INT64, script
from onnxscript.values import Opset

from detc.nativeops.onnx_bodies._taps import CONSTANTS, function

detc = Opset("detc", 1)


@script(detc, default_opset=detc)
def _node(boxes: FLOAT, scores: FLOAT, iou_threshold: float) -> INT64:
    return detc.Nms(boxes, scores, iou_threshold=iou_threshold)


def translate(boxes, scores, iou_threshold: float):  # type: ignore[no-untyped-def]
    """The exporter's rule."""
    if boxes.shape is not None and boxes.shape[1] == 5:
        raise NotImplementedError("nms of rotated boxes has no ONNX form")
    return _node(boxes, scores, iou_threshold=float(iou_threshold))


_BODY = f"""
{CONSTANTS}
  boxes_f = Cast <to = 1> (boxes)
  scores_f = Cast <to = 1> (scores)
  largest = Constant <value_float: float = inf> ()
  strange = IsNaN (scores_f)
  ranked = Where (strange, largest, scores_f)
  boxes_3 = Unsqueeze (boxes_f, i0)
  i0_i1 = Constant <value_ints: ints = [0, 1]> ()
  scores_3 = Unsqueeze (ranked, i0_i1)
  count = Size (scores)
  most = Reshape (count, i1)
  threshold_s = Constant <value_float: float = @iou_threshold> ()
  threshold = Reshape (threshold_s, i1)
  found = NonMaxSuppression (boxes_3, scores_3, most, threshold)
  column = Gather <axis = 1> (found, i2)
  kept = Squeeze (column, i1)
"""
TRANSLATIONS = {"nms": translate}
FUNCTIONS = {"Nms": lambda: function("Nms <iou_threshold> (boxes, scores) => (kept)", _BODY)}
