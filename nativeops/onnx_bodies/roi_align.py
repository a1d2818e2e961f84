"""`multilevel_roi_align` in ONNX: each level pools only its own boxes, so the work is that of one level. And
`roi_align` over one map.

The function has a name per number of levels, since a function's inputs are fixed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

from onnxscript import BOOL, FLOAT, script
from onnxscript.values import Opset

from detc.nativeops.onnx_bodies._taps import CONSTANTS, function, sizes, sound_rois

detc = Opset("detc", 1)
MAX_LEVELS = 6


@script(detc, default_opset=detc)
def _levels1(f0: FLOAT, rois: FLOAT, valid: BOOL, scales: Sequence[float], pooled_height: int, pooled_width: int, sampling_ratio: int,
             half: str, canonical_scale: float, canonical_level: float) -> FLOAT:  # fmt: skip
    return detc.MultilevelRoiAlign1(f0, rois, valid, scales=scales, pooled_height=pooled_height, pooled_width=pooled_width,
        sampling_ratio=sampling_ratio, half=half, canonical_scale=canonical_scale, canonical_level=canonical_level)  # fmt: skip


@script(detc, default_opset=detc)
def _levels2(f0: FLOAT, f1: FLOAT, rois: FLOAT, valid: BOOL, scales: Sequence[float], pooled_height: int, pooled_width: int,
             sampling_ratio: int, half: str, canonical_scale: float, canonical_level: float) -> FLOAT:  # fmt: skip
    return detc.MultilevelRoiAlign2(f0, f1, rois, valid, scales=scales, pooled_height=pooled_height, pooled_width=pooled_width,
        sampling_ratio=sampling_ratio, half=half, canonical_scale=canonical_scale, canonical_level=canonical_level)  # fmt: skip


@script(detc, default_opset=detc)
def _levels3(f0: FLOAT, f1: FLOAT, f2: FLOAT, rois: FLOAT, valid: BOOL, scales: Sequence[float], pooled_height: int, pooled_width: int,
             sampling_ratio: int, half: str, canonical_scale: float, canonical_level: float) -> FLOAT:  # fmt: skip
    return detc.MultilevelRoiAlign3(f0, f1, f2, rois, valid, scales=scales, pooled_height=pooled_height, pooled_width=pooled_width,
        sampling_ratio=sampling_ratio, half=half, canonical_scale=canonical_scale, canonical_level=canonical_level)  # fmt: skip


@script(detc, default_opset=detc)
def _levels4(f0: FLOAT, f1: FLOAT, f2: FLOAT, f3: FLOAT, rois: FLOAT, valid: BOOL, scales: Sequence[float], pooled_height: int,
             pooled_width: int, sampling_ratio: int, half: str, canonical_scale: float, canonical_level: float) -> FLOAT:  # fmt: skip
    return detc.MultilevelRoiAlign4(f0, f1, f2, f3, rois, valid, scales=scales, pooled_height=pooled_height, pooled_width=pooled_width,
        sampling_ratio=sampling_ratio, half=half, canonical_scale=canonical_scale, canonical_level=canonical_level)  # fmt: skip


@script(detc, default_opset=detc)
def _levels5(f0: FLOAT, f1: FLOAT, f2: FLOAT, f3: FLOAT, f4: FLOAT, rois: FLOAT, valid: BOOL, scales: Sequence[float], pooled_height: int,
             pooled_width: int, sampling_ratio: int, half: str, canonical_scale: float, canonical_level: float) -> FLOAT:  # fmt: skip
    return detc.MultilevelRoiAlign5(f0, f1, f2, f3, f4, rois, valid, scales=scales, pooled_height=pooled_height, pooled_width=pooled_width,
        sampling_ratio=sampling_ratio, half=half, canonical_scale=canonical_scale, canonical_level=canonical_level)  # fmt: skip


_BY_LEVELS: dict[int, Any] = {1: _levels1, 2: _levels2, 3: _levels3, 4: _levels4, 5: _levels5}


def translate(
    features,  # type: ignore[no-untyped-def]
    rois,
    valid,
    scales: Sequence[float],
    pooled_height: int,
    pooled_width: int,
    sampling_ratio: int,
    aligned: bool,
    canonical_scale: float,
    canonical_level: float,
):
    """The exporter's rule."""
    from onnxscript import opset18

    op: Any = opset18

    if len(features) not in _BY_LEVELS:
        raise NotImplementedError(
            f"multilevel_roi_align over {len(features)} levels has no ONNX form: 1 to {max(_BY_LEVELS)}"
        )
    if valid is None:
        valid = op.GreaterOrEqual(
            op.ReduceSum(op.Abs(rois), op.Constant(value_ints=[2]), keepdims=0), op.Constant(value_float=0.0)
        )
    return _BY_LEVELS[len(features)](
        *features,
        rois,
        valid,
        scales=[float(s) for s in scales],
        pooled_height=int(pooled_height),
        pooled_width=int(pooled_width),
        sampling_ratio=int(sampling_ratio),
        half="half_pixel" if aligned else "output_half_pixel",
        canonical_scale=float(canonical_scale),
        canonical_level=float(canonical_level),
    )


