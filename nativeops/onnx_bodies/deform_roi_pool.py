"""`deform_roi_pool` in ONNX. Its sampling is separable: a bin is a row of weights, times the map, times a column of
weights, so that the op is one contraction with static shapes, adaptive sampling included.

N rois, p x q bins, S samples a bin and axis.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from onnxscript import FLOAT, script
from onnxscript.values import Opset

from detc.nativeops.onnx_bodies._taps import CONSTANTS, function, number, sizes, sound_rois

detc = Opset("detc", 1)


@script(detc, default_opset=detc)
def _node(
    x: FLOAT,
    rois: FLOAT,
    offset: FLOAT,
    pooled_height: int,
    pooled_width: int,
    spatial_scale: float,
    sampling: int,
    gamma: float,
) -> FLOAT:
    return detc.DeformRoiPool(
        x,
        rois,
        offset,
        pooled_height=pooled_height,
        pooled_width=pooled_width,
        spatial_scale=spatial_scale,
        sampling=sampling,
        gamma=gamma,
    )


def translate(
    x,  # type: ignore[no-untyped-def]
    rois,
    offset,
    output_size: Sequence[int],
    spatial_scale: float,
    sampling: int,
    gamma: float,
):
    """The exporter's rule; no offsets are offsets of zero."""
    from onnxscript import opset18

    op: Any = opset18
    p, q = (int(n) for n in output_size)
    if offset is None:
        bins: Any = op.Concat(op.Shape(rois, start=0, end=1), op.Constant(value_ints=[2, p, q]), axis=0)
        offset = op.Expand(op.CastLike(op.Constant(value_floats=[0.0]), x), bins)
    return _node(
        x,
        rois,
        offset,
        pooled_height=p,
        pooled_width=q,
        spatial_scale=float(spatial_scale),
        sampling=int(sampling),
        gamma=float(gamma),
    )


