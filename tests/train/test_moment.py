"""The training clock as an input of the train graph: `train { input step: step }`, ramps made of it, resuming."""

from pathlib import Path

import pytest
import torch

from detc.compiler.check import check
from detc.compiler.program import Program, build
from detc.compiler.spec import Quantity
from detc.runtime.train.ddp import World
from detc.runtime.train.fit import TrainResult, fit
from detc.runtime.train.log import read_rows
from detc.runtime.train.moment import Moment
from detc.runtime.train.progress import Silent
from detc.runtime.train.schema import Clock
from tests.compiler.specs import tiny

from .fakes import Feed, recipe

CPU = torch.device("cpu")
LOSSES = """
model Ramped extends Tiny {
  train {
    input step: step
    loss whole = (boxes, target.boxes, target.weight, target.total) -> GIoU()
    loss ramp(weight = Ramp(step.iter, over = 10it)) = (boxes, target.boxes, target.weight, target.total) -> GIoU()
    loss late(weight = 2.0 * After(step.epoch, 2ep)) = (boxes, target.boxes, target.weight, target.total) -> GIoU()
    loss early(weight = 1 - Ramp(step, start = 1ep, over = 1ep, shape = "cosine")) =
      (boxes, target.boxes, target.weight, target.total) -> GIoU()
    loss share(weight = (step.iter - 5it) / 20it + step.progress) =
      (boxes, target.boxes, target.weight, target.total) -> GIoU()
  }
}
"""


@pytest.fixture(scope="module")
def program() -> Program:
    result = tiny("Ramped()", LOSSES)
    assert result.ok, result.report.errors
    return build(result.run(), seed=0)


def batch() -> dict[str, dict[str, torch.Tensor]]:
    torch.manual_seed(0)
    boxes = torch.tensor([[[4.0, 4, 40, 40]], [[10, 8, 60, 50]]])
    truth = {"boxes": boxes, "labels": torch.zeros(2, 1, dtype=torch.int64)}
    truth["valid"] = torch.ones(2, 1, dtype=torch.bool)
    return {
        "image": {"pixels": torch.rand(2, 3, 64, 64) * 255, "size": torch.full((2, 2), 64.0)},
        "truth": truth,
    }


def test_weights_follow_the_clock(program: Program) -> None:
    moment = Moment(Clock(per_epoch=5, total=20), CPU)
    program.model.eval()
    for done, ramp, late, early in ((0, 0.0, 0, 1.0), (5, 0.5, 0, 1.0), (10, 1.0, 2, 0.0), (19, 1.0, 2, 0.0)):
        found = program.train_graph(**batch(), step=moment.at(done))
        whole = found["whole"]
        expected = {"ramp": ramp, "late": late, "early": early, "share": (done - 5) / 20 + done / 20}
        for name, weight in expected.items():
            torch.testing.assert_close(found[name], whole * weight)


def test_the_graph_exports_and_compiles_once(program: Program) -> None:
    moment = Moment(Clock(5, 20), CPU)
    exported = torch.export.export(program.train_graph, (), {**batch(), "step": moment.at(0)}).module()
    compiled = torch.compile(program.train_graph, fullgraph=True, backend="eager")
    for done in (0, 7):
        given = {**batch(), "step": moment.at(done)}
        expected = program.train_graph(**given)["ramp"]
        torch.testing.assert_close(exported(**given)["ramp"], expected)
        torch.testing.assert_close(compiled(**given)["ramp"], expected)
    assert "step" not in program.spec.infer


class Small(Feed):
    """Batches of 64 x 64 pixels."""

    def make(self, epoch: int, number: int):  # type: ignore[no-untyped-def]
        made = super().make(epoch, number)
        made["image"]["pixels"] = made["image"]["pixels"].repeat(1, 1, 2, 2)
        made["truth"]["labels"] %= 2
        return made


def train(program: Program, out: Path, **more: object) -> TrainResult:
    spec = recipe(epochs=Quantity(3, "ep"), fields={"log_every": 1})
    return fit(
        program, spec, feed=Small(), validate=None, out=out, identity=("det 1\n", "", ("a", "b")),
        device=CPU, world=World(), display=Silent(), **more,
    )  # type: ignore[arg-type]  # fmt: skip


def test_a_ramp_goes_on_where_training_was_stopped(tmp_path: Path) -> None:
    run = tiny("Ramped()", LOSSES).run()
    train(build(run, seed=0), tmp_path / "whole")
    train(build(run, seed=0), tmp_path / "parts", limit=7)
    train(build(run, seed=3), tmp_path / "parts", resume=True)
    whole, parts = (
        [r for r in read_rows(tmp_path / name / "metrics.jsonl") if r["kind"] == "train"]
        for name in ("whole", "parts")
    )
    assert [r["ramp"] for r in whole] == [r["ramp"] for r in parts]
    shares = [r["ramp"] / r["whole"] for r in whole]
    assert shares == pytest.approx([min(i / 10, 1.0) for i in range(15)], abs=1e-5)
    assert [r["late"] > 0 for r in whole] == [i >= 10 for i in range(15)]


def test_the_resolved_spec_keeps_the_clock() -> None:
    run = tiny("Ramped()", LOSSES).run()
    again = check(run.text, name="resolved")
    assert again.ok, again.report.errors
    assert again.run().text == run.text
    assert "train { input step: step }" in run.text
