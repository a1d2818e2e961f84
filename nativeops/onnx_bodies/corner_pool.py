"""`corner_pool` in ONNX: a scan over rows or columns that carries the running maximum."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from onnxscript import FLOAT, script
from onnxscript.values import Opset

from detc.nativeops.onnx_bodies._taps import function

detc = Opset("detc", 1)


@script(detc, default_opset=detc)
def _top(x: FLOAT) -> FLOAT:
    return detc.CornerPoolTop(x)


@script(detc, default_opset=detc)
def _bottom(x: FLOAT) -> FLOAT:
    return detc.CornerPoolBottom(x)


@script(detc, default_opset=detc)
def _left(x: FLOAT) -> FLOAT:
    return detc.CornerPoolLeft(x)


@script(detc, default_opset=detc)
def _right(x: FLOAT) -> FLOAT:
    return detc.CornerPoolRight(x)


_NODES: dict[str, Any] = {"top": _top, "bottom": _bottom, "left": _left, "right": _right}


def translate(x, direction: str):  # type: ignore[no-untyped-def]
    """The exporter's rule."""
    return _NODES[direction](x)


def _body(axis: int, backwards: int) -> str:
    shape = "B, C, other"
    return f"""
  x_f = Cast <to = 1> (x)
  lowest = Constant <value_float: float = -inf> ()
  sizes = Shape (x_f)
  kept = Constant <value_ints: ints = [0, 1, {5 - axis}]> ()
  line = Gather (sizes, kept)
  start = Expand (lowest, line)
  last, out_f = Scan <num_scan_inputs = 1, scan_input_axes = [{axis}], scan_input_directions = [{backwards}],
      scan_output_axes = [{axis}], scan_output_directions = [{backwards}],
      body = step (float[{shape}] before, float[{shape}] here) => (float[{shape}] now, float[{shape}] seen) {{
        greater = Greater (before, here)
        most = Where (greater, before, here)
        strange = IsNaN (before)
        now = Where (strange, before, most)
        seen = Identity (now)
      }}> (start, x_f)
  out = CastLike (out_f, x)
"""


def _text(direction: str, axis: int, backwards: int) -> Callable[[], str]:
    return lambda: function(f"CornerPool{direction} (x) => (out)", _body(axis, backwards))


TRANSLATIONS = {"corner_pool": translate}
FUNCTIONS = {
    "CornerPoolTop": _text("Top", 2, 1),
    "CornerPoolBottom": _text("Bottom", 2, 0),
    "CornerPoolLeft": _text("Left", 3, 1),
    "CornerPoolRight": _text("Right", 3, 0),
}
