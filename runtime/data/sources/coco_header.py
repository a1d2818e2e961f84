"""What a COCO file says of itself, read without numpy: `detc check` asks for its categories."""

from __future__ import annotations

import json
import mmap
from pathlib import Path
from typing import Any

from detc.dsl.diagnostics import DetError, error

KEY = b'"categories"'
WINDOWS = (1 << 16, 1 << 20, 1 << 24)  # bytes: LVIS has 1203 categories with descriptions, COCO 80


def load_json(path: Path) -> dict[str, Any]:
    """The top-level object of a COCO file.

    Raises:
        DetError: DET0903 if it is missing, not JSON, or has no `images`.
    """
    try:
        data = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise error("DET0903", f"{path}: no such annotation file", help=_found_near(path)) from None
    except (OSError, ValueError, RecursionError) as fault:
        raise error("DET0903", f"{path}: not a JSON file ({fault})") from None
    missing = [k for k in ("images", "categories") if not isinstance(data, dict) or k not in data]
    if missing:
        raise error("DET0903", f"{path}: not a COCO file: it has no `{missing[0]}`")
    for key in ("images", "annotations", "categories"):
        if not isinstance(data.get(key, []), list):
            raise error("DET0903", f"{path}: not a COCO file: its `{key}` is not a list")
    return data


def category_names(entries: list[Any], path: Path) -> dict[int, str]:
    """Names by id.

    Raises:
        DetError: DET0903 if an entry has no id or no name, or two names share an id.
    """
    names: dict[int, str] = {}
    for number, one in enumerate(entries):
        try:
            key, name = int(one["id"]), str(one["name"])
        except (KeyError, TypeError, ValueError, OverflowError):
            raise error(
                "DET0903",
                f"{path}: entry {number} of `categories` has no `id` that is a number, or no `name`",
            ) from None
        if names.setdefault(key, name) != name:
            raise error("DET0903", f"{path}: `{names[key]}` and `{name}` are both category {key}")
    return names


def _found_near(path: Path) -> str | None:
    """The annotation files that lie where `path` was expected, or above, and how to name one."""
    for folder in list(path.parents)[:3]:
        if folder.is_dir():
            found = sorted(p.relative_to(folder).as_posix() for p in folder.glob("*.json"))[:4]
            if found:
                set_ = f"--set data.train.ann={found[0]} --set data.train.images=… (and the same for val)"
                return f"{folder} holds {', '.join(found)}: {set_}"
    return None


def read_categories(path: Path) -> dict[int, str]:
    """Category names by id, without parsing the rest of a (large) file.

    Only the array behind a key `"categories"` is decoded, the last one first; the whole file only if there is
    no such array.
    """
    if not path.stat().st_size:
        return category_names(load_json(path)["categories"], path)
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as view:
        at = view.rfind(KEY)
        while at >= 0:
            for window in WINDOWS:
                text = view[at + len(KEY) : at + len(KEY) + window].decode("utf-8", "ignore")
                try:
                    found, _ = json.JSONDecoder().raw_decode(text.lstrip().removeprefix(":").lstrip())
                    if isinstance(found, list):
                        return category_names(found, path)
                except (ValueError, RecursionError, DetError):
                    continue
            at = view.rfind(KEY, 0, at)
    return category_names(load_json(path)["categories"], path)
