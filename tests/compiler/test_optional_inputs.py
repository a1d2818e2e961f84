"""Inputs of components that may be left out, and names that files of one module import from each other."""

from __future__ import annotations

from detc.compiler.check import check
from detc.compiler.expressions.modules import Loader
from detc.compiler.graph import Node

TEXT = """det 1
import std.dense {{ FlattenPoints }}
import std.ops {{ Conv2d, LevelGrid, MultiHeadAttention }}
component Layer {{
  input x: tensor
  input valid: tensor?
  node attn = MultiHeadAttention(heads = 2)
  output y: tensor = (x, x, x, valid) -> attn
}}
model M {{
  input image: image
  node stem = Conv2d(8, kernel = 3, stride = 8)
  node layer = Layer()
  feats = image -> stem
  grid = ([feats], image) -> LevelGrid()
  valid = grid.valid
  x = feats -> FlattenPoints()
  output y: tensor = {call} -> layer
}}
run {{ model = M() }}
"""


def attention(call: str) -> Node:
    result = check(TEXT.format(call=call))
    assert not result.report.errors, result.report.errors
    return next(n for n in result.run().model.infer.nodes() if type(n.op).__name__ == "MultiHeadAttention")


def test_an_optional_input_is_passed_on_or_left_out() -> None:
    given, left_out = attention("(x, valid)"), attention("x")
    assert given.args[3] is not None
    assert left_out.args[3] is None, "not taken from around, where there is a wire `valid`"
    assert left_out.args[4] is None


def test_an_input_that_is_not_optional_is_taken_from_around() -> None:
    result = check(TEXT.replace("tensor?", "tensor").format(call="x"))
    assert not result.report.errors, result.report.errors


def test_files_of_one_module_import_from_each_other() -> None:
    text = """det 1
import std.detr { DeformableEncoderLayer, FeedForward }
test "one file of std.detr uses another" {
  let x = tensor("B", 5, 32)
  expect (x -> FeedForward(8)).shape == x.shape
}
"""
    module = Loader().text(text)
    assert {"DeformableEncoderLayer", "FeedForward"} <= set(module.imports)
    assert (
        module.imports["FeedForward"]
        is module.imports["DeformableEncoderLayer"].module.imports["FeedForward"]
    )  # type: ignore[union-attr]