def _axis(n: str, low: str, high: str, size: str, bins: str, shift: str, bin_axes: str) -> str:
    """``{n}_weights`` [N, p, q, size]: mean interpolation weights of a bin's samples along one axis."""
    return f"""
  {n}_low_s = Mul ({low}, scale)
  {n}_low = Sub ({n}_low_s, half)
  {n}_high_s = Mul ({high}, scale)
  {n}_high = Sub ({n}_high_s, half)
  {n}_length_1 = Sub ({n}_high, {n}_low)
  {n}_length = Unsqueeze ({n}_length_1, i2)
  {n}_start_1 = Unsqueeze ({n}_low, i2)
  {n}_bins_f = Cast <to = 1> ({bins})
  {n}_bin = Div ({n}_length, {n}_bins_f)
  {n}_number = Range (s0, {bins}_s, s1)
  {n}_number_f = Cast <to = 1> ({n}_number)
  {n}_number_3 = Unsqueeze ({n}_number_f, {bin_axes})
  {n}_ahead = Mul ({n}_number_3, {n}_bin)
  {n}_moved_0 = Mul ({shift}, gamma)
  {n}_moved = Mul ({n}_moved_0, {n}_length)
  {n}_from_0 = Add ({n}_start_1, {n}_ahead)
  {n}_from = Add ({n}_from_0, {n}_moved)
  {n}_most_0 = Add ({size}, {bins})
  {n}_most_1 = Sub ({n}_most_0, i1)
  {n}_most = Div ({n}_most_1, {bins})
  {n}_limit_1 = Where (adaptive, {n}_most, fixed)
  {n}_limit = Squeeze ({n}_limit_1)
  {n}_limit_f = Cast <to = 1> ({n}_limit_1)
  {n}_wanted_0 = Ceil ({n}_bin)
  {n}_wanted_1 = Max ({n}_wanted_0, f0)
  {n}_wanted_2 = Min ({n}_wanted_1, {n}_limit_f)
  {n}_wanted = Where (adaptive, {n}_wanted_2, {n}_limit_f)
  {n}_count = Max ({n}_wanted, f1)
  {n}_step = Div ({n}_bin, {n}_count)
  {n}_step_4 = Unsqueeze ({n}_step, i3)
  {n}_wanted_4 = Unsqueeze ({n}_wanted, i3)
  {n}_from_4 = Unsqueeze ({n}_from, i3)
  {n}_sample = Range (s0, {n}_limit, s1)
  {n}_sample_f = Cast <to = 1> ({n}_sample)
  {n}_middle = Add ({n}_sample_f, half)
  {n}_along = Mul ({n}_middle, {n}_step_4)
  {n}_at = Add ({n}_from_4, {n}_along)
  {n}_taken = Less ({n}_sample_f, {n}_wanted_4)
  {n}_after = GreaterOrEqual ({n}_at, minus)
  {n}_before = LessOrEqual ({n}_at, {size}_f)
  {n}_within = And ({n}_after, {n}_before)
  {n}_used = And ({n}_taken, {n}_within)
  {n}_at_safe = Where ({n}_used, {n}_at, f0)
  {n}_last = Sub ({size}_f, f1)
  {n}_at_up = Max ({n}_at_safe, f0)
  {n}_at_in = Min ({n}_at_up, {n}_last)
  {n}_at_5 = Unsqueeze ({n}_at_in, i4)
  {n}_size_s = Squeeze ({size})
  {n}_pixel = Range (s0, {n}_size_s, s1)
  {n}_pixel_f = Cast <to = 1> ({n}_pixel)
  {n}_apart = Sub ({n}_at_5, {n}_pixel_f)
  {n}_distance = Abs ({n}_apart)
  {n}_near = Sub (f1, {n}_distance)
  {n}_hat = Relu ({n}_near)
  {n}_used_f = Cast <to = 1> ({n}_used)
  {n}_used_5 = Unsqueeze ({n}_used_f, i4)
  {n}_shares = Mul ({n}_hat, {n}_used_5)
  {n}_sum = ReduceSum <keepdims = 0> ({n}_shares, i3)
  {n}_count_4 = Unsqueeze ({n}_count, i3)
  {n}_weights = Div ({n}_sum, {n}_count_4)
"""


_BODY = f"""
{CONSTANTS}
{sizes("x", "B C H W")}
{number("P", "pooled_height")}
{number("Q", "pooled_width")}
{number("fixed", "sampling")}
  scale = Constant <value_float: float = @spatial_scale> ()
  gamma = Constant <value_float: float = @gamma> ()
  adaptive = Equal (fixed, i0)
  rois_f = Cast <to = 1> (rois)
{sound_rois("B_f")}
  x1, y1, x2, y2 = Split <axis = 1, num_outputs = 4> (boxes)
  offset_f = Cast <to = 1> (offset)
  dx_4, dy_4 = Split <axis = 1, num_outputs = 2> (offset_f)
  dx = Squeeze (dx_4, i1)
  dy = Squeeze (dy_4, i1)
  vertical = Constant <value_ints: ints = [0, 2]> ()
  across = Constant <value_ints: ints = [0, 1]> ()
{_axis("row", "y1", "y2", "H", "P", "dy", "vertical")}
{_axis("col", "x1", "x2", "W", "Q", "dx", "across")}
  x_f = Cast <to = 1> (x)
  maps = Gather <axis = 0> (x_f, image)
  half_way = Einsum <equation = "nchw,npqh->ncpqw"> (maps, row_weights)
  pooled = Einsum <equation = "ncpqw,npqw->ncpq"> (half_way, col_weights)
  out_f = Where (usable_4, pooled, f0)
  out = CastLike (out_f, x)
"""

TRANSLATIONS = {"deform_roi_pool": translate}
FUNCTIONS = {
    "DeformRoiPool": lambda: function(
        "DeformRoiPool <pooled_height, pooled_width, spatial_scale, sampling, gamma> (x, rois, offset) => (out)",
        _BODY,
    )
}
