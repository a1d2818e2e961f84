"""How fast and how large: latency, throughput and memory of a callable under a fixed protocol.

Protocol: `warmup` calls that do not count, then calls until both `runs` calls and `seconds` seconds are
reached, each timed on its own (devices are synchronised). Reported are the median and the 5th and 95th
percentile, since a mean says little about a latency with a tail.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Timing:
    """Milliseconds a call, over `runs` calls."""

    median: float
    p5: float
    p95: float
    runs: int


@dataclass(frozen=True)
class Bench:
    """One line of a benchmark.

    Attributes:
        model: what was measured.
        backend: "torch" or "onnxruntime".
        device: "cpu", "cuda", …
        batch, height, width: of the input, uint8.
        threads: intra-op threads.
        latency: of a whole batch, in ms.
        throughput: images a second, from the median.
        parameters: learnable and frozen ones together; None where it is unknown.
        memory: MiB that the process (or the GPU's allocator) held at most while running, beyond what it held
            before the model was loaded.
    """

    model: str
    backend: str
    device: str
    batch: int
    height: int
    width: int
    threads: int
    latency: Timing
    throughput: float
    parameters: int | None
    memory: float

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self)

    def rows(self) -> list[tuple[str, str]]:
        """Names and values for a table."""
        t = self.latency
        return [
            ("model", self.model),
            ("backend", f"{self.backend} on {self.device}, {self.threads} thread{'s' * (self.threads != 1)}"),
            ("input", f"{self.batch} x 3 x {self.height} x {self.width}, uint8"),
            ("parameters", "unknown" if self.parameters is None else f"{self.parameters:,}"),
            ("latency", f"{t.median:.1f} ms median ({t.p5:.1f} to {t.p95:.1f} ms in 90 % of {t.runs} runs)"),
            ("throughput", f"{self.throughput:.1f} images/s"),
            ("memory", f"{self.memory:.0f} MiB"),
        ]


def measure(
    call: Callable[[], Any],
    *,
    warmup: int = 3,
    runs: int = 20,
    seconds: float = 1.0,
    synchronize: Callable[[], None] | None = None,
) -> Timing:
    """Time a call; see the module's protocol."""
    wait = synchronize or _nothing
    for _ in range(warmup):
        call()
    wait()
    times: list[float] = []
    begin = time.perf_counter()
    while len(times) < runs or time.perf_counter() - begin < seconds:
        start = time.perf_counter()
        call()
        wait()
        times.append(1000 * (time.perf_counter() - start))
    times.sort()
    return Timing(quantile(times, 0.5), quantile(times, 0.05), quantile(times, 0.95), len(times))


def _nothing() -> None:
    return None


def quantile(ordered: list[float], q: float) -> float:
    """Linear interpolation between the two nearest of sorted values."""
    place = q * (len(ordered) - 1)
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


def bench(
    path: str,
    *,
    sets: list[str] | None = None,
    run: str | None = None,
    weights: str | None = None,
    size: tuple[int, int] = (640, 640),
    batch: int = 1,
    threads: int | None = None,
    device: str | None = None,
    warmup: int = 3,
    runs: int = 20,
    seconds: float = 1.0,
) -> Bench:
    """Measure a spec, checkpoint or ONNX file, from uint8 pixels to boxes.

    Args:
        path: what `detc.load` takes.
        sets, run, weights: as for `detc.load`.
        size: (height, width) of the input.
        batch: images a call.
        threads: intra-op threads; all cores by default.
        device: "cpu", "cuda", "cuda:1"; the fastest there is by default.
        warmup, runs, seconds: the protocol.

    Raises:
        ValueError: if the file cannot take this batch.
    """
    import torch

    from detc.runtime.device import choose_device
    from detc.runtime.load import load

    if threads:
        torch.set_num_threads(threads)
    gpu = choose_device(device).type == "cuda"
    before = _memory_now(gpu)
    detector = load(path, sets=sets or [], run=run, weights=weights, device=device, threads=threads)
    height, width = size
    if detector.max_batch is not None and batch > detector.max_batch:
        raise ValueError(f"{path} takes at most {detector.max_batch} images at once, not {batch}")
    where = detector.device
    generator = torch.Generator().manual_seed(0)
    image = torch.randint(0, 256, (batch, 3, height, width), dtype=torch.uint8, generator=generator).to(where)
    wait = torch.cuda.synchronize if where.type == "cuda" else None
    _restart_peak(gpu)
    with torch.inference_mode():
        timing = measure(lambda: detector(image), warmup=warmup, runs=runs, seconds=seconds, synchronize=wait)
    return Bench(
        model=detector.run.model.name if detector.run is not None else Path(path).name,
        backend=detector.backend,
        device=str(where),
        batch=batch,
        height=height,
        width=width,
        threads=threads or torch.get_num_threads(),
        latency=timing,
        throughput=1000 * batch / timing.median,
        parameters=detector.parameter_count,
        memory=max(_memory_peak(gpu) - before, 0.0),
    )


def _memory_now(gpu: bool) -> float:
    """MiB that this process holds (on the GPU, its allocator)."""
    if gpu:
        import torch

        return torch.cuda.memory_allocated() / 2**20
    return _status("VmRSS:") if sys.platform == "linux" else _memory_peak(False)


def _memory_peak(gpu: bool) -> float:
    """The most that it held since `_restart_peak` (where the system cannot start anew: ever)."""
    if gpu:
        import torch

        return torch.cuda.max_memory_allocated() / 2**20
    if sys.platform == "linux":
        return _status("VmHWM:")
    import resource

    unit = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def _restart_peak(gpu: bool) -> None:
    if gpu:
        import torch

        torch.cuda.reset_peak_memory_stats()
    elif sys.platform == "linux":
        Path("/proc/self/clear_refs").write_text("5")


def _status(field: str) -> float:
    """A size of /proc/self/status in MiB."""
    text = Path("/proc/self/status").read_text()
    return float(text.split(field)[1].split()[0]) / 1024
