"""`detc test`: what stands for inputs in test blocks, and mistakes in them."""

from __future__ import annotations

from pathlib import Path

import pytest

from detc.compiler.experiments.spec_tests import TestResult, run_tests

BLOCK = """det 1
import std.ops {{ Conv2d }}
component C(w: int = 3) {{
  input x: map
  node c = Conv2d(w)
  output y: map = x -> c
}}
test "it" {{ {} }}
"""


def result(body: str, tmp_path: Path) -> TestResult:
    path = tmp_path / "c.det"
    path.write_text(BLOCK.format(body))
    (found,) = run_tests(path)
    return found


@pytest.mark.parametrize(
    "body",
    [
        "let y = map(3, stride = 8) -> C(4)  expect y.channels == 4  expect y.stride == 8",
        "node c = C(5)  y = map(3, stride = 8) -> c  expect y.channels == 5",
        "expect y.channels == half * 2  let y = map(3) -> C(4)  let half = 2",
        "repeat i in 1 .. 4 { let y = map(i) -> C(i)  expect y.channels == i }",
        'let t = tensor("B", 2, 3)  expect t.shape[2] == 3',
        "let y = pyramid(channels = [1, 2], strides = [4, 8])  expect y.strides == [4, 8]",
        "let p = proposals(50)  expect p.boxes.shape[1] == 50",
    ],
)
def test_what_holds(body: str, tmp_path: Path) -> None:
    found = result(body, tmp_path)
    assert found.passed, found.problems


@pytest.mark.parametrize(
    ("body", "code", "words"),
    [
        ("let y = map(3) -> C(4)  expect y.channels == 5", "DET0305", "does not hold"),
        ("", "DET0305", "expects nothing"),
        ("expect 1", "DET0301", "must be a bool"),
        ("let y = map()  expect y.channels == 3", "DET0208", "`map` needs the argument `channels`"),
        ("let y = map(3, strid = 8)  expect y.channels == 3", "DET0207", "`map` has no argument `strid`"),
        ('let y = map("a")  expect y.channels == 3', "DET0301", "whole numbers"),
        ("let y = map(3, stride = 0)  expect y.channels == 3", "DET0301", "whole numbers"),
        (
            "let y = pyramid(channels = [1, 2], strides = [4])  expect len(y) == 2",
            "DET0311",
            "a stride for each level",
        ),
        ("let y = map(3) -> C(ww = 4)  expect y.channels == 3", "DET0207", "no argument `ww`"),
    ],
)
def test_what_does_not(body: str, code: str, words: str, tmp_path: Path) -> None:
    found = result(body, tmp_path)
    assert not found.passed
    assert found.problems[0].code == code and words in found.problems[0].message
