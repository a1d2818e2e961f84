"""Whole trainings of the tiny program: learning, resuming, stopping, failing."""

import errno
import json
import os
import signal
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from detc.compiler.spec import GroupRule, Quantity, Switch
from detc.dsl.diagnostics import DetError
from detc.runtime.train import checkpoint as checkpoint_module
from detc.runtime.train.checkpoint import load_weights, read_checkpoint
from detc.runtime.train.ddp import World
from detc.runtime.train.fit import TrainResult, fit
from detc.runtime.train.log import draw_curves, read_rows
from detc.runtime.train.precision import cpu_has_bf16
from detc.runtime.train.progress import Plain, Silent
from detc.runtime.train.schema import EMA, CheckNaN, Cosine, EarlyStop, Linear

from .fakes import Feed, Program, recipe

CPU = torch.device("cpu")
EP, IT = (lambda n: Quantity(n, "ep")), (lambda n: Quantity(n, "it"))
FULL = recipe(
    epochs=EP(4),
    lr={"warmup": Linear(over=IT(4)), "anneal": Cosine(end_ratio=0.1)},
    hooks={"ema": EMA(momentum=0.05, gamma=IT(10))},
    groups=(GroupRule("**.norm", {"weight_decay": 0.0}),),
    clip=5.0,
)


def losses(out: Path) -> list[tuple[int, float]]:
    return [(r["iteration"], r["loss"]) for r in read_rows(out / "metrics.jsonl") if r["kind"] == "train"]


def run(out, spec=FULL, program=None, feed=None, validate=None, **more) -> TrainResult:
    return fit(
        program or Program(),
        replace(spec, fields={"log_every": 1, **spec.fields}),
        feed=feed or Feed(),
        validate=validate,
        out=out,
        identity=("det 1\n", "", ("a", "b", "c")),
        device=CPU,
        world=World(),
        display=more.pop("display", Silent()),
        **more,
    )


def test_it_learns(tmp_path):
    result = run(tmp_path, recipe(epochs=EP(12), clip=1.0))
    seen = [v for _, v in losses(tmp_path)]
    assert len(seen) == 60
    assert sum(seen[-10:]) < 0.7 * sum(seen[:10])
    assert (result.stopped, result.iterations, result.epochs) == ("done", 60, 12)
    assert (result.last.name, result.best) == ("last.pt", None)
    assert (tmp_path / "spec.det").read_text() == "det 1\n"
    assert list((tmp_path / "tensorboard").iterdir())
    rates = [r["lr"] for r in read_rows(tmp_path / "metrics.jsonl")]
    assert rates == [pytest.approx(0.025)] * 60  # 0.1 per 16 images, batch 4


