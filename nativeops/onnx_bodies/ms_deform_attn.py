"""`ms_deform_attn` in ONNX: all levels in one gather, then one product with the attention weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from onnxscript import FLOAT, INT64, script
from onnxscript.values import Opset

from detc.nativeops.onnx_bodies._taps import CONSTANTS, function, sizes, taps

detc = Opset("detc", 1)


@script(detc, default_opset=detc)
def _node(value: FLOAT, locations: FLOAT, weights: FLOAT, spatial_shapes: Sequence[int]) -> FLOAT:
    return detc.MsDeformAttn(value, locations, weights, spatial_shapes=spatial_shapes)


@script(detc, default_opset=detc)
def _sized_node(value: FLOAT, locations: FLOAT, weights: FLOAT, spatial_shapes: INT64) -> FLOAT:
    return detc.MsDeformAttnSized(value, locations, weights, spatial_shapes)


def translate(
    value,  # type: ignore[no-untyped-def]
    spatial_shapes,
    locations,
    weights,
):
    """The exporter's rule; in graphs of dynamic size the levels' sizes are an input."""
    from onnxscript import opset18

    if all(isinstance(n, int) for n in spatial_shapes):
        return _node(value, locations, weights, spatial_shapes=[int(n) for n in spatial_shapes])
    op: Any = opset18

    def listed(n: Any) -> Any:
        return (
            op.Constant(value_ints=[n]) if isinstance(n, int) else op.Reshape(n, op.Constant(value_ints=[1]))
        )

    return _sized_node(value, locations, weights, op.Concat(*map(listed, spatial_shapes), axis=0))


_BODY = f"""
{CONSTANTS}
{sizes("value", "B S M D")}
{sizes("weights", "B2 Q M2 L P")}
  pairs = Constant <value_ints: ints = [-1, 2]> ()
  levels = Reshape (flat, pairs)
  H_l, W_l = Split <axis = 1, num_outputs = 2> (levels)
  area = Mul (H_l, W_l)
  start_l = CumSum <exclusive = 1> (area, s0)
  across = Constant <value_ints: ints = [1, 1, 1, -1, 1]> ()
  H_5 = Reshape (H_l, across)
  W_5 = Reshape (W_l, across)
  start_5 = Reshape (start_l, across)
  start_6 = Unsqueeze (start_5, last)
  H = Cast <to = 1> (H_5)
  W = Cast <to = 1> (W_5)
  locations_f = Cast <to = 1> (locations)
  weights_f = Cast <to = 1> (weights)
  value_f = Cast <to = 1> (value)
  x_n, y_n = Split <axis = 5, num_outputs = 2> (locations_f)
  i5 = Constant <value_ints: ints = [5]> ()
  x_u = Squeeze (x_n, i5)
  y_u = Squeeze (y_n, i5)
  x_s = Mul (x_u, W)
  y_s = Mul (y_u, H)
  x = Sub (x_s, half)
  y = Sub (y_s, half)
{taps("y", "x", "H", "W", "weights_f")}
  index_6 = Add (tap_index, start_6)
  samples = Mul (L, P)
  taps_n = Mul (samples, i4)
  folded = Concat <axis = 0> (B, Q, M, taps_n)
  index_4 = Reshape <allowzero = 1> (index_6, folded)
  weight_4 = Reshape <allowzero = 1> (tap_weight, folded)
  index_h = Transpose <perm = [0, 2, 1, 3]> (index_4)
  weight_h = Transpose <perm = [0, 2, 1, 3]> (weight_4)
  reads = Mul (Q, taps_n)
  listed = Concat <axis = 0> (B, M, reads, i1)
  index_list = Reshape <allowzero = 1> (index_h, listed)
  value_h = Transpose <perm = [0, 2, 1, 3]> (value_f)
  rows = GatherND <batch_dims = 2> (value_h, index_list)
  grouped = Concat <axis = 0> (B, M, Q, taps_n, D)
  rows_5 = Reshape <allowzero = 1> (rows, grouped)
  weight_5 = Unsqueeze (weight_h, i3)
  sum_5 = MatMul (weight_5, rows_5)
  sum_4 = Squeeze (sum_5, i3)
  sum_q = Transpose <perm = [0, 2, 1, 3]> (sum_4)
  all = Mul (M, D)
  final = Concat <axis = 0> (B, Q, all)
  out_f = Reshape <allowzero = 1> (sum_q, final)
  out = CastLike (out_f, value)
"""

TRANSLATIONS = {"ms_deform_attn": translate}
FUNCTIONS = {
    "MsDeformAttn": lambda: function(
        "MsDeformAttn <spatial_shapes> (value, locations, weights) => (out)",
        "  flat = Constant <value_ints: ints = @spatial_shapes> ()\n" + _BODY,
    ),
    "MsDeformAttnSized": lambda: function(
        "MsDeformAttnSized (value, locations, weights, flat) => (out)", _BODY
    ),
}
