"""`box_iou` in ONNX: a function for each kind, pairwise and aligned."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Any

from onnxscript import FLOAT, script
from onnxscript.values import Opset

from detc.nativeops.onnx_bodies._taps import CONSTANTS, function

detc = Opset("detc", 1)
KINDS = ("iou", "giou", "diou", "ciou")


@script(detc, default_opset=detc)
def _iou(a: FLOAT, b: FLOAT) -> FLOAT:
    return detc.BoxIou(a, b)


@script(detc, default_opset=detc)
def _giou(a: FLOAT, b: FLOAT) -> FLOAT:
    return detc.BoxGiou(a, b)


@script(detc, default_opset=detc)
def _diou(a: FLOAT, b: FLOAT) -> FLOAT:
    return detc.BoxDiou(a, b)


@script(detc, default_opset=detc)
def _ciou(a: FLOAT, b: FLOAT) -> FLOAT:
    return detc.BoxCiou(a, b)


@script(detc, default_opset=detc)
def _iou_aligned(a: FLOAT, b: FLOAT) -> FLOAT:
    return detc.BoxIouAligned(a, b)


@script(detc, default_opset=detc)
def _giou_aligned(a: FLOAT, b: FLOAT) -> FLOAT:
    return detc.BoxGiouAligned(a, b)


@script(detc, default_opset=detc)
def _diou_aligned(a: FLOAT, b: FLOAT) -> FLOAT:
    return detc.BoxDiouAligned(a, b)


@script(detc, default_opset=detc)
def _ciou_aligned(a: FLOAT, b: FLOAT) -> FLOAT:
    return detc.BoxCiouAligned(a, b)


_NODES: dict[tuple[str, bool], Any] = {
    ("iou", False): _iou,
    ("giou", False): _giou,
    ("diou", False): _diou,
    ("ciou", False): _ciou,
    ("iou", True): _iou_aligned,
    ("giou", True): _giou_aligned,
    ("diou", True): _diou_aligned,
    ("ciou", True): _ciou_aligned,
}


def translate(a, b, kind: str, aligned: bool):  # type: ignore[no-untyped-def]
    """The exporter's rule."""
    return _NODES[kind, bool(aligned)](a, b)


def _ratio(out: str, above: str, below: str) -> str:
    """A quotient, 0 where its denominator is not positive."""
    return f"""
  {out}_none = LessOrEqual ({below}, f0)
  {out}_below = Where ({out}_none, f1, {below})
  {out}_raw = Div ({above}, {out}_below)
  {out} = Where ({out}_none, f0, {out}_raw)
"""


def _angle(side: str) -> str:
    """``atan2(w, h)``: the ratio of a box's sides as an angle, whatever their signs."""
    return f"""
  {side}_flat = Equal ({side}_h, f0)
  {side}_h_safe = Where ({side}_flat, f1, {side}_h)
  {side}_slope = Div ({side}_w, {side}_h_safe)
  {side}_atan = Atan ({side}_slope)
  {side}_sign = Sign ({side}_w)
  {side}_right = Mul ({side}_sign, half_pi)
  {side}_left = GreaterOrEqual ({side}_w, f0)
  {side}_turn = Where ({side}_left, pi, minus_pi)
  {side}_below = Less ({side}_h, f0)
  {side}_turned = Add ({side}_atan, {side}_turn)
  {side}_slanted = Where ({side}_below, {side}_turned, {side}_atan)
  {side}_upright = Where ({side}_flat, {side}_right, {side}_slanted)
  {side}_thin = Equal ({side}_w, f0)
  {side}_point = And ({side}_flat, {side}_thin)
  {side}_angle = Where ({side}_point, f0, {side}_upright)
"""


_HULL = """
  out_x1 = Min (a_x1, b_x1)
  out_y1 = Min (a_y1, b_y1)
  out_x2 = Max (a_x2, b_x2)
  out_y2 = Max (a_y2, b_y2)
  out_w = Sub (out_x2, out_x1)
  out_h = Sub (out_y2, out_y1)
"""

