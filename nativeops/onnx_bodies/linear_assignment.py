"""`linear_assignment` in ONNX: shortest augmenting paths (Jonker and Volgenant 1987; Crouse 2016) as loops.

One problem of the batch after the other; rows and columns that may match nothing are left out first, so a
padded problem costs what its content costs. Each row also gets a column of its own at a price above any matching,
which is where it goes unmatched; rows may therefore be more or fewer than columns. Of the dual variables only
those of columns are kept.
"""

from __future__ import annotations

from typing import Any

from onnxscript import BOOL, FLOAT, INT64, script
from onnxscript.values import Opset

detc = Opset("detc", 1)


@script(detc, default_opset=detc)
def _node(cost: FLOAT, row_valid: BOOL, col_valid: BOOL) -> tuple[INT64, INT64]:
    col_of_row, row_of_col = detc.LinearAssignment(cost, row_valid, col_valid)
    return col_of_row, row_of_col


def translate(cost, row_valid, col_valid):  # type: ignore[no-untyped-def]
    """The exporter's rule; without a mask all take part."""
    from onnxscript import opset18

    op: Any = opset18
    shape: Any = op.Shape(cost)
    true: Any = op.Cast(op.Constant(value_int=1), to=9)
    if row_valid is None:
        row_valid = op.Expand(true, op.Gather(shape, op.Constant(value_ints=[0, 1])))
    if col_valid is None:
        col_valid = op.Expand(true, op.Gather(shape, op.Constant(value_ints=[0, 2])))
    return _node(cost, row_valid, col_valid)


