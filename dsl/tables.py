"""The Lark parser of `grammar.lark`, with its tables kept in the user's cache directory.

Building the tables takes about half a second, loading them about 40 ms.
"""

from __future__ import annotations

import hashlib
import os
import sys
import tempfile
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lark import Lark

GRAMMAR = Path(__file__).resolve().parent.parent / "grammar.lark"
STARTS = ["start", "expression", "path"]


def build(strict: bool = False) -> Lark:
    """Build the parser from the grammar. With `strict` every ambiguity is an error (used in a test)."""
    from lark import Lark

    return Lark(
        GRAMMAR.read_text(encoding="utf-8"),
        parser="lalr",
        lexer="contextual",
        start=STARTS,
        propagate_positions=True,
        maybe_placeholders=False,
        strict=strict,
    )


@cache
def parser() -> Lark:
    """The parser, from the cache when there is one for this grammar and this Lark."""
    path = cache_file()
    loaded = _load(path) if path else None
    if loaded is not None:
        return loaded
    built = build()
    if path:
        _save(built, path)
    return built


def cache_dir() -> Path | None:
    """The user's own cache directory for detc, or None where there is none."""
    if os.environ.get("DETC_CACHE_DIR"):
        return Path(os.environ["DETC_CACHE_DIR"])
    try:
        if sys.platform == "win32":
            root = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
        elif sys.platform == "darwin":
            root = Path.home() / "Library" / "Caches"
        else:
            root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    except RuntimeError:  # no home directory
        return None
    return root / "detc"


def cache_file() -> Path | None:
    """Where the tables of this very grammar, Lark and Python are kept."""
    import lark

    directory = cache_dir()
    if directory is None:
        return None
    version = f"{lark.__version__} {sys.version_info[:2]} {STARTS}"
    key = hashlib.sha256(GRAMMAR.read_bytes() + version.encode()).hexdigest()[:24]
    return directory / f"grammar-{key}.tables"


def _load(path: Path) -> Lark | None:
    """Load the tables; a file that is absent, someone else's or damaged counts as no cache."""
    from lark import Lark

    try:
        if hasattr(os, "getuid") and path.stat().st_uid != os.getuid():
            return None  # the format is a pickle, so only the user's own file is trusted
        with path.open("rb") as file:
            return Lark.load(file)
    except OSError:
        return None
    except Exception:  # a damaged pickle can raise anything; the tables are then built again
        return None


def _save(built: Lark, path: Path) -> None:
    """Write the tables atomically; a directory that cannot be written means no cache."""
    temporary = None
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, suffix=".part")
        with os.fdopen(handle, "wb") as file:
            built.save(file)
        os.replace(temporary, path)
    except OSError:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)
