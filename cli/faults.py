"""What an exception means to the person at the terminal. Imported only when there is one."""

from __future__ import annotations

import json
import os
import sys
import traceback

from detc.cli.console import show
from detc.dsl.diagnostics import DetError

INTERNAL = 70  # EX_SOFTWARE: a bug in detc, told apart from a fault of the user's


def report(fault: Exception, *, as_json: bool) -> int:
    """Print `fault` and return the exit code.

    Faults of the user's (diagnostics, files, refused values) get a message. Anything else is a bug in detc:
    it is shown with its traceback, as is everything when `DETC_TRACEBACK=1`.
    """
    if os.environ.get("DETC_TRACEBACK") == "1":
        traceback.print_exception(fault)
    if isinstance(fault, DetError):
        show(fault.diagnostics, as_json=as_json)
        return 1
    text = message(fault)
    if text is None:
        if os.environ.get("DETC_TRACEBACK") != "1":
            traceback.print_exception(fault)
        print(
            "\nThis is a bug in detc, not in your spec; please report it with the text above.",
            file=sys.stderr,
        )
        return INTERNAL
    if as_json:
        print(json.dumps({"error": text}))
    else:
        print(f"detc: {text}", file=sys.stderr)
    return 1


def message(fault: Exception) -> str | None:
    """One line for a fault of the user's; None for a bug."""
    if isinstance(fault, OSError) and (fault.strerror or fault.args):
        place = f": {fault.filename}" if fault.filename else ""
        return f"{fault.strerror or fault}{place}"
    if type(fault).__name__ == "OutOfMemoryError":  # torch's, without importing it
        return f"{fault}\nThe device has too little memory: lower `batch` or the image size."
    if isinstance(fault, MemoryError):
        return "not enough memory: lower `batch`, the image size or `workers`"
    if isinstance(fault, ImportError) and fault.name and not fault.name.startswith("detc"):
        return f"{fault}; install it with `pip install {fault.name.split('.')[0]}`"
    if isinstance(fault, ValueError) and _raised_by_detc(fault):
        return str(fault)
    return None


def _raised_by_detc(fault: BaseException) -> bool:
    """True if the `raise` stands in detc's own code, where a ValueError is the user's to mend."""
    if type(fault).__module__.startswith("detc."):
        return True
    frame = fault.__traceback__
    while frame is not None and frame.tb_next is not None:
        frame = frame.tb_next
    return frame is not None and str(frame.tb_frame.f_globals.get("__name__", "")).startswith("detc.")