@pytest.mark.parametrize("stop", [7, 10])  # in the middle of an epoch, and at its end
def test_resume_is_bit_equal(tmp_path, stop):
    whole = run(tmp_path / "whole")
    first = run(tmp_path / "parts", limit=stop)
    assert (first.stopped, first.iterations) == ("limit", stop)
    torch.manual_seed(99)  # another process starts elsewhere
    feed = Feed()
    second = run(tmp_path / "parts", program=Program(seed=7), feed=feed, resume=True)
    assert feed.asked[0] == (stop // 5, "train", stop % 5)
    assert losses(tmp_path / "whole") == losses(tmp_path / "parts")
    a, b = read_checkpoint(whole.last), read_checkpoint(second.last)
    for name, tensor in a.model.items():
        assert torch.equal(tensor, b.model[name]), name
    for name, tensor in a.train["model"].items():
        assert torch.equal(tensor, b.train["model"][name]), name


def test_accumulated_steps_resume_and_equal_one_big_batch_without_batch_norm(tmp_path):
    spec = recipe(epochs=EP(2), accumulate=2)
    result = run(tmp_path, spec, feed=Feed(count=5))
    assert result.iterations == 6  # 2 + 2 + 1 batches an epoch
    resumed = tmp_path / "b"
    run(resumed, spec, feed=Feed(count=5), limit=2)
    run(resumed, spec, feed=Feed(count=5), resume=True)
    assert losses(resumed) == losses(tmp_path)


def test_gradient_of_accumulated_parts_is_the_mean(tmp_path):
    def trained(spec, feed):
        program = Program(noise=0.0)
        norm = program.model.backbone.norm.eval()  # batch statistics depend on how a batch is split
        norm.train = lambda mode=True: norm
        run(tmp_path / str(len(feed)), spec, program=program, feed=feed)
        return program.model.state_dict()

    class Halves(Feed):
        """The batches of Feed(1), in two halves."""

        def epoch(self, epoch, pipeline, start=0):
            for number in range(1):
                batch = self.make(epoch, number)
                for rows in (slice(0, 2), slice(2, 4)):
                    yield {p: {k: v[rows] for k, v in t.items()} for p, t in batch.items()}

    whole = trained(recipe(epochs=EP(3)), Feed(count=1))
    parts = trained(recipe(epochs=EP(3), accumulate=2), Halves(count=2))
    for name, tensor in whole.items():
        torch.testing.assert_close(parts[name], tensor, rtol=1e-5, atol=1e-6)


def test_the_average_is_what_is_validated_and_saved(tmp_path):
    program = Program()
    seen = []

    def validate() -> Mapping[str, float]:
        seen.append({k: v.clone() for k, v in program.model.state_dict().items()})
        torch.rand(3)  # must not disturb training
        return {"ap": float(len(seen))}

    result = run(tmp_path / "a", program=program, validate=validate)
    saved = read_checkpoint(result.last)
    assert result.best_metrics["ap"] == len(seen) == 4
    for name, tensor in saved.model.items():
        assert torch.equal(tensor, seen[-1][name])
    assert not torch.equal(saved.model["head.cls.weight"], saved.train["model"]["head.cls.weight"])
    run(tmp_path / "b")
    assert losses(tmp_path / "a") == losses(tmp_path / "b")


def test_best_keeps_the_best(tmp_path):
    scores = iter([0.2, 0.5, 0.4, 0.3])
    result = run(tmp_path, validate=lambda: {"ap": next(scores)})
    assert read_checkpoint(result.best).metrics == {"ap": 0.5}
    assert read_checkpoint(result.last).metrics == {"ap": 0.3}
    assert (result.metrics, result.best_metrics) == ({"ap": 0.3}, {"ap": 0.5})
    assert read_checkpoint(result.best).train["progress"]["done"] == 10
    assert not [p for p in tmp_path.iterdir() if p.name.endswith(".tmp")]


def test_kept_checkpoints(tmp_path):
    run(tmp_path, replace(FULL, fields={"keep": 2}), validate=lambda: {"ap": 0.5})
    assert sorted(p.name for p in tmp_path.glob("iter_*.pt")) == ["iter_0000015.pt", "iter_0000020.pt"]


def test_early_stop(tmp_path):
    spec = replace(FULL, epochs=EP(9), hooks={"stop": EarlyStop(patience=2)})
    scores = iter([0.2, 0.5, 0.4, 0.3, 0.9])
    result = run(tmp_path, spec, validate=lambda: {"ap": next(scores)})
    assert (result.stopped, result.epochs) == ("stale", 4)


def test_the_pipeline_switches_at_its_time(tmp_path):
    feed = Feed()
    run(tmp_path, replace(FULL, switches=(Switch(EP(3), "data.active", "late"),)), feed=feed)
    assert feed.asked == [(0, "train", 0), (1, "train", 0), (2, "train", 0), (3, "late", 0)]
    feed = Feed()
    run(tmp_path / "it", replace(FULL, switches=(Switch(IT(12), "data.active", "late"),)), feed=feed)
    assert feed.asked == [(0, "train", 0), (1, "train", 0), (2, "train", 0), (2, "late", 2), (3, "late", 0)]


def test_a_loss_that_is_not_finite_is_named(tmp_path):
    class Bad(Feed):
        def epoch(self, epoch, pipeline, start=0):
            for number, batch in enumerate(super().epoch(epoch, pipeline, start)):
                if (epoch, number) == (1, 2):
                    batch["truth"]["boxes"][0] = float("nan")
                yield {**batch, "meta": [{"path": f"img{number}.jpg"}]}

    with pytest.raises(DetError) as caught:
        run(tmp_path, feed=Bad())
    found = caught.value.diagnostics[0]
    assert found.code == "DET0711"
    assert found.message == "loss `head.box` is nan at iteration 8"
    assert any("img2.jpg" in note for note in found.notes)
    run(tmp_path / "off", replace(FULL, hooks={"check": CheckNaN(enabled=False)}), feed=Bad())


def test_batches_that_are_missing_do_not_shift_the_clock(tmp_path):
    class Broken(Feed):
        """The loader leaves out batches whose images are all broken."""

        def epoch(self, epoch, pipeline, start=0):
            batches = list(super().epoch(epoch, pipeline, start))
            yield from batches[: 3 if epoch == 1 else 5]

    scores = []
    result = run(tmp_path, feed=Broken(), validate=lambda: {"ap": 0.1 * (scores.append(0) or len(scores))})
    assert (result.iterations, len(scores)) == (20, 4)
    assert [i for i, _ in losses(tmp_path)] == [i for i in range(1, 21) if i not in (9, 10)]

    class Empty(Feed):
        def epoch(self, epoch, pipeline, start=0):
            return iter(())

    with pytest.raises(DetError, match="no image that can be used"):
        run(tmp_path / "b", feed=Empty())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_saves_and_resumes_exactly(tmp_path, number):
    class Interrupted(Feed):
        def epoch(self, epoch, pipeline, start=0):
            for i, batch in enumerate(super().epoch(epoch, pipeline, start)):
                if (epoch, i) == (1, 3):
                    os.kill(os.getpid(), number)
                yield batch

    before = signal.getsignal(number)
    result = run(tmp_path / "a", feed=Interrupted())
    assert (result.stopped, result.iterations) == ("interrupted", 9)
    assert signal.getsignal(number) is before
    run(tmp_path / "a", resume=True)
    run(tmp_path / "b")
    assert losses(tmp_path / "a") == losses(tmp_path / "b")


def test_a_second_interrupt_ends_at_once(tmp_path):
    class Impatient(Feed):
        def epoch(self, epoch, pipeline, start=0):
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)  # the launcher's echo of the first
            time.sleep(0.6)
            os.kill(os.getpid(), signal.SIGINT)
            yield from super().epoch(epoch, pipeline, start)

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, feed=Impatient())


