"""`batched_nms` in ONNX: the best candidates, a suppression among them, and slots of fixed number.

Exact: classes are told apart by a class axis, not by shifting boxes. Hard suppression is NonMaxSuppression,
soft a Loop that takes one box a turn, matrix a matrix of overlaps of the candidates (so give those a
``pre_topk``). Boxes are straight: rotated ones have no ONNX form.
"""

from __future__ import annotations

import re
from typing import Any

from onnxscript import BOOL, FLOAT, INT64, script
from onnxscript.values import Opset

detc = Opset("detc", 1)

# The exporter wants a function with a signature for each node, hence this table of near-repetitions.


@script(detc, default_opset=detc)
def _hard(boxes: FLOAT, scores: FLOAT, iou_threshold: float, score_threshold: float, keep: int, pre_topk: int,
          class_agnostic: int) -> tuple[FLOAT, FLOAT, INT64, INT64, BOOL]:  # fmt: skip
    b, s, l, i, v = detc.BatchedNMS(boxes, scores, iou_threshold=iou_threshold, score_threshold=score_threshold, keep=keep,
                                    pre_topk=pre_topk, class_agnostic=class_agnostic)  # fmt: skip
    return b, s, l, i, v


@script(detc, default_opset=detc)
def _hard_labelled(boxes: FLOAT, scores: FLOAT, labels: INT64, iou_threshold: float, score_threshold: float, keep: int,
                   pre_topk: int, class_agnostic: int) -> tuple[FLOAT, FLOAT, INT64, INT64, BOOL]:  # fmt: skip
    b, s, l, i, v = detc.BatchedNMSLabelled(boxes, scores, labels, iou_threshold=iou_threshold, score_threshold=score_threshold,
                                            keep=keep, pre_topk=pre_topk, class_agnostic=class_agnostic)  # fmt: skip
    return b, s, l, i, v


@script(detc, default_opset=detc)
def _soft(boxes: FLOAT, scores: FLOAT, iou_threshold: float, score_threshold: float, keep: int, pre_topk: int,
          class_agnostic: int, gaussian: int, sigma: float, min_score: float) -> tuple[FLOAT, FLOAT, INT64, INT64, BOOL]:  # fmt: skip
    b, s, l, i, v = detc.BatchedSoftNMS(boxes, scores, iou_threshold=iou_threshold, score_threshold=score_threshold, keep=keep,
        pre_topk=pre_topk, class_agnostic=class_agnostic, gaussian=gaussian, sigma=sigma, min_score=min_score)  # fmt: skip
    return b, s, l, i, v


@script(detc, default_opset=detc)
def _soft_labelled(boxes: FLOAT, scores: FLOAT, labels: INT64, iou_threshold: float, score_threshold: float, keep: int, pre_topk: int,
          class_agnostic: int, gaussian: int, sigma: float, min_score: float) -> tuple[FLOAT, FLOAT, INT64, INT64, BOOL]:  # fmt: skip
    b, s, l, i, v = detc.BatchedSoftNMSLabelled(boxes, scores, labels, iou_threshold=iou_threshold, score_threshold=score_threshold,
        keep=keep, pre_topk=pre_topk, class_agnostic=class_agnostic, gaussian=gaussian, sigma=sigma, min_score=min_score)  # fmt: skip
    return b, s, l, i, v


@script(detc, default_opset=detc)
def _matrix(boxes: FLOAT, scores: FLOAT, iou_threshold: float, score_threshold: float, keep: int, pre_topk: int,
            class_agnostic: int, gaussian: int, sigma: float, min_score: float) -> tuple[FLOAT, FLOAT, INT64, INT64, BOOL]:  # fmt: skip
    b, s, l, i, v = detc.BatchedMatrixNMS(boxes, scores, iou_threshold=iou_threshold, score_threshold=score_threshold, keep=keep,
        pre_topk=pre_topk, class_agnostic=class_agnostic, gaussian=gaussian, sigma=sigma, min_score=min_score)  # fmt: skip
    return b, s, l, i, v


