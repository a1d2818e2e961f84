"""`batched_nms` in ONNX: NonMaxSuppression over the best candidates, scattered into slots of fixed number.

Exact: classes are told apart by a class axis, not by shifting boxes. Only the hard method has a body.
"""

from __future__ import annotations

from typing import Any

from onnxscript import BOOL, FLOAT, INT64, script
from onnxscript.values import Opset

detc = Opset("detc", 1)


@script(detc, default_opset=detc)
def _plain(
    boxes: FLOAT,
    scores: FLOAT,
    iou_threshold: float,
    score_threshold: float,
    keep: int,
    pre_topk: int,
    class_agnostic: int,
) -> tuple[FLOAT, FLOAT, INT64, INT64, BOOL]:
    b, s, l, i, v = detc.BatchedNMS(
        boxes,
        scores,
        iou_threshold=iou_threshold,
        score_threshold=score_threshold,
        keep=keep,
        pre_topk=pre_topk,
        class_agnostic=class_agnostic,
    )
    return b, s, l, i, v


@script(detc, default_opset=detc)
def _labelled(
    boxes: FLOAT,
    scores: FLOAT,
    labels: INT64,
    iou_threshold: float,
    score_threshold: float,
    keep: int,
    pre_topk: int,
    class_agnostic: int,
) -> tuple[FLOAT, FLOAT, INT64, INT64, BOOL]:
    b, s, l, i, v = detc.BatchedNMSLabelled(
        boxes,
        scores,
        labels,
        iou_threshold=iou_threshold,
        score_threshold=score_threshold,
        keep=keep,
        pre_topk=pre_topk,
        class_agnostic=class_agnostic,
    )
    return b, s, l, i, v


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
    if method != "hard":
        raise NotImplementedError(
            f"batched_nms has no ONNX form for method={method!r}; use hard suppression in exported models"
        )
    options: dict[str, Any] = {
        "iou_threshold": float(iou_threshold),
        "score_threshold": max(float(score_threshold), -3.0e38),
        "keep": int(keep),
        "pre_topk": int(pre_topk) or 2**31 - 1,
        "class_agnostic": int(class_agnostic),
    }
    if labels is None:
        return _plain(boxes, scores, **options)
    return _labelled(boxes, scores, labels, **options)


_HEAD = """
  zero = Constant <value_ints: ints = [0]> ()
  one = Constant <value_ints: ints = [1]> ()
  two = Constant <value_ints: ints = [2]> ()
  minus = Constant <value_ints: ints = [-1]> ()
  low = Constant <value_float: float = -3.4e38> ()
  keep_s = Constant <value_int: int = @keep> ()
  keep_n = Reshape (keep_s, one)
  most_s = Constant <value_int: int = @pre_topk> ()
  most_n = Reshape (most_s, one)
  iou_s = Constant <value_float: float = @iou_threshold> ()
  iou_1 = Reshape (iou_s, one)
  bar = Constant <value_float: float = @score_threshold> ()
  agnostic = Constant <value_int: int = @class_agnostic> ()
  shape = Shape (scores)
  batch = Slice (shape, zero, one)
  wide = Concat <axis = 0> (batch, minus)
  flat = Reshape (scores, wide)
  above = Greater (flat, bar)
  ranked = Where (above, flat, low)
  flat_shape = Shape (flat)
  pool = Slice (flat_shape, one, two)
  count = Min (pool, most_n)
  best, at = TopK <axis = 1, largest = 1, sorted = 1> (ranked, count)
"""