def test_a_folder_with_a_training_is_not_overwritten(tmp_path):
    run(tmp_path, limit=1)
    with pytest.raises(DetError, match="already holds a training"):
        run(tmp_path)
    with pytest.raises(DetError, match="no training to resume"):
        run(tmp_path / "other", resume=True)


def test_resuming_another_model_is_refused(tmp_path):
    run(tmp_path, limit=1)
    with pytest.raises(DetError) as caught:
        run(tmp_path, program=Program(classes=5), resume=True)
    assert caught.value.diagnostics[0].code == "DET0902"
    assert "head.cls.weight: 3x8x1x1 in" in caught.value.diagnostics[0].notes[0]


def test_a_changed_spec_is_told(tmp_path, capsys):
    run(tmp_path, limit=1)
    text = (tmp_path / "last.pt").read_bytes()
    assert text
    fit(
        Program(),
        FULL,
        feed=Feed(),
        validate=None,
        out=tmp_path,
        identity=("det 1\n# another\n", "", ("a", "b", "c")),
        device=CPU,
        world=World(),
        display=Plain(),
        resume=True,
    )
    said = capsys.readouterr().out
    assert "the spec has changed" in said
    assert "+# another" in said


def test_a_full_disk_is_said_and_leaves_the_old_checkpoint(tmp_path, monkeypatch):
    run(tmp_path, limit=1)
    before = (tmp_path / "last.pt").read_bytes()

    class Full:
        def __init__(self, file):
            self.file = file

        def write(self, data):
            raise OSError(errno.ENOSPC, "No space left on device")

        def __getattr__(self, name):
            return getattr(self.file, name)

        def __enter__(self):
            return self

        def __exit__(self, *exc):
            self.file.close()

    monkeypatch.setattr(checkpoint_module, "open", lambda *a: Full(open(*a)), raising=False)  # noqa: SIM115
    with pytest.raises(DetError, match="No space left on device") as caught:
        run(tmp_path, resume=True)
    assert caught.value.diagnostics[0].code == "DET0712"
    assert (tmp_path / "last.pt").read_bytes() == before
    assert not list(tmp_path.glob(".*.tmp"))


