"""Two processes over gloo, started through torchrun's engine."""

import os
from pathlib import Path

import pytest
import torch
from torch import distributed as dist

from detc.compiler.spec import Quantity
from detc.dsl.diagnostics import DetError
from detc.dsl.diagnostics import error as make_error
from detc.runtime.train import ddp
from detc.runtime.train.checkpoint import read_checkpoint
from detc.runtime.train.fit import fit
from detc.runtime.train.log import read_rows
from detc.runtime.train.progress import Silent

from .fakes import Feed, Program, recipe

SPEC = recipe(epochs=Quantity(2, "ep"), batch=4, clip=1.0, fields={"log_every": 1})


def program_without_batch_statistics() -> Program:
    """Batch statistics depend on how a batch is split; everything else must not."""
    program = Program(noise=0.0)
    norm = program.model.backbone.norm.eval()
    norm.train = lambda mode=True: norm
    return program


def train_in_world(folder: str, resume: bool, limit: int | None) -> str:
    torch.set_num_threads(1)
    world = ddp.join(torch.device("cpu"))
    program = program_without_batch_statistics()
    result = fit(
        program,
        SPEC,
        feed=Feed(count=3, batch=4 // world.size, rank=world.rank, world=world.size),
        validate=lambda: {"ap": 0.1 * sum(world.gather(world.rank + 1))},
        out=Path(folder),
        identity=("det 1\n", "", ("a", "b", "c")),
        device=torch.device("cpu"),
        world=world,
        display=Silent(),
        resume=resume,
        limit=limit,
    )
    return str(result.last)


def fail_in_one(folder: str) -> None:
    ddp.join(torch.device("cpu"))
    if os.environ["RANK"] == "1":
        raise make_error("DET0711", "loss `x` is nan", help="lower it")


def mean_of_ranks() -> list[float]:
    world = ddp.join(torch.device("cpu"))
    tensors = [torch.full((2, 2), float(world.rank)), torch.tensor(3.0 * world.rank)]
    world.mean_(tensors)
    flags = [world.any(world.rank == 1), world.any(False)]
    assert dist.get_backend() == "gloo"
    return [float(tensors[0].mean()), float(tensors[1]), *map(float, flags)]


def test_two_processes_equal_one_with_the_same_batch(tmp_path):
    whole = train_in_world(str(tmp_path / "one"), False, None)
    ddp.launch(train_in_world, (str(tmp_path / "two"), False, 4), 2)
    parts = ddp.launch(train_in_world, (str(tmp_path / "two"), True, None), 2)
    a, b = read_checkpoint(whole), read_checkpoint(parts)
    for name, tensor in a.model.items():
        torch.testing.assert_close(b.model[name], tensor, rtol=1e-5, atol=1e-6)
    assert b.metrics["ap"] == pytest.approx(0.3)
    assert len(b.train["random"]) == 2
    rows = [r for r in read_rows(tmp_path / "two" / "metrics.jsonl") if r["kind"] == "train"]
    assert [r["iteration"] for r in rows] == [1, 2, 3, 4, 5, 6]


def test_means_and_flags_over_processes():
    assert ddp.launch(mean_of_ranks, (), 2) == [0.5, 1.5, 1.0, 0.0]


def test_a_process_that_fails_says_why(tmp_path):
    with pytest.raises(DetError) as caught:
        ddp.launch(fail_in_one, (str(tmp_path),), 2)
    found = caught.value.diagnostics[0]
    assert (found.code, found.message, found.help) == ("DET0711", "loss `x` is nan", "lower it")
