"""Detectors against torchvision's own, with the same weights: inference, ONNX Runtime, one training step.

    python tests/benchmarks/detectors.py [--threads 2] [--rounds 5] [--only retinanet] [--part infer,onnx,train]

Prints a Markdown table of ratios (ours / torchvision eager; smaller is better). Each side runs in a process of its
own, as its users run it, and they take turns; the ratio is that of the medians. Our side keeps large blocks
(`runtime.malloc`), folds norms and runs channels-last, as `detc` does by itself.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SIZES = ((640, 640), (800, 1333))
TRAIN_SIZE = (512, 512)
BARS = {"infer": 0.8, "onnx": 0.6, "train": 1.0}


@dataclass(frozen=True)
class Pair:
    """A torchvision detector and our fragment of it."""

    peer: str
    ours: str
    table: str


PAIRS = {
    "faster_rcnn": Pair(
        "fasterrcnn_resnet50_fpn", "TorchvisionFasterRCNN", "torchvision/fasterrcnn_resnet50_fpn"
    ),
    "retinanet": Pair("retinanet_resnet50_fpn", "TorchvisionRetinaNet", "torchvision/retinanet_resnet50_fpn"),
    "fcos": Pair("fcos_resnet50_fpn", "TorchvisionFCOS", "torchvision/fcos_resnet50_fpn"),
}


def peer_model(pair: Pair, size: tuple[int, int]) -> Any:
    """torchvision's model, random weights from a fixed seed, that takes images of `size` as they are."""
    import torch
    from torchvision.models import detection

    torch.manual_seed(0)
    make = getattr(detection, pair.peer)
    return make(weights=None, weights_backbone=None, num_classes=91, min_size=min(size), max_size=max(size))


def our_program(pair: Pair, peer: Any) -> Any:
    """Our program with the peer's weights."""
    from detc.compiler.check import check
    from detc.compiler.program import build
    from detc.runtime.weights.keys import map_keys

    classes = 90 if pair.ours == "TorchvisionFasterRCNN" else 91
    names = ", ".join(f'"c{i}"' for i in range(classes))
    text = f"det 1\nimport std.models {{ {pair.ours} }}\nrun {{ model = {pair.ours}(classes = [{names}]) }}\n"
    program = build(check(text).run())
    mapped = map_keys(peer.state_dict(), program.model.state_dict(), pair.table)
    program.model.load_state_dict(mapped.state, strict=True)
    return program


def image_of(size: tuple[int, int]) -> Any:
    """One image [3, H, W] in 0..1."""
    import torch

    return torch.rand(3, *size, generator=torch.Generator().manual_seed(0))


def truth_of(batch: int, size: tuple[int, int]) -> Any:
    """Ten boxes an image: [B, 10, 4], labels [B, 10]."""
    import torch

    g = torch.Generator().manual_seed(1)
    corner = torch.rand(batch, 10, 2, generator=g) * 0.6
    extent = torch.rand(batch, 10, 2, generator=g) * 0.3 + 0.05
    scale = torch.tensor([size[1], size[0]] * 2, dtype=torch.float32)
    return torch.cat([corner, corner + extent], -1) * scale, torch.randint(1, 90, (batch, 10), generator=g)


def peer_call(pair: Pair, part: str, size: tuple[int, int]) -> Callable[[], Any]:
    """One call of torchvision."""
    import torch

    model = peer_model(pair, size)
    if part != "train":
        model.eval()
        image = image_of(size)

        def infer() -> Any:
            with torch.no_grad():
                return model([image])

        return infer
    model.train()
    optim = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1e-5, momentum=0.9)
    boxes, labels = truth_of(2, size)
    images = [image_of(size), image_of(size)]
    targets = [{"boxes": b, "labels": n} for b, n in zip(boxes, labels, strict=True)]

    def step() -> Any:
        loss = torch.stack(list(model(images, targets).values())).sum()
        optim.zero_grad()
        loss.backward()
        optim.step()

    return step