def test_an_unwritable_folder_is_said_before_training(tmp_path):
    (tmp_path / "file").write_text("in the way")
    feed = Feed()
    with pytest.raises(DetError) as caught:
        run(tmp_path / "file" / "out", feed=feed)
    assert caught.value.diagnostics[0].code == "DET0712"
    assert feed.asked == []


def test_checkpoints_load_without_code_and_rebuild_the_model(tmp_path):
    result = run(tmp_path, validate=lambda: {"ap": 0.5})
    data = torch.load(result.best, weights_only=True)
    assert (data["format"], data["spec"], data["classes"]) == ("detc", "det 1\n", ["a", "b", "c"])
    program = Program(seed=5)
    assert load_weights(program, result.best).metrics == {"ap": 0.5}
    assert torch.equal(program.model.head.cls.weight, data["model"]["head.cls.weight"])


def test_fp16_on_a_cpu_is_refused(tmp_path):
    with pytest.raises(DetError, match="fp16 training needs a GPU"):
        run(tmp_path, replace(FULL, amp=True, fields={"amp_dtype": "fp16"}))


@pytest.mark.skipif(not cpu_has_bf16(), reason="this CPU has no bf16 units")
def test_bf16_trains_like_fp32(tmp_path):
    run(tmp_path / "a", replace(FULL, amp=True, fields={"amp_dtype": "bf16"}))
    run(tmp_path / "b")
    a, b = losses(tmp_path / "a"), losses(tmp_path / "b")
    assert a != b
    assert a[-1][1] == pytest.approx(b[-1][1], rel=0.1)


def test_curves_and_plain_lines(tmp_path, capsys):
    run(tmp_path, validate=lambda: {"ap": 0.25, "ap50": 0.5}, display=Plain())
    said = capsys.readouterr().out
    assert "epoch 1/4" in said
    assert "epoch 4: ap 0.2500  ap50 0.5000" in said
    rows = read_rows(tmp_path / "metrics.jsonl")
    assert [r["ap"] for r in rows if r["kind"] == "val"] == [0.25] * 4
    json.dumps(rows, allow_nan=False)
    draw_curves(rows, tmp_path / "curves.png")
    assert (tmp_path / "curves.png").read_bytes()[:4] == b"\x89PNG"


@pytest.mark.slow
def test_a_compiled_step_trains_alike(tmp_path):
    spec = recipe(epochs=EP(2))
    run(tmp_path / "a", spec, compile=True, program=Program(noise=0.0))
    run(tmp_path / "b", spec, program=Program(noise=0.0))
    for (_, a), (_, b) in zip(losses(tmp_path / "a"), losses(tmp_path / "b"), strict=True):
        assert a == pytest.approx(b, rel=1e-3)
