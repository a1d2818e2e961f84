"""Several processes: who this one is, what they tell each other, how torchrun's engine starts them."""

from __future__ import annotations

import inspect
import json
import logging
import multiprocessing
import os
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import distributed as dist

from detc.dsl.diagnostics import DetError, error

if TYPE_CHECKING:
    from torch import nn
    from torch.nn.parallel import DistributedDataParallel


@dataclass(frozen=True)
class World:
    """This process among `size`; `World()` is a process of its own."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0

    @property
    def first(self) -> bool:
        """True for the one process that prints and writes."""
        return self.rank == 0

    def gather(self, value: Any) -> list[Any]:
        """The values of all processes, in order, on every process."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value)
        return values

    def any(self, flag: bool) -> bool:
        """True on every process if `flag` is true on one."""
        return any(self.gather(flag)) if self.size > 1 else flag

    def mean_(self, tensors: Sequence[torch.Tensor]) -> None:
        """Replace each floating-point tensor by its mean over the processes, with one all-reduce a dtype."""
        if self.size == 1:
            return
        by_dtype: dict[torch.dtype, list[torch.Tensor]] = {}
        for tensor in tensors:
            by_dtype.setdefault(tensor.dtype, []).append(tensor)
        for group in by_dtype.values():
            flat = torch.cat([t.reshape(-1) for t in group])
            dist.all_reduce(flat)
            flat /= self.size
            for tensor, part in zip(group, flat.split([t.numel() for t in group]), strict=True):
                tensor.copy_(part.view(tensor.shape))

    def barrier(self) -> None:
        """Wait for all processes."""
        if self.size > 1:
            dist.barrier()


def join(device: torch.device) -> World:
    """Join the processes that torchrun started, if it did (it sets RANK, WORLD_SIZE, …)."""
    if "RANK" not in os.environ or int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return World()
    if not dist.is_initialized():
        # gloo carries Python objects and CPU tensors, nccl carries gradients between GPUs.
        dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo")
    return World(dist.get_rank(), dist.get_world_size(), int(os.environ.get("LOCAL_RANK", "0")))


def leave() -> None:
    """Take leave of the other processes."""
    if dist.is_initialized():
        dist.destroy_process_group()


def launched() -> bool:
    """True in a process that torchrun (or `launch`) started."""
    return "TORCHELASTIC_RUN_ID" in os.environ


def synchronise(graph: nn.Module, device: torch.device, unused: bool) -> DistributedDataParallel:
    """Wrap the train graph so that its gradients are averaged over the processes.

    Batch-norm statistics are not exchanged in every step; the trainer averages them before it validates.

    Args:
        unused: some trainable parameters take no part in the train graph.
    """
    from torch.nn.parallel import DistributedDataParallel

    known = inspect.signature(DistributedDataParallel).parameters
    # torch 2.15 renamed the option.
    buffers: dict[str, Any] = {
        "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers": False
    }
    return DistributedDataParallel(
        graph,
        device_ids=[device] if device.type == "cuda" else None,
        **buffers,
        gradient_as_bucket_view=True,
        find_unused_parameters=unused,
    )


def launch(entry: Callable[..., Any], args: tuple[Any, ...], procs: int) -> Any:
    """Run `entry(*args)` in `procs` processes of this machine and return what the first one returns.

    `entry` has to be a module-level function; its arguments and result have to pickle.

    Raises:
        DetError: what a process raised, under its own code; DET0714 if one died otherwise.
    """
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    with tempfile.TemporaryDirectory(prefix="detc-") as folder:
        config = LaunchConfig(
            min_nodes=1,
            max_nodes=1,
            nproc_per_node=procs,
            run_id=f"detc-{os.getpid()}",
            rdzv_backend="c10d",
            rdzv_endpoint="localhost:0",
            max_restarts=0,
            monitor_interval=0.2,
            signals_to_handle="SIGTERM,SIGHUP,SIGQUIT",
        )
        # It prints the tracebacks of children; their faults come back as data.
        logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
        for name in ("torch.distributed.elastic.agent.server.api", "torch.multiprocessing"):
            logging.getLogger(name).setLevel(logging.CRITICAL)
        try:
            with _handing_on():
                results = elastic_launch(config, _guarded)(
                    entry, args, folder, max(1, (os.cpu_count() or 1) // procs)
                )
        except SignalException as exc:
            raise error("DET0714", f"stopped by {exc.sigval.name}", help="go on with `--resume`") from exc
        except ChildFailedError as exc:
            faults = sorted(Path(folder).glob("fault-*.json"))
            if faults:
                said = json.loads(faults[0].read_text(encoding="utf-8"))
                raise error(said["code"], said["message"], notes=said["notes"], help=said["help"]) from exc
            rank, failure = exc.get_first_failure()
            raise error(
                "DET0714",
                f"process {rank} of {procs} died: {failure.message}",
                help="go on from the last checkpoint with `--resume`",
            ) from exc
        return results[0]


@contextmanager
def _handing_on() -> Iterator[None]:
    """Ctrl-C goes to the processes, which end in good order; this one waits for them."""

    def hand_on(number: int, frame: object) -> None:
        for child in multiprocessing.active_children():
            if child.pid is not None:
                os.kill(child.pid, number)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, hand_on)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _guarded(entry: Callable[..., Any], args: tuple[Any, ...], folder: str, threads: int) -> Any:
    torch.set_num_threads(threads)
    try:
        return entry(*args)
    except (DetError, KeyboardInterrupt) as exc:
        # A diagnostic's origins do not survive the way back as text, so its words go there as data.
        stopped = error("DET0714", "interrupted before the first step")
        first = (exc if isinstance(exc, DetError) else stopped).diagnostics[0]
        said = {"code": first.code, "message": first.message, "notes": list(first.notes), "help": first.help}
        Path(folder, f"fault-{os.environ['RANK']}.json").write_text(json.dumps(said), encoding="utf-8")
        raise
    finally:
        leave()
