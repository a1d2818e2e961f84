"""The environment as data: for `detc doctor`, for reports and for bug reports."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from importlib.metadata import PackageNotFoundError, requires, version

Facts = dict[str, dict[str, str]]


def report() -> Facts:
    """Sections of named facts; imports torch and ONNX Runtime."""
    return {"system": system(), "packages": packages(), "devices": devices(), "tools": tools()}


def system() -> dict[str, str]:
    """Interpreter, operating system, processor."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "python": f"{platform.python_version()} ({sys.executable})",
        "platform": platform.platform(),
        "processors": str(usable),
        "memory": memory(),
    }


def memory() -> str:
    """Physical memory, where the system tells."""
    try:
        size = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return "unknown"
    return f"{size / 2**30:.1f} GiB"


def packages() -> dict[str, str]:
    """Versions of detc and of everything that it requires."""
    found = {"detc": version("detc")}
    for line in requires("detc") or []:
        requirement, _, marker = line.partition(";")
        name = requirement.split("[")[0].strip()
        for sign in "<>=!~":
            name = name.split(sign)[0].strip()
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            if "extra" not in marker:
                found[name] = "missing"
    return found


def devices() -> dict[str, str]:
    """What torch and ONNX Runtime can run on."""
    import torch

    found = {"cpu": torch.backends.cpu.get_cpu_capability() + f", {torch.get_num_threads()} threads"}
    for i in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(i)
        found[f"cuda:{i}"] = f"{properties.name}, {properties.total_memory / 2**30:.1f} GiB"
    if torch.backends.mps.is_available():
        found["mps"] = "available"
    try:
        import onnxruntime
    except ImportError as fault:
        found["onnxruntime"] = f"missing ({fault})"
    else:
        found["onnxruntime"] = ", ".join(onnxruntime.get_available_providers())
    return found


def tools() -> dict[str, str]:
    """Programs that building the native library needs, and where caches lie."""
    found = {name: shutil.which(name) or "not found" for name in ("c++", "nvcc", "ninja")}
    found["torch cache"] = os.environ.get("TORCH_HOME") or "~/.cache/torch"
    return found


def problems(facts: Facts) -> list[str]:
    """What is missing, with the way out."""
    missing = [name for name, v in facts["packages"].items() if v == "missing"]
    return [f"the package {name} is missing: pip install {name}" for name in missing]