# One step of the search: settle the nearest column that is open; if a row holds it, relax all columns from there.
_SEARCH = """
          open_distance = Where (settled, huge, distance)
          nearest = ArgMin <axis = 0, keepdims = 0> (open_distance)
          reached_now = Gather (open_distance, nearest)
          at_nearest = Equal (places, nearest)
          settled_now = Or (settled, at_nearest)
          holder = Gather (owner, nearest)
          searching = GreaterOrEqual (holder, zero)
          holder_safe = Max (holder, zero)
          holder_row = Gather (table, holder_safe)
          holder_cost = Gather (holder_row, nearest)
          holder_dual = Gather (dual, nearest)
          reduced = Sub (holder_cost, holder_dual)
          shift = Sub (reduced, reached_now)
          row_reduced = Sub (holder_row, dual)
          through = Sub (row_reduced, shift)
          closer = Less (through, distance)
          still_open = Not (settled_now)
          usable = And (still_open, searching)
          better = And (closer, usable)
          distance_now = Where (better, through, distance)
          parent_now = Where (better, holder, parent)
"""
# One step of the walk back: a column goes to its parent; go on with the column that the parent had.
_WALK = """
          giver = Gather (parent_end, column_at)
          before = Gather (column_in, giver)
          given = Equal (places, column_at)
          owner_now = Where (given, giver, owner_in)
          at_giver = Equal (row_places, giver)
          column_now = Where (at_giver, column_at, column_in)
          arrived = Equal (giver, i)
          walking = Not (arrived)
          next_at = Where (walking, before, column_at)
"""
# Insert one row: search, shift the duals of what was settled on the way, walk back.
_ROW = f"""
        first_row = Gather (table, i)
        first_distance = Sub (first_row, dual)
        first_parent = Expand (i, width)
        none_settled = Less (places, zero)
        start = Identity (zero)
        origin = Identity (zero_d)
        sink, reached, distance_end, parent_end, settled_end = Loop (no_limit, yes, start, origin, first_distance, first_parent, none_settled) <body = search (int64 s, bool s_in, int64 sink_in, double reached_in, double[w] distance, int64[w] parent, bool[w] settled) => (bool searching, int64 nearest, double reached_now, double[w] distance_now, int64[w] parent_now, bool[w] settled_now) {{
{_SEARCH}
        }}>
        gain = Sub (distance_end, reached)
        slack = Where (settled_end, gain, zero_d)
        dual_out = Add (dual, slack)
        owner_out, column_out, at_out = Loop (no_limit, yes, owner, column, sink) <body = walk (int64 t, bool t_in, int64[w] owner_in, int64[n] column_in, int64 column_at) => (bool walking, int64[w] owner_now, int64[n] column_now, int64 next_at) {{
{_WALK}
        }}>
        row_on = Identity (row_in)
"""
# One problem: leave out what may match nothing, price the rest, insert the rows, translate back.
_PROBLEM = f"""
      may = Gather (allowed, b)
      own_cost = Gather (costs, b)
      high_table = Where (may, own_cost, minus_huge)
      high = ReduceMax <keepdims = 0> (high_table)
      low_table = Where (may, own_cost, huge)
      low = ReduceMin <keepdims = 0> (low_table)
      some = GreaterOrEqual (high, low)
      range_raw = Sub (high, low)
      range_safe = Where (some, range_raw, zero_d)
      high_safe = Where (some, high, zero_d)
      step = Add (range_safe, one_d)
      above = Mul (step, smaller)
      price = Add (high_safe, above)
      flags = Cast <to = 7> (may)
      row_flags = ReduceMax <keepdims = 0> (flags, axis1)
      col_flags = ReduceMax <keepdims = 0> (flags, axis0)
      rows_2 = NonZero (row_flags)
      rows = Squeeze (rows_2, axis0)
      cols_2 = NonZero (col_flags)
      cols = Squeeze (cols_2, axis0)
      n_1 = Shape (rows)
      m_1 = Shape (cols)
      priced = Where (may, own_cost, price)
      some_rows = Gather <axis = 0> (priced, rows)
      part = Gather <axis = 1> (some_rows, cols)
      square = Concat <axis = 0> (n_1, n_1)
      alone = Expand (price, square)
      table = Concat <axis = 1> (part, alone)
      width = Add (m_1, n_1)
      width_s = Squeeze (width)
      places = Range (zero, width_s, one)
      count = Squeeze (n_1)
      row_places = Range (zero, count, one)
      no_dual = Expand (zero_d, width)
      no_owner = Expand (free, width)
      no_column = Expand (free, n_1)
      dual_all, owner_all, column_all = Loop (count, yes, no_dual, no_owner, no_column) <body = insert (int64 i, bool row_in, double[w] dual, int64[w] owner, int64[n] column) => (bool row_on, double[w] dual_out, int64[w] owner_out, int64[n] column_out) {{
{_ROW}
      }}>
      count_cols = Squeeze (m_1)
      in_table = Less (column_all, count_cols)
      spare = Expand (free, n_1)
      names = Concat <axis = 0> (cols, spare)
      named = Gather (names, column_all)
      matched = Where (in_table, named, free)
      may_rows = Gather <axis = 0> (may, rows)
      matched_safe = Max (matched, zero)
      matched_2 = Unsqueeze (matched_safe, axis1)
      may_pair = GatherElements <axis = 1> (may_rows, matched_2)
      may_flat = Squeeze (may_pair, axis1)
      fine = And (in_table, may_flat)
      kept = Where (fine, matched, free)
      blank_rows = Expand (free, rows_1)
      line_rows = ScatterElements (blank_rows, rows, kept)
      hits_2 = NonZero (fine)
      hits = Squeeze (hits_2, axis0)
      hit_cols = Gather (kept, hits)
      hit_rows = Gather (rows, hits)
      blank_cols = Expand (free, cols_1)
      line_cols = ScatterElements (blank_cols, hit_cols, hit_rows)
      more = Identity (b_in)
"""
BODY = f"""<domain: "detc", opset_import: ["": 18]>
LinearAssignment (cost, row_valid, col_valid) => (col_of_row, row_of_col)
{{
  zero = Constant <value_int: int = 0> ()
  one = Constant <value_int: int = 1> ()
  free = Constant <value_int: int = -1> ()
  no_limit = Constant <value_int: int = 9223372036854775807> ()
  axis0 = Constant <value_ints: ints = [0]> ()
  axis1 = Constant <value_ints: ints = [1]> ()
  axis2 = Constant <value_ints: ints = [2]> ()
  yes = Less (zero, one)
  costs = Cast <to = 11> (cost)
  zero_d = Constant <value = double {{0.0}}> ()
  one_d = Constant <value = double {{1.0}}> ()
  huge = Div (one_d, zero_d)
  minus_huge = Neg (huge)
  limit = Constant <value = double {{1e150}}> ()
  size = Abs (costs)
  real = LessOrEqual (size, limit)
  row_mask = Unsqueeze (row_valid, axis2)
  col_mask = Unsqueeze (col_valid, axis1)
  real_rows = And (real, row_mask)
  allowed = And (real_rows, col_mask)
  shape = Shape (costs)
  batch = Gather (shape, zero)
  rows_1 = Gather (shape, axis1)
  cols_1 = Gather (shape, axis2)
  smaller_1 = Min (rows_1, cols_1)
  smaller_s = Squeeze (smaller_1)
  smaller = Cast <to = 11> (smaller_s)
  col_of_row, row_of_col = Loop (batch, yes) <body = problem (int64 b, bool b_in) => (bool more, int64[N] line_rows, int64[M] line_cols) {{
{_PROBLEM}
  }}>
}}
"""


def _text() -> str:
    return "\n".join(line for line in BODY.splitlines() if line.strip())


TRANSLATIONS = {"linear_assignment": translate}
FUNCTIONS = {"LinearAssignment": _text}