def our_call(pair: Pair, part: str, size: tuple[int, int]) -> Callable[[], Any]:
    """One call of ours."""
    import torch

    from detc.runtime.malloc import keep_large_blocks

    keep_large_blocks()
    program = our_program(pair, peer_model(pair, size))
    align = 32
    height, width = (-(-n // align) * align for n in size)
    pixels = torch.zeros(1, 3, height, width)
    pixels[0, :, : size[0], : size[1]] = image_of(size) * 255
    image = {
        "pixels": pixels.to(memory_format=torch.channels_last),
        "size": torch.tensor([list(size)], dtype=torch.float32),
    }
    if part == "infer":
        from detc.compiler.backends.cpu import fuse

        graph = fuse(program.optimised())

        def infer() -> Any:
            with torch.inference_mode():
                return graph(image)

        return infer
    if part == "onnx":
        return _onnx_call(program, size)
    program.model.to(memory_format=torch.channels_last).train()
    boxes, labels = truth_of(2, size)
    batch = {
        "pixels": image["pixels"].repeat(2, 1, 1, 1).contiguous(memory_format=torch.channels_last),
        "size": image["size"].repeat(2, 1),
    }
    truth = {"boxes": boxes, "labels": labels - 1, "valid": torch.ones(2, 10, dtype=torch.bool)}
    optim = torch.optim.SGD([p for p in program.model.parameters() if p.requires_grad], lr=1e-5, momentum=0.9)
    graph = program.train_graph

    def step() -> Any:
        loss = torch.stack(list(graph(batch, truth).values())).sum()
        optim.zero_grad()
        loss.backward()
        optim.step()

    return step


def _onnx_call(program: Any, size: tuple[int, int]) -> Callable[[], Any]:
    import onnxruntime
    import torch

    from detc.compiler.spec import Size, TargetSpec
    from detc.runtime.export import export_onnx

    target = TargetSpec(image=Size(size[1], size[0]), batch=(1, 1), stated=frozenset({"image", "batch"}))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        path.write_bytes(export_onnx(program, target).SerializeToString())
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    image = (image_of(size)[None] * 255).to(torch.uint8).numpy()
    return lambda: session.run(None, {"image": image})


def serve(side: str, name: str, part: str, size: tuple[int, int], threads: int) -> None:
    """A worker: one timed call for each line on standard input."""
    import warnings

    import torch

    warnings.simplefilter("ignore")
    torch.set_num_threads(threads)
    call = (peer_call if side == "peer" else our_call)(PAIRS[name], part, size)
    call()
    print("ready", flush=True)
    for _ in sys.stdin:
        start = time.perf_counter()
        call()
        print(time.perf_counter() - start, flush=True)


class Worker:
    """A process that runs one side."""

    def __init__(self, side: str, name: str, part: str, size: tuple[int, int], threads: int) -> None:
        command = [
            sys.executable,
            __file__,
            "--serve",
            side,
            name,
            part,
            f"{size[0]}x{size[1]}",
            "--threads",
            str(threads),
        ]
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        assert self.process.stdout is not None
        while (line := self.process.stdout.readline()) and line.strip() != "ready":
            pass
        if not line:
            raise SystemExit(f"the {side} side of {name} ({part}) failed")

    def time(self) -> float:
        """Seconds of one call."""
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write("go\n")
        self.process.stdin.flush()
        return float(self.process.stdout.readline())

    def close(self) -> None:
        """End the process."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def row(name: str, part: str, size: tuple[int, int], threads: int, rounds: int) -> str:
    """One row of the table."""
    workers = [Worker(side, name, part, size, threads) for side in ("ours", "peer")]
    times: list[list[float]] = [[], []]
    for _ in range(rounds):
        for worker, found in zip(workers, times, strict=True):
            found.append(worker.time())
    for worker in workers:
        worker.close()
    ours, peer = (statistics.median(t) for t in times)
    ratio, bar = ours / peer, BARS[part]
    verdict = "met" if ratio <= bar else "missed"
    return f"| {name} | {part} | {size[0]}x{size[1]} | {ours * 1000:.0f} | {peer * 1000:.0f} | {ratio:.2f} | {bar} | {verdict} |"


def main() -> None:
    """Run the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default=",".join(PAIRS))
    parser.add_argument("--part", default="infer,onnx,train")
    parser.add_argument("--serve", nargs=4, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve:
        side, name, part, size = args.serve
        height, width = map(int, size.split("x"))
        serve(side, name, part, (height, width), args.threads)
        return
    import torch
    import torchvision

    print(
        f"{platform.machine()}, {args.threads} threads, torch {torch.__version__}, torchvision {torchvision.__version__}\n"
    )
    print(
        "| model | part | image | ours ms | torchvision ms | ratio | bar | |\n|---|---|---|---|---|---|---|---|",
        flush=True,
    )
    for name in args.only.split(","):
        for part in args.part.split(","):
            for size in (TRAIN_SIZE,) if part == "train" else SIZES:
                print(row(name, part, size, args.threads, args.rounds), flush=True)


if __name__ == "__main__":
    main()
