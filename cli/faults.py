"""What an exception means to the person at the terminal. Imported only when there is one."""

from __future__ import annotations

import errno
import os
import sys
import traceback

from detc.cli.console import show
from detc.dsl.diagnostics import DetError, Diagnostic

INTERNAL = 70  # EX_SOFTWARE: a bug in detc, told apart from a fault of the user's
FULL = (errno.ENOSPC, errno.EROFS, errno.EDQUOT, errno.EFBIG)


def report(fault: Exception, *, as_json: bool) -> int:
    """Print `fault` and return the exit code.

    Faults of the user's (diagnostics, files, refused values) get a message. Anything else is a bug in detc:
    it is shown with its traceback, as is everything when `DETC_TRACEBACK=1`.
    """
    if os.environ.get("DETC_TRACEBACK") == "1":
        traceback.print_exception(fault)
    found = list(fault.diagnostics) if isinstance(fault, DetError) else diagnostic(fault)
    if found is None:
        if os.environ.get("DETC_TRACEBACK") != "1":
            traceback.print_exception(fault)
        print(
            "\nThis is a bug in detc, not in your spec; please report it with the text above.",
            file=sys.stderr,
        )
        return INTERNAL
    show(found, as_json=as_json)
    return 1


def diagnostic(fault: Exception) -> list[Diagnostic] | None:
    """A fault of the user's as a diagnostic; None for a bug."""
    code, text, help = "DET0906", str(fault), None
    if type(fault).__name__ == "OutOfMemoryError":  # torch's, without importing it
        code, text = "DET0714", f"the device has too little memory: {text.splitlines()[0] if text else ''}"
        help = "lower `batch` or the image size"
    elif isinstance(fault, MemoryError) or (isinstance(fault, RuntimeError) and "allocate memory" in text):
        code, text = "DET0714", "not enough memory"
        help = "lower `batch`, the image size or `workers`"
    elif isinstance(fault, OSError) and (fault.strerror or fault.args):
        code = "DET0712" if fault.errno in FULL else "DET0903"
        place = f"{fault.filename}: " if fault.filename else ""
        text = f"{place}{fault.strerror or fault}"
    elif isinstance(fault, RuntimeError) and "home directory" in text:  # of `~name/…`, raised by pathlib
        code, text = "DET0903", "there is no such user to take `~` for"
    elif isinstance(fault, ImportError) and fault.name and not fault.name.startswith("detc"):
        help = f"install it with `pip install {fault.name.split('.')[0]}`"
    elif isinstance(fault, ValueError) and _raised_by_detc(fault):
        code = getattr(fault, "code", code)
    else:
        return None
    return [Diagnostic(code, "error", text, help=help)]


def _raised_by_detc(fault: BaseException) -> bool:
    """True if the `raise` stands in detc's own code, where a ValueError is the user's to mend."""
    if type(fault).__module__.startswith("detc."):
        return True
    frame = fault.__traceback__
    while frame is not None and frame.tb_next is not None:
        frame = frame.tb_next
    return frame is not None and str(frame.tb_frame.f_globals.get("__name__", "")).startswith("detc.")
