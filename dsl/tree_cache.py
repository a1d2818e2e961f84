"""Parsed trees of unchanged files, kept in the user's cache directory.

A check reads some twenty files of the standard library; parsing them takes longer than all else it does. The
key of a tree is its text together with the state of the parser's own files, so a cached tree is always what
parsing would give. Only trees of files without syntax errors are kept.
"""

from __future__ import annotations

import hashlib
import io
import os
import pickle
import sys
import tempfile
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from detc.dsl.tables import GRAMMAR, cache_dir

if TYPE_CHECKING:
    from detc.dsl import ast
    from detc.dsl.diagnostics import Diagnostic
    from detc.dsl.source import Source


def parse_cached(source: Source) -> tuple[ast.File, list[Diagnostic]]:
    """What `detc.dsl.parser.parse` gives, from the cache if this text has been parsed before."""
    path = _place(source.text) if source.path else None
    tree = _load(path, source) if path else None
    if tree is not None:
        return tree, []
    from detc.dsl.parser import parse

    tree, diagnostics = parse(source)
    if path and not diagnostics:
        _save(path, tree, source)
    return tree, diagnostics


@cache
def _parser_state() -> bytes:
    """Changes whenever the grammar, the parser, the tree's classes or Python change."""
    files = [GRAMMAR, *sorted(Path(__file__).parent.glob("*.py"))]
    stats = [(f.name, s.st_mtime_ns, s.st_size) for f in files for s in [f.stat()]]
    return repr((sys.version_info, stats)).encode()


def _place(text: str) -> Path | None:
    folder = cache_dir()
    if folder is None:
        return None
    return folder / "trees" / hashlib.sha256(_parser_state() + text.encode()).hexdigest()[:32]


class _Pickler(pickle.Pickler):
    """Leaves the source out: it is there again when the tree is loaded."""

    def __init__(self, file: io.BytesIO, source: Source) -> None:
        super().__init__(file, protocol=pickle.HIGHEST_PROTOCOL)
        self.source = source

    def persistent_id(self, obj: Any) -> str | None:
        return "source" if obj is self.source else None


class _Unpickler(pickle.Unpickler):
    """Puts the present source in, and makes nothing but trees."""

    def __init__(self, file: io.BytesIO, source: Source) -> None:
        super().__init__(file)
        self.source = source

    def persistent_load(self, pid: str) -> Source:
        return self.source

    def find_class(self, module: str, name: str) -> Any:
        if module not in ("detc.dsl.ast", "detc.dsl.source"):
            raise pickle.UnpicklingError(f"{module}.{name} is no part of a tree")
        return super().find_class(module, name)


def _load(path: Path, source: Source) -> ast.File | None:
    """A file that is absent, someone else's or damaged counts as no cache."""
    try:
        if hasattr(os, "getuid") and path.stat().st_uid != os.getuid():
            return None
        return _Unpickler(io.BytesIO(path.read_bytes()), source).load()
    except OSError:
        return None
    except Exception:  # a damaged pickle can raise anything; the file is then parsed again
        return None


def _save(path: Path, tree: ast.File, source: Source) -> None:
    """Write atomically; a directory that cannot be written means no cache."""
    buffer = io.BytesIO()
    _Pickler(buffer, source).dump(tree)
    temporary = None
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, suffix=".part")
        with os.fdopen(handle, "wb") as file:
            file.write(buffer.getvalue())
        os.replace(temporary, path)
    except OSError:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)
