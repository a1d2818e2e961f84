"""The part that bodies with bilinear sampling share, as text in the syntax of `onnx.parser`.

Sampling is a gather of four neighbours and a weighted sum, not GridSample, which some runtimes compile wrongly
in such graphs; a pixel's channels are then read as one run.
"""

from __future__ import annotations

CONSTANTS = """
  i0 = Constant <value_ints: ints = [0]> ()
  i1 = Constant <value_ints: ints = [1]> ()
  i2 = Constant <value_ints: ints = [2]> ()
  i3 = Constant <value_ints: ints = [3]> ()
  i4 = Constant <value_ints: ints = [4]> ()
  last = Constant <value_ints: ints = [-1]> ()
  s0 = Constant <value_int: int = 0> ()
  s1 = Constant <value_int: int = 1> ()
  f0 = Constant <value_float: float = 0.0> ()
  f1 = Constant <value_float: float = 1.0> ()
  half = Constant <value_float: float = 0.5> ()
  minus = Constant <value_float: float = -1.0> ()
"""


def taps(y: str, x: str, height: str, width: str, scale: str) -> str:
    """Statements that define ``tap_index`` (int64) and ``tap_weight`` (float), with a last axis of four.

    Args:
        y, x: coordinates of pixel centres.
        height, width: of the image, floats that broadcast against them.
        scale: factor of every weight, broadcasts too.

    Reads outside (NaN and infinite coordinates included) have index 0 or a pixel inside, and weight 0.
    """
    lines = [
        f"""
  ok_y0 = Greater ({y}, minus)
  ok_y1 = Less ({y}, {height})
  ok_x0 = Greater ({x}, minus)
  ok_x1 = Less ({x}, {width})
  ok_y = And (ok_y0, ok_y1)
  ok_x = And (ok_x0, ok_x1)
  ok = And (ok_y, ok_x)
  y_ok = Where (ok, {y}, f0)
  x_ok = Where (ok, {x}, f0)
  scale_ok = Where (ok, {scale}, f0)
  top = Floor (y_ok)
  left = Floor (x_ok)
  dy1 = Sub (y_ok, top)
  dx1 = Sub (x_ok, left)
  dy0 = Sub (f1, dy1)
  dx0 = Sub (f1, dx1)
  row0 = Identity (top)
  col0 = Identity (left)
  row1 = Add (top, f1)
  col1 = Add (left, f1)
  row_max = Sub ({height}, f1)
  col_max = Sub ({width}, f1)
"""
    ]
    for axis, high in (("row", "row_max"), ("col", "col_max")):
        for side in (0, 1):
            name, weight = f"{axis}{side}", f"d{'y' if axis == 'row' else 'x'}{side}"
            lines.append(f"""
  {name}_up = Max ({name}, f0)
  {name}_in = Min ({name}_up, {high})
  {name}_is = Equal ({name}_in, {name})
  {name}_w = Where ({name}_is, {weight}, f0)
""")
    for t, (row, col) in enumerate(((0, 0), (0, 1), (1, 0), (1, 1))):
        lines.append(f"""
  at_row{t} = Mul (row{row}_in, {width})
  at{t} = Add (at_row{t}, col{col}_in)
  at_n{t} = Unsqueeze (at{t}, last)
  w_yx{t} = Mul (row{row}_w, col{col}_w)
  w{t} = Mul (w_yx{t}, scale_ok)
  w_n{t} = Unsqueeze (w{t}, last)
""")
    lines.append("""
  tap_float = Concat <axis = -1> (at_n0, at_n1, at_n2, at_n3)
  tap_index = Cast <to = 7> (tap_float)
  tap_weight = Concat <axis = -1> (w_n0, w_n1, w_n2, w_n3)
""")
    return "".join(lines)


def sizes(tensor: str, names: str) -> str:
    """Statements that bind a tensor's dimensions to one-element int64 tensors (and ``<name>_f``, float)."""
    lines = [f"  shape_{tensor} = Shape ({tensor})\n"]
    found = names.split()
    lines.append(f"  {', '.join(found)} = Split <axis = 0, num_outputs = {len(found)}> (shape_{tensor})\n")
    lines += [f"  {name}_f = Cast <to = 1> ({name})\n" for name in found]
    return "".join(lines)


def number(name: str, attribute: str) -> str:
    """Statements that bind a whole-number attribute: ``<name>_s``, and ``<name>``, a list of one."""
    return f"  {name}_s = Constant <value_int: int = @{attribute}> ()\n  {name} = Reshape ({name}_s, i1)\n"


def sound_rois(batch: str) -> str:
    """Statements about ``rois_f`` [R, 5]: ``usable`` (of an image, all numbers finite), and ``image`` (int64) and
    ``boxes`` [R, 4], zero where it is not."""
    return f"""
  itself = Sub (rois_f, rois_f)
  unsound = ReduceSum (itself, i1)
  finite = Equal (unsound, f0)
  one_four = Constant <value_ints: ints = [1, 4]> ()
  index_f, boxes_raw = Split <axis = 1> (rois_f, one_four)
  from_first = GreaterOrEqual (index_f, f0)
  to_last = Less (index_f, {batch})
  of_image = And (from_first, to_last)
  usable = And (of_image, finite)
  boxes = Where (usable, boxes_raw, f0)
  index_safe = Where (usable, index_f, f0)
  image_1 = Cast <to = 7> (index_safe)
  image = Squeeze (image_1, i1)
  i2_i3 = Constant <value_ints: ints = [2, 3]> ()
  usable_4 = Unsqueeze (usable, i2_i3)
"""


def function(header: str, body: str) -> str:
    """A whole function at opset 18, blank lines removed."""
    lines = [line for line in body.splitlines() if line.strip()]
    return '<domain: "detc", opset_import: ["": 18]>\n' + header + "\n{\n" + "\n".join(lines) + "\n}"
