"""Trainings that end where nobody expected it go on as if they had not."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from detc.compiler.spec import Quantity
from detc.dsl.diagnostics import DetError, error
from detc.runtime.train import loop as loop_module
from detc.runtime.train.checkpoint import read_checkpoint
from detc.runtime.train.ddp import World
from detc.runtime.train.fit import fit
from detc.runtime.train.log import read_rows
from detc.runtime.train.progress import Silent, make_display
from detc.runtime.train.schema import EMA

from .fakes import Feed, Program, recipe

RECIPE = recipe(
    epochs=Quantity(3, "ep"),
    hooks={"ema": EMA(momentum=0.1)},
    accumulate=2,
    clip=1.0,
    validate_every=Quantity(1, "ep"),
    fields={"log_every": 1},
)


class Validate:
    """Counts its calls; the metric is how often it was called before, so that the best one is the last."""

    def __init__(self, fails_at: int | None = None) -> None:
        self.calls, self.fails_at = 0, fails_at

    def __call__(self) -> dict[str, float]:
        self.calls += 1
        if self.calls == self.fails_at:
            raise KeyboardInterrupt
        return {"ap": 0.25}


class BrokenFeed(Feed):
    """One of whose files is broken."""

    def epoch(self, epoch: int, pipeline: str, start: int = 0) -> Iterator[dict[str, Any]]:
        for number, batch in enumerate(super().epoch(epoch, pipeline, start), start):
            if (epoch, number) == (1, 4):
                raise error("DET0904", "x.jpg: cut short")
            yield batch


def go(out: Path, feed: Feed, validate: Validate, resume: bool = False) -> Any:
    torch.manual_seed(0)
    return fit(
        Program(), RECIPE, feed=feed, validate=validate, out=out, identity=("det 1\n", "", ("a", "b", "c")),
        device=torch.device("cpu"), world=World(), display=Silent(), resume=resume,
    )  # fmt: skip


def facts(out: Path) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    rows = [{k: v for k, v in r.items() if k not in ("time", "images_per_second", "data_share")}
            for r in read_rows(out / "metrics.jsonl")]  # fmt: skip
    return rows, read_checkpoint(out / "last.pt").train


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("whole")
    go(out, Feed(count=6), Validate())
    return out


def same(a: Path, b: Path) -> None:
    (rows, state), (own_rows, own_state) = facts(a), facts(b)
    assert own_rows == rows and own_state["progress"] == state["progress"]
    for key, tensor in read_checkpoint(a / "last.pt").model.items():
        assert torch.equal(tensor, read_checkpoint(b / "last.pt").model[key])
        assert torch.equal(state["model"][key], own_state["model"][key])


def test_a_broken_file_in_the_middle_of_an_epoch(whole: Path, tmp_path: Path) -> None:
    with pytest.raises(DetError, match="DET0904"):
        go(tmp_path, BrokenFeed(count=6), Validate())
    assert facts(tmp_path)[1]["progress"]["done"] == 5
    go(tmp_path, Feed(count=6), Validate(), resume=True)
    same(whole, tmp_path)


def test_a_validation_that_was_ended_is_made_up_for(whole: Path, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        go(tmp_path, Feed(count=6), Validate(fails_at=2))
    assert facts(tmp_path)[1]["progress"]["done"] == 6
    assert [r["iteration"] for r in facts(tmp_path)[0] if r["kind"] == "val"] == [3]
    rest = Validate()
    go(tmp_path, Feed(count=6), rest, resume=True)
    assert rest.calls == 2
    same(whole, tmp_path)


def test_a_validation_that_was_done_is_not_repeated(whole: Path, tmp_path: Path) -> None:
    class Stops(Feed):
        def epoch(self, epoch: int, pipeline: str, start: int = 0) -> Iterator[dict[str, Any]]:
            if epoch == 1:
                raise error("DET0904", "x.jpg: cut short")
            yield from super().epoch(epoch, pipeline, start)

    with pytest.raises(DetError):
        go(tmp_path, Stops(count=6), Validate())
    rest = Validate()
    go(tmp_path, Feed(count=6), rest, resume=True)
    assert rest.calls == 2
    same(whole, tmp_path)


def test_long_epochs_are_saved_in_the_middle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved: list[int] = []
    save = loop_module.Loop.save

    def note(self: Any, *names: str | None) -> None:
        saved.append(self.progress.done)
        save(self, *names)

    monkeypatch.setattr(loop_module.Loop, "save", note)
    go(tmp_path / "a", Feed(count=6), Validate())
    assert saved == [3, 6, 9, 9]  # with each validation; the end is saved before its own, too
    saved.clear()
    monkeypatch.setattr(loop_module, "_LOSE_SECONDS", -1.0)
    go(tmp_path / "b", Feed(count=6), Validate())
    assert sorted(set(saved)) == list(range(1, 10))


def test_weights_that_are_not_finite_are_not_saved(tmp_path: Path) -> None:
    class Infinite(Feed):
        def make(self, epoch: int, number: int) -> dict[str, Any]:
            batch = super().make(epoch, number)
            if (epoch, number) == (1, 2):
                batch["truth"]["boxes"] *= torch.inf
            return batch

    with pytest.raises(DetError, match="DET0711"):
        go(tmp_path, Infinite(count=6), Validate())
    assert facts(tmp_path)[1]["progress"]["done"] == 3
    assert all(t.isfinite().all() for t in read_checkpoint(tmp_path / "last.pt").model.values())


def test_events_of_a_resumed_training_are_those_of_its_log(tmp_path: Path) -> None:
    with pytest.raises(DetError):
        go(tmp_path, BrokenFeed(count=6), Validate())
    go(tmp_path, Feed(count=6), Validate(), resume=True)
    events = EventAccumulator(str(tmp_path / "tensorboard"), size_guidance={"scalars": 0})
    events.Reload()
    shown = {e.step: e.value for e in events.Scalars("train/loss")}
    logged = {
        r["iteration"]: r["loss"] for r in read_rows(tmp_path / "metrics.jsonl") if r["kind"] == "train"
    }
    assert shown == pytest.approx(logged) and list(shown) == list(range(1, 10))


def test_progress_may_leave_standard_output_alone(capsys: pytest.CaptureFixture[str]) -> None:
    make_display(aside=True).say("to the side")
    make_display().say(json.dumps("result"))
    said = capsys.readouterr()
    assert said.err == "to the side\n" and said.out == '"result"\n'
