"""Edits: what each does, which one wins, and what is refused."""

from __future__ import annotations

import pytest

from detc.compiler.check import CheckResult
from tests.compiler.specs import tiny


def codes(result: CheckResult) -> list[str]:
    return [d.code for d in result.report.errors]


def width(result: CheckResult, path: str) -> int:
    assert result.ok, result.report.errors
    return result.run().model.weights[path].op.out  # type: ignore[attr-defined]


def test_a_param_reaches_everything_derived_from_it() -> None:
    result = tiny("Tiny(width = 16)")
    assert width(result, "backbone.conv") == 16
    assert width(result, "backbone.down") == 32
    assert width(result, "head.tower") == 16


def test_set_changes_one_node() -> None:
    result = tiny("Mine()", "model Mine extends Tiny { set backbone.down.out = 24 }")
    assert width(result, "backbone.down") == 24


def test_the_outer_set_wins_over_the_inner() -> None:
    more = "model A extends Tiny { set head.width = 10 }  model B extends A { set head.width = 12 }"
    assert width(tiny("B()", more), "head.tower") == 12
    assert width(tiny("A()", more), "head.tower") == 10


def test_the_command_line_has_the_last_word() -> None:
    more = "model A extends Tiny { set head.width = 10 }"
    assert width(tiny("A()", more, sets=["head.width=14"]), "head.tower") == 14
    assert width(tiny("A()", more, sets=["model.head.width=6"]), "head.tower") == 6


def test_replace_by_selector_with_old() -> None:
    more = "model Mine extends Tiny { replace head.adapt[*] = Conv2d(old.out, kernel = 3) }"
    result = tiny("Mine()", more)
    assert result.ok, result.report.errors
    assert [result.run().model.weights[f"head.adapt[{i}]"].op.kernel for i in (0, 1)] == [3, 3]  # type: ignore[attr-defined]


def test_a_selector_of_several_indices() -> None:
    result = tiny("Mine()", "model Mine extends Tiny { set head.adapt[0, 1].kernel = 5 }")
    assert result.ok, result.report.errors
    assert [result.run().model.weights[f"head.adapt[{i}]"].op.kernel for i in (0, 1)] == [5, 5]  # type: ignore[attr-defined]


def test_patches_apply_and_conflict() -> None:
    patches = """
patch Wide for model { set head.width = 12 }
patch Narrow(to: int = 4) for model { set head.width = to }
"""
    assert width(tiny("M()", patches + "model M extends Tiny with Wide {}"), "head.tower") == 12
    assert width(tiny("M()", patches + "model M extends Tiny with Narrow(6) {}"), "head.tower") == 6
    assert codes(tiny("M()", patches + "model M extends Tiny with Wide, Narrow {}")) == ["DET0402"]
    settled = patches + "model M extends Tiny with Wide, Narrow { set head.width = 5 }"
    assert width(tiny("M()", settled), "head.tower") == 5


def test_a_loss_can_be_weighed_and_removed() -> None:
    result = tiny("M()", "model M extends Tiny { set loss.box.weight = 5.0 }")
    assert {x.name: x.weight for x in result.run().model.train.losses} == {"cls": 1.0, "box": 5.0}
    result = tiny("M()", "model M extends Tiny { remove loss.box }")
    assert [x.name for x in result.run().model.train.losses] == ["cls"]


@pytest.mark.parametrize(
    ("edit", "code", "words"),
    [
        ("set head.widht = 3", "DET0401", "head.width"),
        ("set haed.width = 3", "DET0401", "head.width"),
        ("replace head.adapt[7] = Conv2d(4)", "DET0401", "head.adapt[7]"),
        ("remove head.cls", "DET0404", "head.cls"),
        ("set head = 3", "DET0406", "head"),
        ('replace backbone = Head(["a"])', "DET0310", "Backbone"),
        ("set head.width = 1.5", "DET0308", "whole"),
        ('set head.width = "wide"', "DET0301", "int"),
    ],
)
def test_what_is_refused(edit: str, code: str, words: str) -> None:
    result = tiny("M()", f"model M extends Tiny {{ {edit} }}")
    errors = result.report.errors
    assert errors and errors[0].code == code, errors
    said = errors[0].message + " ".join(x.text for x in errors[0].labels)
    assert words in said
    assert errors[0].primary is not None and not errors[0].primary.source.library


def test_a_slot_takes_a_component_by_name() -> None:
    result = tiny("Tiny(backbone = Stem(20))")
    assert width(result, "backbone.conv") == 20
    assert width(result, "head.tower") == 8