@script(detc, default_opset=detc)
def _matrix_labelled(boxes: FLOAT, scores: FLOAT, labels: INT64, iou_threshold: float, score_threshold: float, keep: int,
            pre_topk: int, class_agnostic: int, gaussian: int, sigma: float, min_score: float) -> tuple[FLOAT, FLOAT, INT64, INT64, BOOL]:  # fmt: skip
    b, s, l, i, v = detc.BatchedMatrixNMSLabelled(boxes, scores, labels, iou_threshold=iou_threshold, score_threshold=score_threshold,
        keep=keep, pre_topk=pre_topk, class_agnostic=class_agnostic, gaussian=gaussian, sigma=sigma, min_score=min_score)  # fmt: skip
    return b, s, l, i, v


_NODES: dict[tuple[str, bool], Any] = {
    ("hard", False): _hard,
    ("hard", True): _hard_labelled,
    ("soft", False): _soft,
    ("soft", True): _soft_labelled,
    ("matrix", False): _matrix,
    ("matrix", True): _matrix_labelled,
}
_LOWEST = -3.0e38  # thresholds below every score: -inf is no attribute that all runtimes read


def translate(
    boxes,  # type: ignore[no-untyped-def]
    scores,
    labels,
    iou_threshold: float,
    score_threshold: float,
    keep: int,
    pre_topk: int,
    class_agnostic: bool,
    method: str,
    sigma: float,
    min_score: float,
):
    """The exporter's rule."""
    shape = getattr(boxes, "shape", None)
    if shape is not None and len(shape) == 3 and shape[2] == 5:
        raise NotImplementedError("batched_nms of rotated boxes has no ONNX form")
    family, _, decay = method.partition("_")
    options: dict[str, Any] = {
        "iou_threshold": float(iou_threshold),
        "score_threshold": max(float(score_threshold), _LOWEST),
        "keep": int(keep),
        "pre_topk": int(pre_topk) or 2**31 - 1,
        "class_agnostic": int(class_agnostic),
    }
    if family != "hard":
        options |= {
            "gaussian": int(decay == "gaussian"),
            "sigma": float(sigma),
            "min_score": max(float(min_score), _LOWEST),
        }
    inputs = (boxes, scores) if labels is None else (boxes, scores, labels)
    return _NODES[family, labels is not None](*inputs, **options)


# Shapes: B images, P candidates and one more that never is one (so that no axis that is reduced is empty), K slots.
# A dead score is `low`.
_CANDIDATES = """
  zero = Constant <value_ints: ints = [0]> ()
  one = Constant <value_ints: ints = [1]> ()
  two = Constant <value_ints: ints = [2]> ()
  minus = Constant <value_ints: ints = [-1]> ()
  zero_s = Constant <value_int: int = 0> ()
  one_s = Constant <value_int: int = 1> ()
  zero_f = Constant <value_float: float = 0.0> ()
  one_f = Constant <value_float: float = 1.0> ()
  low = Constant <value_float: float = -3.4e38> ()
  half = Constant <value_float: float = -3.2e38> ()
  keep_s = Constant <value_int: int = @keep> ()
  keep_n = Reshape (keep_s, one)
  most_s = Constant <value_int: int = @pre_topk> ()
  most_n = Reshape (most_s, one)
  iou_s = Constant <value_float: float = @iou_threshold> ()
  bar = Constant <value_float: float = @score_threshold> ()
  agnostic = Constant <value_int: int = @class_agnostic> ()
  shape = Shape (scores)
  batch = Slice (shape, zero, one)
  pairs_s = Slice (shape, one, three)
  three = Constant <value_ints: ints = [3]> ()
  pairs = ReduceProd <keepdims = 1> (pairs_s)
  wide = Concat <axis = 0> (batch, pairs)
  flat = Reshape <allowzero = 1> (scores, wide)
  above = Greater (flat, bar)
  ranked = Where (above, flat, low)
  count = Min (pairs, most_n)
  best_P, at = TopK <axis = 1, largest = 1, sorted = 1> (ranked, count)
  column = Concat <axis = 0> (batch, one)
  spare = Expand (zero, column)
  spare_low = Expand (low, column)
  best = Concat <axis = 1> (best_P, spare_low)
  row = Concat <axis = 1> (row_P, spare)
  label = Concat <axis = 1> (label_P, spare)
  four = Constant <value_ints: ints = [1, 1, 4]> ()
  nothing_shape = Concat <axis = 0> (batch, one, four_n)
  four_n = Constant <value_ints: ints = [4]> ()
  nothing = Expand (zero_f, nothing_shape)
  boxes_more = Concat <axis = 1> (boxes, nothing)
  row3 = Unsqueeze (row, two)
  row4 = Expand (row3, four)
  chosen = GatherElements <axis = 1> (boxes_more, row4)
  apart = Sub (one_s, agnostic)
  group = Mul (label, apart)
"""
_BY_CLASS = """
  classes = Slice (shape, two, three)
  row_P = Div (at, classes)
  spread = Mul (row_P, classes)
  label_P = Sub (at, spread)
"""
_BY_LABEL = """
  row_P = Identity (at)
  label_P = GatherElements <axis = 1> (labels, at)
"""