@cache
def _body(levels: int) -> str:
    """The function for `levels` feature maps. RoiAlign's scale is a plain attribute, so boxes are scaled before it."""
    names = [f"f{i}" for i in range(levels)]
    lines = [
        f"""<domain: "detc", opset_import: ["": 18]>
MultilevelRoiAlign{levels} <scales, pooled_height, pooled_width, sampling_ratio, half, canonical_scale, canonical_level> ({", ".join(names)}, rois, valid) => (out)
{{
  zero = Constant <value_ints: ints = [0]> ()
  one = Constant <value_ints: ints = [1]> ()
  two = Constant <value_ints: ints = [2]> ()
  minus = Constant <value_ints: ints = [-1]> ()
  zero_s = Constant <value_int: int = 0> ()
  one_s = Constant <value_int: int = 1> ()
  four = Constant <value_ints: ints = [-1, 4]> ()
  zero_f = Constant <value_float: float = 0.0> ()
  tiny = Constant <value_float: float = 1e-6> ()
  ln2 = Constant <value_float: float = 0.6931471805599453> ()
  scale_list = Constant <value_floats: floats = @scales> ()
  base = Constant <value_float: float = @canonical_scale> ()
  start = Constant <value_float: float = @canonical_level> ()
  ph_s = Constant <value_int: int = @pooled_height> ()
  pw_s = Constant <value_int: int = @pooled_width> ()
  ph = Reshape (ph_s, one)
  pw = Reshape (pw_s, one)
  rois_f = Cast <to = 1> (rois)
  flat = Reshape (rois_f, four)
  shape = Shape (rois)
  batch = Slice (shape, zero, one)
  count = Slice (shape, one, two)
  batch_s = Squeeze (batch)
  image = Range (zero_s, batch_s, one_s)
  image2 = Unsqueeze (image, one)
  grid_shape = Concat <axis = 0> (batch, count)
  image_grid = Expand (image2, grid_shape)
  image_flat = Reshape (image_grid, minus)
  valid_flat = Reshape (valid, minus)
  x1, y1, x2, y2 = Split <axis = 1, num_outputs = 4> (flat)
  w = Sub (x2, x1)
  h = Sub (y2, y1)
  area = Mul (w, h)
  area_p = Max (area, zero_f)
  side = Sqrt (area_p)
  ratio = Div (side, base)
  safe = Max (ratio, floor_ratio)
  floor_ratio = Constant <value_float: float = 1e-20> ()
  log = Log (safe)
  octave = Div (log, ln2)
  level_f0 = Add (octave, start)
  level_f1 = Add (level_f0, tiny)
  level_f2 = Floor (level_f1)
  finest_scale = Gather <axis = 0> (scale_list, zero_s)
  finest_log = Log (finest_scale)
  finest_neg = Neg (finest_log)
  finest_oct = Div (finest_neg, ln2)
  finest = Round (finest_oct)
  level_f3 = Sub (level_f2, finest)
  high = Constant <value_float: float = {levels - 1}.0> ()
  level_c = Clip (level_f3, zero_f, high)
  level_1 = Squeeze (level_c, one)
  f_shape = Shape (f0)
  channels = Slice (f_shape, one, two)
  total = Mul (batch, count)
  pooled_shape = Concat <axis = 0> (total, channels, ph, pw)
  out_0 = Expand (zero_f, pooled_shape)"""
    ]
    for i, name in enumerate(names):
        lines.append(f"""  number_{i} = Constant <value_float: float = {i}.0> ()
  at_{i} = Equal (level_1, number_{i})
  own_{i} = And (at_{i}, valid_flat)
  where_{i} = NonZero (own_{i})
  index_{i} = Squeeze (where_{i}, zero)
  boxes_{i} = Gather <axis = 0> (flat, index_{i})
  of_{i} = Gather <axis = 0> (image_flat, index_{i})
  k_{i} = Constant <value_int: int = {i}> ()
  scale_{i} = Gather <axis = 0> (scale_list, k_{i})
  scaled_{i} = Mul (boxes_{i}, scale_{i})
  map_{i} = Cast <to = 1> ({name})
  pooled_{i} = RoiAlign <output_height: int = @pooled_height, output_width: int = @pooled_width, sampling_ratio: int = @sampling_ratio, spatial_scale = 1.0, coordinate_transformation_mode: string = @half, mode = "avg"> (map_{i}, scaled_{i}, of_{i})
  place_{i} = Unsqueeze (index_{i}, one)
  out_{i + 1} = ScatterND (out_{i}, place_{i}, pooled_{i})""")
    lines.append(f"""  final_shape = Concat <axis = 0> (batch, count, channels, ph, pw)
  out = Reshape (out_{levels}, final_shape)
}}""")
    text = "\n".join(lines)
    safe, const = (
        "  safe = Max (ratio, floor_ratio)\n",
        "  floor_ratio = Constant <value_float: float = 1e-20> ()\n",
    )
    return text.replace(safe + const, const + safe)


