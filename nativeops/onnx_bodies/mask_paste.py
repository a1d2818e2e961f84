"""`mask_paste` in ONNX: bilinear interpolation is separable, so a paste is two matrix products."""

from __future__ import annotations

from typing import Any

from onnxscript import BOOL, FLOAT, INT64, script
from onnxscript.values import Opset

from detc.nativeops.onnx_bodies._taps import CONSTANTS, function, sizes

detc = Opset("detc", 1)


@script(detc, default_opset=detc)
def _node(masks: FLOAT, boxes: FLOAT, size: INT64, threshold: float) -> BOOL:
    return detc.MaskPaste(masks, boxes, size, threshold=threshold)


def translate(
    masks,  # type: ignore[no-untyped-def]
    boxes,
    height,
    width,
    threshold: float,
):
    """The exporter's rule; the image's size is an input, so that it may be dynamic."""
    from onnxscript import opset18

    op: Any = opset18

    def listed(n: Any) -> Any:
        return (
            op.Constant(value_ints=[n]) if isinstance(n, int) else op.Reshape(n, op.Constant(value_ints=[1]))
        )

    size: Any = op.Concat(listed(height), listed(width), axis=0)
    return _node(masks, boxes, size, threshold=float(threshold))


def _axis(name: str, low: str, high: str, pixels: str, cells: str) -> str:
    """Weights ``{name}_weights`` [N, pixels, cells] and covered pixels ``{name}_inside`` [N, pixels]."""
    return f"""
  {name}_pixels = Squeeze ({pixels})
  {name}_range = Range (s0, {name}_pixels, s1)
  {name}_float = Cast <to = 1> ({name}_range)
  {name}_centre = Add ({name}_float, half)
  {name}_extent = Sub ({high}, {low})
  {name}_positive = Greater ({name}_extent, f0)
  {name}_bounded = Less ({name}_extent, infinity)
  {name}_raw = Div ({cells}_f, {name}_extent)
  {name}_thick = Less ({name}_raw, infinity)
  {name}_sound = And ({name}_positive, {name}_bounded)
  {name}_usable = And ({name}_sound, {name}_thick)
  {name}_scale = Where ({name}_usable, {name}_raw, f0)
  {name}_low = Where ({name}_usable, {low}, f0)
  {name}_from = Sub ({name}_centre, {name}_low)
  {name}_scaled = Mul ({name}_from, {name}_scale)
  {name}_at = Sub ({name}_scaled, half)
  {name}_at3 = Unsqueeze ({name}_at, i2)
  {name}_cells = Squeeze ({cells})
  {name}_cell_range = Range (s0, {name}_cells, s1)
  {name}_cell = Cast <to = 1> ({name}_cell_range)
  {name}_apart = Sub ({name}_at3, {name}_cell)
  {name}_distance = Abs ({name}_apart)
  {name}_hat = Sub (f1, {name}_distance)
  {name}_weights = Relu ({name}_hat)
  {name}_before = Less ({name}_centre, {low})
  {name}_behind = GreaterOrEqual ({name}_centre, {high})
  {name}_out = Or ({name}_before, {name}_behind)
  {name}_in = Not ({name}_out)
  {name}_inside = And ({name}_in, {name}_usable)
"""


_BODY = f"""
{CONSTANTS}
{sizes("masks", "N m k")}
  infinity = Constant <value_float: float = 3.4028234e38> ()
  large = Constant <value_float: float = 1e30> ()
  small = Constant <value_float: float = -1e30> ()
  masks_f = Cast <to = 1> (masks)
  strange = IsNaN (masks_f)
  masks_n = Where (strange, f0, masks_f)
  masks_c = Clip (masks_n, small, large)
  boxes_f = Cast <to = 1> (boxes)
  x1, y1, x2, y2 = Split <axis = 1, num_outputs = 4> (boxes_f)
  height, width = Split <axis = 0, num_outputs = 2> (size)
{_axis("r", "y1", "y2", "height", "m")}
{_axis("c", "x1", "x2", "width", "k")}
  rows = MatMul (r_weights, masks_c)
  c_turned = Transpose <perm = [0, 2, 1]> (c_weights)
  soft = MatMul (rows, c_turned)
  bar = Constant <value_float: float = @threshold> ()
  over = GreaterOrEqual (soft, bar)
  r_3 = Unsqueeze (r_inside, i2)
  c_3 = Unsqueeze (c_inside, i1)
  covered = And (r_3, c_3)
  out = And (over, covered)
"""

TRANSLATIONS = {"mask_paste": translate}
FUNCTIONS = {"MaskPaste": lambda: function("MaskPaste <threshold> (masks, boxes, size) => (out)", _BODY)}