# NonMaxSuppression over a table of classes: a candidate's score in its class, `low` in the others.
_HARD = """
  group_1 = Reshape <allowzero = 0> (group, minus)
  group_more = Concat <axis = 0> (group_1, zero)
  top = ReduceMax <keepdims = 0> (group_more)
  limit = Add (top, one_s)
  bottom = ReduceMin <keepdims = 0> (group_more)
  kinds = Range (bottom, limit, one_s)
  kind_axes = Constant <value_ints: ints = [0, 2]> ()
  kinds3 = Unsqueeze (kinds, kind_axes)
  group3 = Unsqueeze (group, one)
  own = Equal (group3, kinds3)
  best3 = Unsqueeze (best, one)
  table = Where (own, best3, low)
  iou_1 = Reshape (iou_s, one)
  floor_1 = Constant <value_floats: floats = [-3.2e38]> ()
  picked = NonMaxSuppression (chosen, table, keep_n, iou_1, floor_1)
  columns = Constant <value_ints: ints = [0, 2]> ()
  places = Gather <axis = 1> (picked, columns)
  found_shape = Shape (picked)
  found = Slice (found_shape, zero, one)
  hits = Expand (one_f, found)
  best_shape = Shape (best)
  blank = Expand (zero_f, best_shape)
  marks = ScatterND (blank, places, hits)
  marked = Greater (marks, zero_f)
  kept = Where (marked, best, low)
"""
_OPTIONS = """
  gaussian = Constant <value_int: int = @gaussian> ()
  is_gaussian = Cast <to = 9> (gaussian)
  sigma = Constant <value_float: float = @sigma> ()
  floor = Constant <value_float: float = @min_score> ()
  x1, y1, x2, y2 = Split <axis = 2, num_outputs = 4> (chosen)
  width = Sub (x2, x1)
  height = Sub (y2, y1)
  area = Mul (width, height)
"""
# SOLOv2: a score decays by the worst of its overlaps with better boxes, relative to how far those are overlapped
# themselves. Rows are the better boxes, columns the worse.
_MATRIX = """
  x1_t = Transpose <perm = [0, 2, 1]> (x1)
  y1_t = Transpose <perm = [0, 2, 1]> (y1)
  x2_t = Transpose <perm = [0, 2, 1]> (x2)
  y2_t = Transpose <perm = [0, 2, 1]> (y2)
  area_t = Transpose <perm = [0, 2, 1]> (area)
  left = Max (x1, x1_t)
  right = Min (x2, x2_t)
  upper = Max (y1, y1_t)
  lower = Min (y2, y2_t)
  common_w = Sub (right, left)
  common_h = Sub (lower, upper)
  common_w0 = Max (common_w, zero_f)
  common_h0 = Max (common_h, zero_f)
  inter = Mul (common_w0, common_h0)
  areas = Add (area, area_t)
  union = Sub (areas, inter)
  iou = Div (inter, union)
  group_c = Unsqueeze (group, two)
  group_r = Unsqueeze (group, one)
  same = Equal (group_c, group_r)
  best_shape = Shape (best)
  length_1 = Slice (best_shape, one, two)
  length = Squeeze (length_1)
  places = Range (zero_s, length, one_s)
  places_c = Unsqueeze (places, one)
  before = Less (places_c, places)
  related = And (same, before)
  positive = Greater (iou, zero_f)
  counts = And (related, positive)
  used = Where (counts, iou, zero_f)
  worst = ReduceMax <keepdims = 0> (used, one)
  worst_c = Unsqueeze (worst, two)
  rest = Sub (one_f, used)
  worst_rest = Sub (one_f, worst_c)
  tiny = Constant <value_float: float = 1e-6> ()
  worst_rest1 = Max (worst_rest, tiny)
  linear_ratio = Div (rest, worst_rest1)
  used_2 = Mul (used, used)
  worst_2 = Mul (worst_c, worst_c)
  further = Sub (worst_2, used_2)
  exponent = Mul (further, sigma)
  gaussian_ratio = Exp (exponent)
  ratio = Where (is_gaussian, gaussian_ratio, linear_ratio)
  ratios = Where (counts, ratio, one_f)
  decay = ReduceMin <keepdims = 0> (ratios, one)
  decayed = Mul (best, decay)
  enough = Greater (decayed, floor)
  real = Greater (best, half)
  stays = And (enough, real)
  kept = Where (stays, decayed, low)
"""
# Bodla et al.: a turn takes the best box and decays the rest of its class. Classes take turns in order of score, which
# is the same as one after the other.
_SOFT = """
  start_ok = Greater (best, floor)
  start = Where (start_ok, best, low)
  area_2 = Squeeze (area, two)
  x1_2 = Squeeze (x1, two)
  y1_2 = Squeeze (y1, two)
  x2_2 = Squeeze (x2, two)
  y2_2 = Squeeze (y2, two)
  best_shape = Shape (best)
  length_1 = Slice (best_shape, one, two)
  length = Squeeze (length_1)
  places = Range (zero_s, length, one_s)
  go = Constant <value_ints: ints = [1]> ()
  go_s = Squeeze (go)
  go_b = Cast <to = 9> (go_s)
  last_live, taken, taken_at = Loop <body = turn (int64 t, bool go_in, float[n, p] live) => (bool go_out, float[n, p] live_out, float[n] took, int64[n] took_at) {
    go_out = Identity (go_in)
    took_1 = ReduceMax <keepdims = 1> (live, one)
    took = Squeeze (took_1, one)
    took_at_1 = ArgMax <axis = 1, keepdims = 1> (live)
    took_at = Squeeze (took_at_1, one)
    a_x1 = GatherElements <axis = 1> (x1_2, took_at_1)
    a_y1 = GatherElements <axis = 1> (y1_2, took_at_1)
    a_x2 = GatherElements <axis = 1> (x2_2, took_at_1)
    a_y2 = GatherElements <axis = 1> (y2_2, took_at_1)
    a_area = GatherElements <axis = 1> (area_2, took_at_1)
    a_group = GatherElements <axis = 1> (group, took_at_1)
    i_x1 = Max (x1_2, a_x1)
    i_y1 = Max (y1_2, a_y1)
    i_x2 = Min (x2_2, a_x2)
    i_y2 = Min (y2_2, a_y2)
    i_w = Sub (i_x2, i_x1)
    i_h = Sub (i_y2, i_y1)
    i_w0 = Max (i_w, zero_f)
    i_h0 = Max (i_h, zero_f)
    i_area = Mul (i_w0, i_h0)
    both = Add (area_2, a_area)
    union = Sub (both, i_area)
    iou = Div (i_area, union)
    over = Greater (iou, iou_s)
    less = Sub (one_f, iou)
    linear = Where (over, less, one_f)
    square = Mul (iou, iou)
    scaled = Div (square, sigma)
    negated = Neg (scaled)
    bell = Exp (negated)
    unknown = IsNaN (iou)
    bell_1 = Where (unknown, one_f, bell)
    factor = Where (is_gaussian, bell_1, linear)
    kin = Equal (group, a_group)
    factor_1 = Where (kin, factor, one_f)
    alive = Greater (live, half)
    lesser = Mul (live, factor_1)
    remains = Greater (lesser, floor)
    goes_on = And (alive, remains)
    itself = Equal (places, took_at_1)
    another = Not (itself)
    goes = And (goes_on, another)
    live_out = Where (goes, lesser, low)
  }> (keep_s, go_b, start)
  final = Transpose <perm = [1, 0]> (taken)
  slot = Transpose <perm = [1, 0]> (taken_at)
"""
_BEST_KEPT = """
  slack = Concat <axis = 0> (batch, keep_n)
  filler = Expand (low, slack)
  kept_long = Concat <axis = 1> (kept, filler)
  final, slot_long = TopK <axis = 1, largest = 1, sorted = 1> (kept_long, keep_n)
  slot = Min (slot_long, count)
"""
_OUTPUTS = """
  out_valid = Greater (final, half)
  slot_row = GatherElements <axis = 1> (row, slot)
  slot_label = GatherElements <axis = 1> (label, slot)
  out_index = Where (out_valid, slot_row, zero)
  out_labels = Where (out_valid, slot_label, zero)
  out_scores = Where (out_valid, final, zero_f)
  index3 = Unsqueeze (out_index, two)
  index4 = Expand (index3, four)
  final_boxes = GatherElements <axis = 1> (boxes_more, index4)
  valid3 = Unsqueeze (out_valid, two)
  out_boxes = Where (valid3, final_boxes, zero_f)
"""


