"""Parts that a declaration passes to its base may read its own params, also those of the base's names."""

from __future__ import annotations

from detc.compiler.check import check

TEXT = """det 1
import std.models { RTMDet, Tracking }

model Small(classes: labels, part: float = 0.125) extends Tracking(
  classes, detector = RTMDet(classes = classes, deepen = 0.167, widen = part, blocks = 1)
) {}

run { model = Small(classes = ["a", "b", "c"]) }
"""


def test_a_slot_reads_the_params_of_who_fills_it() -> None:
    result = check(TEXT)
    assert not result.report.errors, result.report.errors
    model = result.run().model
    assert model.decisions["detector.widen"].value == 0.125
    assert [w.op.out for p, w in model.weights.items() if p.startswith("detector.head.cls[")] == [3, 3, 3]
