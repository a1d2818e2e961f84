"""`point_sample` in ONNX: a gather of four neighbours and a weighted sum."""

from __future__ import annotations

from onnxscript import FLOAT, script
from onnxscript.values import Opset

from detc.nativeops.onnx_bodies._taps import CONSTANTS, function, sizes, taps

detc = Opset("detc", 1)


@script(detc, default_opset=detc)
def _node(x: FLOAT, points: FLOAT, align_corners: int) -> FLOAT:
    return detc.PointSample(x, points, align_corners=align_corners)


def translate(
    x,  # type: ignore[no-untyped-def]
    points,
    align_corners: bool,
):
    """The exporter's rule."""
    return _node(x, points, align_corners=int(align_corners))


_BODY = f"""
{CONSTANTS}
{sizes("x", "B C H W")}
{sizes("points", "B2 P two")}
  points_f = Cast <to = 1> (points)
  px_n, py_n = Split <axis = 2, num_outputs = 2> (points_f)
  px = Squeeze (px_n, i2)
  py = Squeeze (py_n, i2)
  corners_s = Constant <value_int: int = @align_corners> ()
  corners = Cast <to = 1> (corners_s)
  W_span = Sub (W_f, corners)
  H_span = Sub (H_f, corners)
  edges = Sub (f1, corners)
  shift = Mul (edges, half)
  px_s = Mul (px, W_span)
  py_s = Mul (py, H_span)
  xx = Sub (px_s, shift)
  y = Sub (py_s, shift)
{taps("y", "xx", "H_f", "W_f", "f1")}
  reads = Mul (P, i4)
  listed = Concat <axis = 0> (B, reads, i1)
  index_list = Reshape <allowzero = 1> (tap_index, listed)
  x_f = Cast <to = 1> (x)
  HW = Mul (H, W)
  planes = Concat <axis = 0> (B, C, HW)
  x_3 = Reshape <allowzero = 1> (x_f, planes)
  x_last = Transpose <perm = [0, 2, 1]> (x_3)
  rows = GatherND <batch_dims = 1> (x_last, index_list)
  grouped = Concat <axis = 0> (B, P, i4, C)
  rows_4 = Reshape <allowzero = 1> (rows, grouped)
  weight_4 = Unsqueeze (tap_weight, i2)
  sampled_4 = MatMul (weight_4, rows_4)
  sampled = Squeeze (sampled_4, i2)
  out_f = Transpose <perm = [0, 2, 1]> (sampled)
  out = CastLike (out_f, x)
"""

TRANSLATIONS = {"point_sample": translate}
FUNCTIONS = {"PointSample": lambda: function("PointSample <align_corners> (x, points) => (out)", _BODY)}
