"""`tie`: one parameter under two names."""

from __future__ import annotations

import torch

from detc.compiler.check import CheckResult, check
from detc.compiler.program import build
from detc.compiler.resolve import resolved_text
from tests.compiler.specs import tiny


def mine(*edits: str) -> CheckResult:
    return tiny("Mine()", "model Mine extends Tiny { " + "  ".join(edits) + " }")


def codes(result: CheckResult) -> list[str]:
    return [d.code for d in result.report.errors]


def test_a_single_parameter_is_shared() -> None:
    run = mine("set backbone.down.out = 8", "tie head.adapt[1].weight = head.adapt[0].weight").run()
    program = build(run, seed=0)
    a, b = program.model.get_submodule("head.adapt.0"), program.model.get_submodule("head.adapt.1")
    assert a.weight is b.weight and a.bias is not b.bias
    plain = build(mine("set backbone.down.out = 8").run())
    shared = sum(p.numel() for p in program.model.parameters())
    assert sum(p.numel() for p in plain.model.parameters()) - shared == a.weight.numel()
    assert sum(len(g["params"]) for g in program.parameter_groups([])) == len(
        list(program.model.parameters())
    )


def test_a_node_ties_all_of_its_parameters_and_a_selector_names_several() -> None:
    program = build(mine("tie head.norm[*] = head.norm[0]").run())
    a, b = program.model.get_submodule("head.norm.0"), program.model.get_submodule("head.norm.1")
    assert a.weight is b.weight and a.bias is b.bias
    assert a.running_mean is not b.running_mean


def test_chains_of_ties_end_at_one_parameter() -> None:
    ties = "tie head.norm[0].weight = head.norm[0].bias  tie head.norm[1].weight = head.norm[0].weight"
    model = mine(ties).run().model
    assert {(a, b) for a, b, _ in model.ties} == {
        ("head.norm[0].weight", "head.norm[0].bias"),
        ("head.norm[1].weight", "head.norm[0].bias"),
    }


def test_the_resolved_spec_keeps_the_ties() -> None:
    run = mine("tie head.norm[1] = head.norm[0]").run()
    text = resolved_text(run)
    assert "tie head.norm[1].weight = head.norm[0].weight" in text
    assert resolved_text(check(text).run()) == text


def test_training_moves_both() -> None:
    program = build(mine("tie head.norm[1].weight = head.norm[0].weight").run(), seed=0)
    state = program.model.state_dict()
    assert torch.equal(state["head.norm.0.weight"], state["head.norm.1.weight"])
    assert state["head.norm.0.weight"].data_ptr() == state["head.norm.1.weight"].data_ptr()


def test_mistakes() -> None:
    assert codes(mine("tie head.norms[1] = head.norm[0]")) == ["DET0401"]
    assert codes(mine("tie head.norm[1].weight = head.norm[0].wieght")) == ["DET0401"]
    assert codes(mine("tie head.adapt[1].weight = head.adapt[0].weight")) == ["DET0302"]
    assert codes(mine("tie head.norm[1] = head.norm[*]")) == ["DET0311"]
    assert codes(mine("tie head.norm[1] = head.norm[1]")) == ["DET0311"]
    assert codes(mine("tie head.norm[1] = head.norm[0]", "tie head.norm[0] = head.norm[1]"))[0] == "DET0210"