def _function(name: str, family: str, labelled: bool) -> str:
    parts = [_CANDIDATES, _BY_LABEL if labelled else _BY_CLASS]
    options = ["iou_threshold", "score_threshold", "keep", "pre_topk", "class_agnostic"]
    if family == "hard":
        parts += [_HARD, _BEST_KEPT]
    else:
        parts += [_OPTIONS, _SOFT if family == "soft" else _MATRIX + _BEST_KEPT]
        options += ["gaussian", "sigma", "min_score"]
    inputs = ["boxes", "scores", *(["labels"] if labelled else [])]
    outputs = ["out_boxes", "out_scores", "out_labels", "out_index", "out_valid"]
    statements = _ordered("\n".join([*parts, _OUTPUTS]), inputs)
    return f"""<domain: "detc", opset_import: ["": 18]>
{name} <{", ".join(options)}> ({", ".join(inputs)}) => ({", ".join(outputs)})
{{
{statements}
}}
"""


def _ordered(text: str, known: list[str]) -> str:
    """The statements (a loop with its body is one), each behind those that it reads.

    Raises:
        ValueError: they form a cycle or read a name that nothing defines.
    """
    statements: list[tuple[set[str], set[str], str]] = []
    for part in re.findall(r"^  \w.*?=.*?(?:\{\n.*?^  \}.*?$|$)", text, re.M | re.S):
        left, _, right = part.partition(" = ")
        names = {name.strip() for name in left.split(",")}
        statements.append((names, set(re.findall(r"\b[a-z]\w*", right)), part))
    defined = {name for names, _, _ in statements for name in names}
    for _, reads, _ in statements:
        reads &= defined
    done: list[str] = []
    placed = set(known)
    while statements:
        ready = [s for s in statements if s[1] - s[0] <= placed]
        if not ready:
            raise ValueError(f"a cycle among {[s[2] for s in statements]}")
        for s in ready:
            placed |= s[0]
            done.append(s[2])
        statements = [s for s in statements if s not in ready]
    return "\n".join(done)


TRANSLATIONS = {"batched_nms": translate}
FUNCTIONS = {
    name: lambda n=name, f=family, l=labelled: _function(n, f, l)
    for family, labelled, name in (
        ("hard", False, "BatchedNMS"),
        ("hard", True, "BatchedNMSLabelled"),
        ("soft", False, "BatchedSoftNMS"),
        ("soft", True, "BatchedSoftNMSLabelled"),
        ("matrix", False, "BatchedMatrixNMS"),
        ("matrix", True, "BatchedMatrixNMSLabelled"),
    )
}