_GIOU = f"""
{_HULL}
  hull = Mul (out_w, out_h)
  empty = Sub (hull, union)
{_ratio("waste", "empty", "hull")}
  result = Sub (iou, waste)
"""

_DIOU = f"""
{_HULL}
  a_sx = Add (a_x1, a_x2)
  a_sy = Add (a_y1, a_y2)
  b_sx = Add (b_x1, b_x2)
  b_sy = Add (b_y1, b_y2)
  apart_x = Sub (a_sx, b_sx)
  apart_y = Sub (a_sy, b_sy)
  apart_x2 = Mul (apart_x, apart_x)
  apart_y2 = Mul (apart_y, apart_y)
  apart = Add (apart_x2, apart_y2)
  out_w2 = Mul (out_w, out_w)
  out_h2 = Mul (out_h, out_h)
  across = Add (out_w2, out_h2)
  four = Constant <value_float: float = 4.0> ()
  across_4 = Mul (four, across)
{_ratio("distance", "apart", "across_4")}
  diou = Sub (iou, distance)
"""

_CIOU = f"""
{_DIOU}
  pi = Constant <value_float: float = 3.14159265358979> ()
  minus_pi = Neg (pi)
  half_pi = Mul (pi, half)
{_angle("a")}
{_angle("b")}
  turned = Sub (b_angle, a_angle)
  turned2 = Mul (turned, turned)
  scale = Constant <value_float: float = 0.405284734569351> ()
  shape = Mul (scale, turned2)
  miss = Sub (f1, iou)
  total = Add (miss, shape)
{_ratio("trade", "shape", "total")}
  penalty = Mul (trade, shape)
  result = Sub (diou, penalty)
"""

_ENDS = {
    "iou": "  result = Identity (iou)\n",
    "giou": _GIOU,
    "diou": _DIOU + "\n  result = Identity (diou)\n",
    "ciou": _CIOU,
}


def _box(side: str) -> str:
    return f"""
  {side}_x1, {side}_y1, {side}_x2, {side}_y2 = Split <axis = -1, num_outputs = 4> ({side}_f)
  {side}_w = Sub ({side}_x2, {side}_x1)
  {side}_h = Sub ({side}_y2, {side}_y1)
  {side}_area = Mul ({side}_w, {side}_h)
"""


def _body(kind: str, aligned: bool) -> str:
    """Boxes get their places by broadcasting: ``[B, N, 1, 4]`` and ``[B, 1, M, 4]``, or both ``[B, N, 4]``."""
    sides = "".join(
        f"  {side}_c = Cast <to = 1> ({side})\n"
        + (f"  {side}_f = Identity ({side}_c)\n" if aligned else f"  {side}_f = Unsqueeze ({side}_c, {at})\n")
        for side, at in (("a", "i2"), ("b", "i1"))
    )
    return f"""
{CONSTANTS}
{sides}
{_box("a")}
{_box("b")}
  left = Max (a_x1, b_x1)
  top = Max (a_y1, b_y1)
  right = Min (a_x2, b_x2)
  bottom = Min (a_y2, b_y2)
  both_w_raw = Sub (right, left)
  both_h_raw = Sub (bottom, top)
  both_w = Max (both_w_raw, f0)
  both_h = Max (both_h_raw, f0)
  inter = Mul (both_w, both_h)
  areas = Add (a_area, b_area)
  union = Sub (areas, inter)
{_ratio("iou", "inter", "union")}
{_ENDS[kind]}
  result_1 = Squeeze (result, last)
  out = CastLike (result_1, a)
"""


def _name(kind: str, aligned: bool) -> str:
    return f"Box{kind.capitalize()}" + ("Aligned" if aligned else "")


def _text(kind: str, aligned: bool) -> Callable[[], str]:
    return lambda: function(f"{_name(kind, aligned)} (a, b) => (out)", _body(kind, aligned))


TRANSLATIONS = {"box_iou": translate}
FUNCTIONS = {_name(kind, aligned): _text(kind, aligned) for kind, aligned in product(KINDS, (False, True))}