def _text(levels: int) -> Callable[[], str]:
    return lambda: _body(levels)


@script(detc, default_opset=detc)
def _single(
    feature: FLOAT,
    rois: FLOAT,
    spatial_scale: float,
    pooled_height: int,
    pooled_width: int,
    sampling_ratio: int,
    half: str,
) -> FLOAT:
    return detc.RoiAlign(
        feature,
        rois,
        spatial_scale=spatial_scale,
        pooled_height=pooled_height,
        pooled_width=pooled_width,
        sampling_ratio=sampling_ratio,
        half=half,
    )


def translate_single(
    feature,  # type: ignore[no-untyped-def]
    rois,
    spatial_scale: float,
    pooled_height: int,
    pooled_width: int,
    sampling_ratio: int,
    aligned: bool,
):
    """The exporter's rule for one map."""
    return _single(
        feature,
        rois,
        spatial_scale=float(spatial_scale),
        pooled_height=int(pooled_height),
        pooled_width=int(pooled_width),
        sampling_ratio=int(sampling_ratio),
        half="half_pixel" if aligned else "output_half_pixel",
    )


_SINGLE = f"""
{CONSTANTS}
{sizes("feature", "B C H W")}
  rois_f = Cast <to = 1> (rois)
{sound_rois("B_f")}
  feature_f = Cast <to = 1> (feature)
  pooled = RoiAlign <output_height: int = @pooled_height, output_width: int = @pooled_width, sampling_ratio: int = @sampling_ratio, spatial_scale: float = @spatial_scale, coordinate_transformation_mode: string = @half, mode = "avg"> (feature_f, boxes, image)
  out_f = Where (usable_4, pooled, f0)
  out = CastLike (out_f, feature)
"""


def _single_text() -> str:
    header = (
        "RoiAlign <spatial_scale, pooled_height, pooled_width, sampling_ratio, half> (feature, rois) => (out)"
    )
    return function(header, _SINGLE)


TRANSLATIONS: dict[str, Any] = {"multilevel_roi_align": translate, "roi_align": translate_single}
FUNCTIONS = {
    **{f"MultilevelRoiAlign{n}": _text(n) for n in _BY_LEVELS},
    "RoiAlign": _single_text,
}
