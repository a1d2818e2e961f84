"""`roi_pool` in ONNX: MaxRoiPool over the rois that are sound, zero for the others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from onnxscript import FLOAT, script
from onnxscript.values import Opset

from detc.nativeops.onnx_bodies._taps import CONSTANTS, function, sizes, sound_rois

detc = Opset("detc", 1)


@script(detc, default_opset=detc)
def _node(feature: FLOAT, rois: FLOAT, spatial_scale: float, pooled_shape: Sequence[int]) -> FLOAT:
    return detc.RoiPool(feature, rois, spatial_scale=spatial_scale, pooled_shape=pooled_shape)


def translate(feature, rois, scale: float, height: int, width: int):  # type: ignore[no-untyped-def]
    """The exporter's rule. Where the maxima lie is for the backward, which no exported graph has: that output is -1."""
    from onnxscript import opset18

    op: Any = opset18
    out: Any = _node(feature, rois, spatial_scale=float(scale), pooled_shape=[int(height), int(width)])
    return out, op.Expand(op.Constant(value_ints=[-1]), op.Shape(out))


# The bounds keep MaxRoiPool's whole numbers whole; no map is that large.
_BODY = f"""
{CONSTANTS}
{sizes("feature", "B C H W")}
  rois_f = Cast <to = 1> (rois)
{sound_rois("B_f")}
  lowest = Constant <value_float: float = -1e7> ()
  highest = Constant <value_float: float = 1e7> ()
  boxes_near = Clip (boxes, lowest, highest)
  rois_sound = Concat <axis = 1> (index_safe, boxes_near)
  feature_f = Cast <to = 1> (feature)
  pooled = MaxRoiPool <pooled_shape: ints = @pooled_shape, spatial_scale: float = @spatial_scale> (feature_f, rois_sound)
  out_f = Where (usable_4, pooled, f0)
  out = CastLike (out_f, feature)
"""

TRANSLATIONS = {"roi_pool": translate}
FUNCTIONS = {
    "RoiPool": lambda: function("RoiPool <spatial_scale, pooled_shape> (feature, rois) => (out)", _BODY)
}
