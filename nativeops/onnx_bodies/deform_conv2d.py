"""`deform_conv2d` in ONNX: gathered columns, then a product (DeformConv itself needs opset 19)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from onnxscript import FLOAT, script
from onnxscript.values import Opset

from detc.nativeops.onnx_bodies._taps import CONSTANTS, function, sizes, taps

detc = Opset("detc", 1)


@script(detc, default_opset=detc)
def _plain(
    x: FLOAT,
    offset: FLOAT,
    weight: FLOAT,
    bias: FLOAT,
    strides: Sequence[int],
    pads: Sequence[int],
    dilations: Sequence[int],
) -> FLOAT:
    return detc.DeformConv2d(x, offset, weight, bias, strides=strides, pads=pads, dilations=dilations)


@script(detc, default_opset=detc)
def _modulated(
    x: FLOAT,
    offset: FLOAT,
    weight: FLOAT,
    bias: FLOAT,
    mask: FLOAT,
    strides: Sequence[int],
    pads: Sequence[int],
    dilations: Sequence[int],
) -> FLOAT:
    return detc.ModulatedDeformConv2d(
        x, offset, weight, bias, mask, strides=strides, pads=pads, dilations=dilations
    )


def translate(
    x,  # type: ignore[no-untyped-def]
    offset,
    weight,
    bias,
    mask,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
):
    """The exporter's rule."""
    from onnxscript import opset18 as op

    options = {
        "strides": [int(n) for n in stride],
        "pads": [int(n) for n in padding],
        "dilations": [int(n) for n in dilation],
    }
    if bias is None:
        zero: Any = op.Constant(value_floats=[0.0])
        bias = op.Expand(op.CastLike(zero, weight), op.Shape(weight, start=0, end=1))
    if mask is None:
        return _plain(x, offset, weight, bias, **options)
    return _modulated(x, offset, weight, bias, mask, **options)


def _axis(name: str, tap: str, position: str, at: str) -> str:
    """Where a tap reads along one axis before the offset: ``tap * dilation + position * stride - pad``."""
    return f"""
  {name}_stride = Gather <axis = 0> (stride_list, {at})
  {name}_dilation = Gather <axis = 0> (dilation_list, {at})
  {name}_pad = Gather <axis = 0> (pad_list, {at})
  {name}_p0 = Mul ({position}, {name}_stride)
  {name}_p1 = Sub ({name}_p0, {name}_pad)
  {name}_k0 = Mul ({tap}, {name}_dilation)
  {name}_k1 = Unsqueeze ({name}_k0, i1)
  {name}_kp = Add ({name}_k1, {name}_p1)
  {name}_base = Cast <to = 1> ({name}_kp)
"""


def _body(modulated: bool) -> str:
    scale = "mask_4" if modulated else "f1"
    read_mask = "  mask_f = Cast <to = 1> (mask)\n  mask_4 = Reshape <allowzero = 1> (mask_f, points)\n"
    mask = read_mask if modulated else ""
    return f"""
{CONSTANTS}
{sizes("x", "B C H W")}
{sizes("weight", "O Cg kH kW")}
{sizes("offset", "B2 GK2 oH oW")}
  stride_list = Constant <value_ints: ints = @strides> ()
  pad_list = Constant <value_ints: ints = @pads> ()
  dilation_list = Constant <value_ints: ints = @dilations> ()
  K = Mul (kH, kW)
  K2 = Mul (K, i2)
  G = Div (GK2, K2)
  groups = Div (C, Cg)
  P = Mul (oH, oW)
  K_s = Squeeze (K)
  P_s = Squeeze (P)
  tap = Range (s0, K_s, s1)
  tap_row = Div (tap, kW)
  tap_row_k = Mul (tap_row, kW)
  tap_col = Sub (tap, tap_row_k)
  position = Range (s0, P_s, s1)
  position_row = Div (position, oW)
  position_row_w = Mul (position_row, oW)
  position_col = Sub (position, position_row_w)
{_axis("ay", "tap_row", "position_row", "s0")}
{_axis("ax", "tap_col", "position_col", "s1")}
  offset_f = Cast <to = 1> (offset)
  offset_shape = Concat <axis = 0> (B, G, K, i2, P)
  offset_5 = Reshape <allowzero = 1> (offset_f, offset_shape)
  dy_5, dx_5 = Split <axis = 3, num_outputs = 2> (offset_5)
  dy_4 = Squeeze (dy_5, i3)
  dx_4 = Squeeze (dx_5, i3)
  y = Add (dy_4, ay_base)
  xx = Add (dx_4, ax_base)
  points = Concat <axis = 0> (B, G, K, P)
{mask}
{taps("y", "xx", "H_f", "W_f", scale)}
  KP = Mul (K, P)
  reads = Mul (KP, i4)
  listed = Concat <axis = 0> (B, G, reads, i1)
  index_list = Reshape <allowzero = 1> (tap_index, listed)
  x_f = Cast <to = 1> (x)
  per_offset = Div (C, G)
  HW = Mul (H, W)
  planes = Concat <axis = 0> (B, G, per_offset, HW)
  x_4 = Reshape <allowzero = 1> (x_f, planes)
  x_last = Transpose <perm = [0, 1, 3, 2]> (x_4)
  rows = GatherND <batch_dims = 2> (x_last, index_list)
  grouped = Concat <axis = 0> (B, G, KP, i4, per_offset)
  rows_5 = Reshape <allowzero = 1> (rows, grouped)
  weighing = Concat <axis = 0> (B, G, KP, i1, i4)
  weight_5 = Reshape <allowzero = 1> (tap_weight, weighing)
  sampled_5 = MatMul (weight_5, rows_5)
  unfolded = Concat <axis = 0> (B, G, K, P, per_offset)
  sampled = Reshape <allowzero = 1> (sampled_5, unfolded)
  turned = Transpose <perm = [0, 1, 4, 2, 3]> (sampled)
  depth = Mul (Cg, K)
  columns_shape = Concat <axis = 0> (B, groups, depth, P)
  columns = Reshape <allowzero = 1> (turned, columns_shape)
  weight_f = Cast <to = 1> (weight)
  filters = Div (O, groups)
  weight_shape_3 = Concat <axis = 0> (groups, filters, depth)
  weight_3 = Reshape (weight_f, weight_shape_3)
  product = MatMul (weight_3, columns)
  image = Concat <axis = 0> (B, O, oH, oW)
  product_4 = Reshape <allowzero = 1> (product, image)
  bias_f = Cast <to = 1> (bias)
  bias_shape = Concat <axis = 0> (O, i1, i1)
  bias_3 = Reshape (bias_f, bias_shape)
  out_f = Add (product_4, bias_3)
  out = CastLike (out_f, x)
"""


def _text(name: str, inputs: str, modulated: bool) -> Callable[[], str]:
    return lambda: function(f"{name} <strides, pads, dilations> ({inputs}) => (out)", _body(modulated))


TRANSLATIONS = {"deform_conv2d": translate}
FUNCTIONS = {
    "DeformConv2d": _text("DeformConv2d", "x, offset, weight, bias", modulated=False),
    "ModulatedDeformConv2d": _text("ModulatedDeformConv2d", "x, offset, weight, bias, mask", modulated=True),
}
