"""Two processes over gloo, started through torchrun's engine."""

import os
import signal
import subprocess
import sys
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

pytestmark = pytest.mark.slow  # each starts two processes that import torch
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


SLOW = """
import sys, time
from pathlib import Path
import torch
from detc.runtime.train import ddp
from detc.runtime.train.fit import fit
from detc.runtime.train.progress import Plain
from tests.train.fakes import Feed, Program, recipe
from detc.compiler.spec import Quantity

class SlowFeed(Feed):
    def epoch(self, *args, **more):
        for batch in super().epoch(*args, **more):
            print("STEP", flush=True)
            time.sleep(0.1)
            yield batch

def work(folder):
    world = ddp.join(torch.device("cpu"))
    return fit(
        Program(), recipe(epochs=Quantity(500, "ep")), feed=SlowFeed(5, 2, world.rank, 2), validate=None,
        out=Path(folder), identity=("det 1", "", ("a", "b", "c")), device=torch.device("cpu"), world=world,
        display=Plain(),
    ).stopped

if __name__ == "__main__":
    print("RESULT", ddp.launch(work, (sys.argv[1],), 2), flush=True)
"""


def test_ctrl_c_ends_all_processes_in_good_order(tmp_path):
    script = tmp_path / "slow.py"
    script.write_text(SLOW)
    root = Path(__file__).parents[2]
    child = subprocess.Popen(
        [sys.executable, str(script), str(tmp_path / "out")],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(root)},
    )
    try:
        assert child.stdout is not None
        for count, line in enumerate(child.stdout):
            if line.startswith("STEP") and count > 15:  # both are in their loops
                break
        child.send_signal(signal.SIGINT)
        said, _ = child.communicate(timeout=60)
    finally:
        child.kill()
    assert "RESULT interrupted" in said
    assert read_checkpoint(tmp_path / "out/last.pt").train["progress"]["done"] > 0


def test_means_and_flags_over_processes():
    assert ddp.launch(mean_of_ranks, (), 2) == [0.5, 1.5, 1.0, 0.0]


def test_a_process_that_fails_says_why(tmp_path):
    with pytest.raises(DetError) as caught:
        ddp.launch(fail_in_one, (str(tmp_path),), 2)
    found = caught.value.diagnostics[0]
    assert (found.code, found.message, found.help) == ("DET0711", "loss `x` is nan", "lower it")


FCOS = """det 1
import std.data {{ Synth, steps }}
import std.models {{ FCOS }}
import std.ops {{ Conv2d, GroupNorm, Normalize }}

component Tiny : Backbone {{
  input image: image
  node input_norm = Normalize(mean = [120, 120, 120], std = [60, 60, 60])
  x[0] = image -> input_norm
  repeat l in 0 .. 5 {{
    node conv[l] = Conv2d(16, kernel = 3, stride = 2)
    node norm[l] = GroupNorm(4)
    x[l + 1] = x[l] -> conv[l] -> norm[l] -> relu()
  }}
  output feats: pyramid = x[3 ..]
}}
model Small extends FCOS(backbone = Tiny()) {{
  set neck.width = 16
  set head.width = 16
  set head.depth = 1
  set head.groups = 4
}}
data Shapes extends Synth(root = "{root}", size = 64x64) {{
  set workers = 0
  set cache = "none"
  pipeline train {{
    load: steps.Load()
    boxes: steps.Boxes()
    resize: steps.RandomResize(64x64, ratio = [0.7, 1.3])
    crop: steps.Crop(64x64)
    hsv: steps.HSV()
    flip: steps.HFlip(0.5)
    pad: steps.Pad(64x64, fill = 114)
  }}
}}
train Short {{
  epochs = 2ep
  batch = 4img
  optim = SGD(lr = 0.01, momentum = 0.9)
  clip = 1.0
  hooks {{ ema: EMA(momentum = 0.1) }}
  log_every = 1
}}
run {{ data = Shapes()  model = Small(classes = data.classes)  train = Short() }}
"""


def test_a_detector_trains_alike_in_two_processes(tmp_path):
    """Random steps, losses that are normalised by numbers of objects, clipping: all as in one process."""
    from detc.compiler.check import check
    from detc.runtime.data.synth import generate
    from detc.runtime.train.engine import train

    generate(tmp_path / "data", 12, 0, val=2, smallest=64, largest=80)
    for procs in (1, 2):
        run = check(FCOS.format(root=tmp_path / "data")).run()
        train(run, out=tmp_path / str(procs), procs=procs, init="random", draw=0, plain=True, device="cpu")
    a, b = (read_checkpoint(tmp_path / str(n) / "last.pt").model for n in (1, 2))
    for name, tensor in a.items():
        torch.testing.assert_close(b[name], tensor, rtol=1e-4, atol=1e-5)
    one, two = (
        [r for r in read_rows(tmp_path / str(n) / "metrics.jsonl") if r["kind"] == "train"] for n in (1, 2)
    )
    for x, y in zip(one, two, strict=True):
        assert [y[k] for k in ("loss", "cls", "box", "centerness")] == pytest.approx(
            [x[k] for k in ("loss", "cls", "box", "centerness")], rel=1e-3
        )
