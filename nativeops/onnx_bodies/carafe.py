"""`carafe` in ONNX: every pixel's window is gathered, then contracted with the kernels of its output pixels.

B images, G groups, c channels of a group, h and w pixels, u and v places in a window, i and j places in what a
pixel becomes.
"""

from __future__ import annotations

from onnxscript import FLOAT, script
from onnxscript.values import Opset

from detc.nativeops.onnx_bodies._taps import CONSTANTS, function, number, sizes

detc = Opset("detc", 1)


@script(detc, default_opset=detc)
def _node(x: FLOAT, kernels: FLOAT, kernel_size: int, groups: int, scale: int) -> FLOAT:
    return detc.Carafe(x, kernels, kernel_size=kernel_size, groups=groups, scale=scale)


def translate(x, kernels, kernel_size: int, groups: int, scale: int):  # type: ignore[no-untyped-def]
    """The exporter's rule."""
    return _node(x, kernels, kernel_size=int(kernel_size), groups=int(groups), scale=int(scale))


def _windows(name: str, size: str) -> str:
    """``{name}_at`` [size, k]: where each pixel's window reads in the padded map."""
    return f"""
  {name}_s = Squeeze ({size})
  {name}_range = Range (s0, {name}_s, s1)
  {name}_first = Unsqueeze ({name}_range, i1)
  {name}_at = Add ({name}_first, place)
"""


_BODY = f"""
{CONSTANTS}
{sizes("x", "B C H W")}
{number("k", "kernel_size")}
{number("G", "groups")}
{number("s", "scale")}
  place = Range (s0, k_s, s1)
  margin = Div (k, i2)
  margins = Concat <axis = 0> (i0, i0, margin, margin, i0, i0, margin, margin)
  x_f = Cast <to = 1> (x)
  padded = Pad (x_f, margins, f0)
{_windows("row", "H")}
{_windows("col", "W")}
  rows = Gather <axis = 2> (padded, row_at)
  windows = Gather <axis = 4> (rows, col_at)
  per_group = Div (C, G)
  window_shape = Concat <axis = 0> (B, G, per_group, H, k, W, k)
  windows_7 = Reshape <allowzero = 1> (windows, window_shape)
  kernels_f = Cast <to = 1> (kernels)
  kernel_shape = Concat <axis = 0> (B, G, k, k, H, s, W, s)
  kernels_8 = Reshape <allowzero = 1> (kernels_f, kernel_shape)
  spread = Einsum <equation = "bgchuwv,bguvhiwj->bgchiwj"> (windows_7, kernels_8)
  oH = Mul (H, s)
  oW = Mul (W, s)
  image = Concat <axis = 0> (B, C, oH, oW)
  out_f = Reshape <allowzero = 1> (spread, image)
  out = CastLike (out_f, x)
"""

TRANSLATIONS = {"carafe": translate}
FUNCTIONS = {"Carafe": lambda: function("Carafe <kernel_size, groups, scale> (x, kernels) => (out)", _BODY)}
