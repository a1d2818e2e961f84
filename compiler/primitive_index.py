"""Which module defines which primitive, remembered from check to check.

A spec uses a tenth of the primitives, and importing the others takes longer than checking it. The index is made
when everything is imported, kept in the user's cache directory, and holds for exactly the files that it was made
from: their names, sizes and times are its key.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import tempfile
from collections.abc import Iterable, Mapping
from importlib.util import find_spec
from pathlib import Path

from detc.dsl.tables import cache_dir

Index = dict[tuple[str, str], str]  # (module in specs, name) -> Python module


def load(entries: Iterable[str]) -> Index | None:
    """The index for the files of these entry points' modules as they are now, or None."""
    path = _place(entries)
    if path is None:
        return None
    try:
        rows = json.loads(path.read_text())
        return {(str(module), str(name)): str(python) for module, name, python in rows}
    except (OSError, ValueError):  # absent or damaged: made anew
        return None


def save(entries: Iterable[str], index: Mapping[tuple[str, str], str]) -> None:
    """Keep the index; a directory that cannot be written means no cache."""
    path = _place(entries)
    if path is None:
        return
    temporary = None
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, suffix=".part")
        with os.fdopen(handle, "w") as file:
            json.dump([[*key, python] for key, python in sorted(index.items())], file)
        os.replace(temporary, path)
    except OSError:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)


def _place(entries: Iterable[str]) -> Path | None:
    folder = cache_dir()
    if folder is None:
        return None
    state: list[object] = [sys.version_info[:2]]
    for name in entries:
        spec = find_spec(name)
        if spec is None or spec.origin is None:
            return None  # importing it says what is wrong
        origin = Path(spec.origin)
        files = sorted(origin.parent.rglob("*.py")) if origin.name == "__init__.py" else [origin]
        state += [(str(f), s.st_mtime_ns, s.st_size) for f in files for s in [f.stat()]]
    return folder / f"primitives-{hashlib.sha256(repr(state).encode()).hexdigest()[:24]}.json"
