"""Text files of data sets: lists of images, names of classes."""

from __future__ import annotations

from pathlib import Path

from detc.dsl.diagnostics import error


def read_text(path: Path, what: str) -> str:
    """The text of `path`, in UTF-8, with or without a byte-order mark.

    Raises:
        DetError: DET0903 if it cannot be read; `what` says what it should have been.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise error("DET0903", f"{path}: no such {what}") from None
    except OSError as fault:
        raise error("DET0903", f"{path}: no {what} ({fault.strerror or fault})") from None
    except UnicodeDecodeError:
        raise error("DET0903", f"{path}: no {what}: it is not text in UTF-8") from None