def _body(name: str, labelled: bool) -> str:
    inputs = "boxes, scores, labels" if labelled else "boxes, scores"
    if labelled:
        which = """
  row = Identity (at)
  label = GatherElements <axis = 1> (labels, at)
"""
    else:
        which = """
  classes_1 = Slice (shape, two, three_v)
  row = Div (at, classes_1)
  spread = Mul (row, classes_1)
  label = Sub (at, spread)
"""
    return f"""<domain: "detc", opset_import: ["": 18]>
{name} <iou_threshold, score_threshold, keep, pre_topk, class_agnostic> ({inputs}) => (out_boxes, out_scores, out_labels, out_index, out_valid)
{{{_HEAD}
  three_v = Constant <value_ints: ints = [3]> ()
{which}
  axis2 = Constant <value_ints: ints = [2]> ()
  row3 = Unsqueeze (row, axis2)
  four = Constant <value_ints: ints = [1, 1, 4]> ()
  row4 = Expand (row3, four)
  chosen = GatherElements <axis = 1> (boxes, row4)
  zero_s = Constant <value_int: int = 0> ()
  one_s = Constant <value_int: int = 1> ()
  apart = Sub (one_s, agnostic)
  group = Mul (label, apart)
  padded = Concat <axis = 1> (group, spare)
  column = Concat <axis = 0> (batch, one)
  spare = Expand (zero, column)
  top = ReduceMax <keepdims = 0> (padded)
  limit = Add (top, one_s)
  kinds = Range (zero_s, limit, one_s)
  kind_axes = Constant <value_ints: ints = [0, 2]> ()
  kinds3 = Unsqueeze (kinds, kind_axes)
  group3 = Unsqueeze (group, one)
  own = Equal (group3, kinds3)
  best3 = Unsqueeze (best, one)
  table = Where (own, best3, low)
  bar_1 = Reshape (bar, one)
  picked = NonMaxSuppression (chosen, table, keep_n, iou_1, bar_1)
  columns = Constant <value_ints: ints = [0, 2]> ()
  places = Gather <axis = 1> (picked, columns)
  found_shape = Shape (picked)
  found = Slice (found_shape, zero, one)
  hits = Expand (one_f, found)
  one_f = Constant <value_float: float = 1.0> ()
  best_shape = Shape (best)
  blank = Expand (zero_f, best_shape)
  zero_f = Constant <value_float: float = 0.0> ()
  marks = ScatterND (blank, places, hits)
  marked = Greater (marks, zero_f)
  kept = Where (marked, best, low)
  slack = Concat <axis = 0> (batch, keep_n)
  filler = Expand (low, slack)
  kept_long = Concat <axis = 1> (kept, filler)
  final, slot = TopK <axis = 1, largest = 1, sorted = 1> (kept_long, keep_n)
  half = Constant <value_float: float = -3.2e38> ()
  out_valid = Greater (final, half)
  last = Sub (count, one)
  safe_last = Max (last, zero)
  inside = Min (slot, safe_last)
  picked_row = GatherElements <axis = 1> (row_long, inside)
  row_long = Concat <axis = 1> (row, spare)
  picked_label = GatherElements <axis = 1> (label_long, inside)
  label_long = Concat <axis = 1> (label, spare)
  out_index = Where (out_valid, picked_row, zero)
  out_labels = Where (out_valid, picked_label, zero)
  out_scores = Where (out_valid, final, zero_f)
  index3 = Unsqueeze (out_index, axis2)
  index4 = Expand (index3, four)
  final_boxes = GatherElements <axis = 1> (boxes, index4)
  valid3 = Unsqueeze (out_valid, axis2)
  out_boxes = Where (valid3, final_boxes, zero_f)
}}
"""


def _ordered(text: str) -> str:
    """The body with every statement behind those that it reads."""
    import re

    head, _, rest = text.partition("{\n") if "{\n" in text else text.partition("{")
    lines = [x.strip() for x in rest.rsplit("}", 1)[0].splitlines() if x.strip()]
    statements = []
    for line in lines:
        left, _, right = line.partition(" = ")
        args = re.search(r"\(([^()]*)\)\s*$", right)
        reads = [a.strip() for a in (args.group(1) if args else "").split(",") if a.strip()]
        statements.append(([o.strip() for o in left.split(",")], reads, line))
    known = set(re.search(r">\s*\(([^()]*)\)\s*=>", head).group(1).replace(" ", "").split(","))  # type: ignore[union-attr]
    done: list[str] = []
    while statements:
        ready = [s for s in statements if all(r in known for r in s[1])]
        if not ready:
            raise ValueError(f"a cycle or an unknown name in {[s[2] for s in statements]}")
        for s in ready:
            known |= set(s[0])
            done.append("  " + s[2])
            statements.remove(s)
    return head + "{\n" + "\n".join(done) + "\n}"


TRANSLATIONS = {"batched_nms": translate}
FUNCTIONS = {
    "BatchedNMS": lambda: _ordered(_body("BatchedNMS", labelled=False)),
    "BatchedNMSLabelled": lambda: _ordered(_body("BatchedNMSLabelled", labelled=True)),
}
