"""The device that a command runs on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from detc.dsl.diagnostics import error

if TYPE_CHECKING:
    import torch

NAMES = "devices are cpu, cuda, cuda:1, …"


def choose_device(
    name: str | torch.device | None, local_rank: int = 0, *, code: str = "DET0906"
) -> torch.device:
    """The device of this process; the GPU if there is one where no name is given.

    Args:
        local_rank: of this process among those of the machine; `cuda` without a number is the GPU of that number.
        code: of the diagnostic.

    Raises:
        DetError: `code` if there is no such device.
    """
    import torch

    if name is None:
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as exc:
        raise error(code, f"`{name}` is no device", help=NAMES) from exc
    if device.type == "cuda":
        count = torch.cuda.device_count()
        index = device.index if device.index is not None else local_rank
        if index >= count:
            have = f"there are {count} GPUs" if count else "this machine (or this build of torch) has no GPU"
            help = "use `--device cpu`, or fewer `--procs`" if local_rank else "use `--device cpu`"
            raise error(code, f"no device cuda:{index}: {have}", help=help)
        return torch.device("cuda", index)
    there = device.type == "cpu" or (device.type == "mps" and torch.backends.mps.is_available())
    if not there:
        raise error(code, f"detc does not run on `{name}` here", help=NAMES)
    return device
