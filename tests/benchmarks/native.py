"""Ratios of the native ops against torchvision's (or the path that people use where torchvision has none).

    python tests/benchmarks/native.py [--threads 2] [--rounds 7] [--only nms]

Prints a Markdown table. Both sides run in turns in one process, warm, and the ratio is that of the medians. Both may
use all threads; torchvision's NMS, RoIAlign and mask paste have code for one only. Bars are what the project asks for on a CPU with two threads. A case with several steps at the
peer's has all of them that lead to the same result: the mask peer thresholds what it pasted, the assignment peer copies
to the host, the NMS peer of 80 classes moves the classes apart.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
import torchvision
from torch import Tensor

from detc.nativeops import ops
from detc.nativeops.reference.ms_deform_attn import ms_deform_attn as grid_sample_attention
from detc.nativeops.registry import has_native_kernel

TURN = 0.1  # seconds


@dataclass
class Case:
    """One row: what we do and what the peer does, on the same inputs."""

    name: str
    ours: Callable[[], object]
    peer: Callable[[], object]
    peer_name: str
    bar: float | None = None


def random_boxes(n: int, device: str) -> Tensor:
    """Boxes of 10 to 160 pixels all over an image of 800 x 1333."""
    centre = torch.rand(n, 2, device=device) * torch.tensor([1333.0, 800.0], device=device)
    half = torch.rand(n, 2, device=device) * 75 + 5
    return torch.cat((centre - half, centre + half), 1)


def nms_cases(device: str) -> Iterator[Case]:
    """One class, and 80 classes."""
    for n in (1000, 5000, 30_000):
        boxes, scores = random_boxes(n, device), torch.rand(n, device=device)
        yield Case(
            f"NMS, {n} boxes, 1 class",
            lambda b=boxes, s=scores: ops.nms(b, s, 0.5),
            lambda b=boxes, s=scores: torchvision.ops.nms(b, s, 0.5),
            "torchvision",
            9,
        )
        labels = torch.randint(0, 80, (n,), device=device)
        yield Case(
            f"NMS, {n} boxes, 80 classes",
            lambda b=boxes, s=scores, c=labels, n=n: ops.batched_nms(
                b[None], s[None], labels=c[None], iou_threshold=0.5, keep=n
            ),
            lambda b=boxes, s=scores, c=labels: torchvision.ops.batched_nms(b, s, c, 0.5),
            "torchvision",
            4,
        )


def roi_align_cases(device: str) -> Iterator[Case]:
    """1000 rois of 16 to 530 pixels, 256 channels, 7 x 7, over P2 to P5 of 800 x 1333."""
    strides = (4.0, 8.0, 16.0, 32.0)
    features = [torch.randn(1, 256, -(-800 // int(s)), -(-1333 // int(s)), device=device) for s in strides]
    leaves = [f.clone().requires_grad_() for f in features]
    sides = torch.exp(torch.rand(1000, 2, device=device) * 3.5 + 2.8)
    centre = torch.rand(1000, 2, device=device) * torch.tensor([1333.0, 800.0], device=device)
    rois = torchvision.ops.clip_boxes_to_image(
        torch.cat((centre - sides / 2, centre + sides / 2), 1), (800, 1333)
    )
    grad = torch.randn(1000, 256, 7, 7, device=device)
    pooler = torchvision.ops.MultiScaleRoIAlign([str(i) for i in range(4)], 7, 2)

    def ours(maps: list[Tensor]) -> Tensor:
        return ops.multilevel_roi_align(
            maps, rois[None], output_size=7, strides=strides, sampling_ratio=2, aligned=False
        )[0]

    def peer(maps: list[Tensor]) -> Tensor:
        return pooler({str(i): f for i, f in enumerate(maps)}, [rois], [(800, 1333)])

    yield Case("RoIAlign forward", lambda: ours(features), lambda: peer(features), "torchvision", 3)
    yield Case(
        "RoIAlign forward + backward",
        lambda: torch.autograd.grad(ours(leaves), leaves, grad),
        lambda: torch.autograd.grad(peer(leaves), leaves, grad),
        "torchvision",
        2,
    )


def deform_conv_cases(device: str) -> Iterator[Case]:
    """3 x 3, 256 to 256 channels, 50 x 50, one image, modulated."""
    x, weight = torch.randn(1, 256, 50, 50, device=device), torch.randn(256, 256, 3, 3, device=device)
    offset, mask = torch.randn(1, 18, 50, 50, device=device), torch.rand(1, 9, 50, 50, device=device)
    inputs = [t.requires_grad_() for t in (x, offset, weight, mask)]
    grad = torch.randn(1, 256, 50, 50, device=device)

    def ours() -> Tensor:
        return ops.deform_conv2d(x, offset, weight, padding=1, mask=mask)

    def peer() -> Tensor:
        return torchvision.ops.deform_conv2d(x, offset, weight, padding=1, mask=mask)

    def forward(function: Callable[[], Tensor]) -> Tensor:
        with torch.no_grad():
            return function()

    yield Case("deform_conv2d forward", lambda: forward(ours), lambda: forward(peer), "torchvision", 1.5)
    yield Case(
        "deform_conv2d forward + backward",
        lambda: torch.autograd.grad(ours(), inputs, grad),
        lambda: torch.autograd.grad(peer(), inputs, grad),
        "torchvision",
    )


def attention_cases(device: str) -> Iterator[Case]:
    """Four levels of 640 x 640, 4 points, 8 heads of 32 channels."""
    shapes = [(80, 80), (40, 40), (20, 20), (10, 10)]
    flat = [n for pair in shapes for n in pair]
    value = torch.randn(1, sum(h * w for h, w in shapes), 8, 32, device=device)
    for queries in (300, 8400):
        locations = torch.rand(1, queries, 8, 4, 4, 2, device=device)
        weights = torch.rand(1, queries, 8, 16, device=device).softmax(-1).view(1, queries, 8, 4, 4)
        yield Case(
            f"ms_deform_attn, {queries} queries",
            lambda at=locations, w=weights: ops.ms_deform_attn(value, shapes, at, w),
            lambda at=locations, w=weights: grid_sample_attention(value, flat, at, w),
            "grid_sample path",
            8,
        )


def focal_cases(device: str) -> Iterator[Case]:
    """16 images, 8400 points, 80 classes, summed; the peer needs one-hot targets, we take labels too."""
    logits = torch.randn(16, 8400, 80, device=device, requires_grad=True)
    labels = torch.where(
        torch.rand(16, 8400, device=device) < 0.02, torch.randint(0, 80, (16, 8400), device=device), -1
    )
    targets = (labels[..., None] == torch.arange(80, device=device)).float()

    def step(function: Callable[..., Tensor], truth: Tensor) -> object:
        return torch.autograd.grad(function(logits, truth, reduction="sum"), logits)

    yield Case(
        "focal loss forward + backward",
        lambda: step(ops.sigmoid_focal_loss, targets),
        lambda: step(torchvision.ops.sigmoid_focal_loss, targets),
        "torchvision",
        16,
    )
    yield Case(
        "focal loss forward + backward, from labels",
        lambda: step(ops.sigmoid_focal_loss, labels),
        lambda: step(torchvision.ops.sigmoid_focal_loss, targets),
        "torchvision",
    )


def mask_cases(device: str) -> Iterator[Case]:
    """100 masks of 28 x 28 to 800 x 1333."""
    from torchvision.models.detection.roi_heads import paste_masks_in_image

    masks = torch.rand(100, 28, 28, device=device)
    boxes = torchvision.ops.clip_boxes_to_image(random_boxes(100, device) * 2 - 400, (800, 1333))
    yield Case(
        "mask paste",
        lambda: ops.mask_paste(masks, boxes, height=800, width=1333),
        lambda: paste_masks_in_image(masks[:, None], boxes, (800, 1333)) >= 0.5,
        "torchvision",
        12,
    )


def assignment_cases(device: str) -> Iterator[Case]:
    """Batches of 16; the peer copies to the host and solves one by one."""
    from scipy.optimize import linear_sum_assignment

    for n, m in ((900, 50), (300, 20)):
        cost = torch.rand(16, n, m, device=device)
        yield Case(
            f"assignment {n} x {m}, batch 16",
            lambda c=cost: ops.linear_assignment(c),
            lambda c=cost: [linear_sum_assignment(one) for one in c.cpu().numpy()],
            "scipy",
        )


FAMILIES = {
    "nms": nms_cases,
    "roi_align": roi_align_cases,
    "deform_conv": deform_conv_cases,
    "attention": attention_cases,
    "focal": focal_cases,
    "mask": mask_cases,
    "assignment": assignment_cases,
}


def seconds(function: Callable[[], object], repeats: int, device: str) -> float:
    """Mean time of a call, over ``repeats`` calls one after the other."""
    start = time.perf_counter()
    for _ in range(repeats):
        function()
    if device == "cuda":
        torch.cuda.synchronize()
    return (time.perf_counter() - start) / repeats


def measure(case: Case, rounds: int, device: str) -> tuple[float, float]:
    """Median milliseconds of a call of ours and of the peer, taken in turns.

    Both are warmed up. A turn is as many calls as fill ``TURN``, so that what takes microseconds is not measured by
    the clock's grain and by what the other side left in the caches.
    """
    sides = (case.ours, case.peer)
    repeats = []
    for function in sides:
        seconds(function, 1, device)
        repeats.append(max(1, round(TURN / max(seconds(function, 1, device), 1e-6))))
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(rounds):
        for side, function in enumerate(sides):
            times[side].append(seconds(function, repeats[side], device) * 1e3)
    return statistics.median(times[0]), statistics.median(times[1])


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--only", choices=FAMILIES, action="append")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    devices = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    ops.nms(torch.rand(1, 4), torch.rand(1), 0.5)  # builds or loads the library
    if not has_native_kernel("nms", "cpu"):
        raise SystemExit("there is no native library to measure: see `detc native status`")
    print(f"torch {torch.__version__}, torchvision {torchvision.__version__}, {options.threads} threads\n")
    cuda = f"{torch.cuda.get_device_name()}" if len(devices) > 1 else "CUDA"
    print(
        f"| case | detc, ms | peer, ms | ratio | bar | {cuda} |\n| --- | ---: | ---: | ---: | ---: | ---: |"
    )
    for family in options.only or FAMILIES:
        torch.manual_seed(0)
        rows = [list(FAMILIES[family](device)) for device in devices]
        for i, case in enumerate(rows[0]):
            ours, peer = measure(case, options.rounds, "cpu")
            bar = (
                "" if case.bar is None else f"{case.bar:g}x" + ("" if peer / ours >= case.bar else " missed")
            )
            on_gpu = "not run on a GPU"
            if len(rows) > 1:
                gpu_ours, gpu_peer = measure(rows[1][i], options.rounds, "cuda")
                on_gpu = f"{gpu_peer / gpu_ours:.1f}x"
            name = f"{case.name} (against {case.peer_name})"
            print(f"| {name} | {ours:.2f} | {peer:.2f} | {peer / ours:.1f}x | {bar} | {on_gpu} |", flush=True)


if __name__ == "__main__":
    main()
