"""`masked_conv2d` in ONNX: a convolution, and zero where the mask is unset."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from onnxscript import BOOL, FLOAT, script
from onnxscript.values import Opset

from detc.nativeops.onnx_bodies._taps import CONSTANTS, function

detc = Opset("detc", 1)


@script(detc, default_opset=detc)
def _node(
    x: FLOAT, mask: BOOL, weight: FLOAT, bias: FLOAT, strides: Sequence[int], pads: Sequence[int]
) -> FLOAT:
    return detc.MaskedConv2d(x, mask, weight, bias, strides=strides, pads=pads)


def translate(x, mask, weight, bias, stride: Sequence[int], padding: Sequence[int]):  # type: ignore[no-untyped-def]
    """The exporter's rule; ``pads`` are begins, then ends, as Conv has them."""
    from onnxscript import opset18

    op: Any = opset18
    if bias is None:
        zero: Any = op.Constant(value_floats=[0.0])
        bias = op.Expand(op.CastLike(zero, weight), op.Shape(weight, start=0, end=1))
    pads = [int(n) for n in padding]
    return _node(x, mask, weight, bias, strides=[int(n) for n in stride], pads=[*pads, *pads])


_BODY = f"""
{CONSTANTS}
  x_f = Cast <to = 1> (x)
  weight_f = Cast <to = 1> (weight)
  bias_f = Cast <to = 1> (bias)
  everywhere = Conv <strides: ints = @strides, pads: ints = @pads> (x_f, weight_f, bias_f)
  mask_4 = Unsqueeze (mask, i1)
  out_f = Where (mask_4, everywhere, f0)
  out = CastLike (out_f, x)
"""

TRANSLATIONS = {"masked_conv2d": translate}
FUNCTIONS = {
    "MaskedConv2d": lambda: function("MaskedConv2d <strides, pads> (x, mask, weight, bias) => (out)", _BODY)
}
