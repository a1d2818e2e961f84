"""Where the weights of a `from "…"` are: a local file, `--weights-dir`, or the ecosystem's own caches.

=======================================  =========================================================
`"torchvision/resnet50"`, `…/v2`         torchvision's weights, in torch.hub's cache; v1 unless said
`"timm/resnet50.a1_in1k"`                timm's weights, in the Hugging Face cache
`"hf/owner/repo"`, `"hf/owner/repo/f"`   any Hugging Face repository's safetensors, in its cache
`"./w.pt"`, `"w.safetensors"`            a file: beside the spec, in the working folder, in `--weights-dir`
`"rtmdet_l_coco"`                        a file whose name begins so, in `--weights-dir` or torch.hub's cache
=======================================  =========================================================

What is in no cache is fetched by the library that owns the source, unless `DETC_OFFLINE=1` (or the Hugging
Face hub's own `HF_HUB_OFFLINE=1`); if that fails, DET0901 names both ways out.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from detc.dsl.diagnostics import DetError, did_you_mean, error
from detc.dsl.source import Origin

SUFFIXES = (".safetensors", ".pt", ".pth", ".pth.tar", ".ckpt", ".bin")
_FETCH_SECONDS = 20.0


@dataclass(frozen=True)
class Convention:
    """The input that weights were trained on: channel order, mean and standard deviation of 0..255 pixels."""

    order: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


IMAGENET_RGB = Convention("rgb", (123.675, 116.28, 103.53), (58.395, 57.12, 57.375))
CAFFE_BGR = Convention("bgr", (103.53, 116.28, 123.675), (1.0, 1.0, 1.0))


def convention_of(source: str) -> Convention | None:
    """What is known of the input that a source's weights expect; None if nothing is."""
    if "caffe" in source:
        return CAFFE_BGR
    return IMAGENET_RGB if source.startswith("torchvision/") else None


def locate(
    source: str,
    *,
    weights_dir: Path | None = None,
    beside: Path | None = None,
    origin: Origin | None = None,
) -> Path:
    """The file that holds the weights of `source`.

    Args:
        source: the text of a `from`.
        weights_dir: the folder given with `--weights-dir`; searched first.
        beside: the folder of the spec.
        origin: the place of the `from`.

    Raises:
        DetError: DET0901 if the weights cannot be had, with the places that were searched.
    """
    kind, _, rest = source.partition("/")
    if kind == "torchvision" and rest:
        names, fetch = _torchvision(rest, source, origin)
    elif kind == "timm" and rest:
        names, fetch = [rest], lambda: _hub(f"timm/{rest}", None)
    elif kind == "hf" and rest.count("/") >= 1:
        owner, repo, *file = rest.split("/", 2)
        names, fetch = [repo, *file], lambda: _hub(f"{owner}/{repo}", file[0] if file else None)
    else:
        return _local(source, weights_dir, beside, origin)
    searched = []
    if weights_dir is not None:
        searched.append(str(weights_dir))
        found = _search(weights_dir, [source, *names])
        if found:
            return found
    try:
        return fetch()
    except _UnavailableError as exc:
        raise _unavailable(source, [*searched, *exc.searched], exc.reason, origin) from exc


class _UnavailableError(Exception):
    def __init__(self, reason: str, searched: Sequence[str]) -> None:
        super().__init__(reason)
        self.reason, self.searched = reason, searched


def _unavailable(source: str, searched: Sequence[str], reason: str, origin: Origin | None) -> DetError:
    return error(
        "DET0901",
        f"the weights `{source}` cannot be had: {reason}",
        origin,
        "asked for here",
        notes=[f"searched {place}" for place in searched],
        help="put the file into a folder and name that with `--weights-dir`, or start with `--init random`",
    )


# --- files -------------------------------------------------------------------------------------


def _local(source: str, weights_dir: Path | None, beside: Path | None, origin: Origin | None) -> Path:
    given = Path(source).expanduser()
    folders = [f for f in (weights_dir, beside, Path()) if f is not None]
    for place in [given] if given.is_absolute() else [f / given for f in folders]:
        if place.is_file():
            return place
    if given.suffix in SUFFIXES or given.is_absolute():
        raise _unavailable(source, [str(f.resolve()) for f in folders], "there is no such file", origin)
    cache = _torch_cache()
    for folder in [*folders, cache]:
        found = _search(folder, [source])
        if found:
            return found
    raise _unavailable(
        source, [*(str(f.resolve()) for f in folders), str(cache)], "no file has that name", origin
    )


def _search(folder: Path, names: Sequence[str]) -> Path | None:
    """A file `name`, `name` + a suffix, or `name-<hash>` / `name_<date>` + a suffix; the first by name."""
    for name in names:
        if (folder / name).is_file():
            return folder / name
        for suffix in SUFFIXES:
            if (folder / f"{name}{suffix}").is_file():
                return folder / f"{name}{suffix}"
        parent = (folder / name).parent
        if parent.is_dir():
            pattern = re.compile(
                re.escape(Path(name).name) + r"[-_][0-9A-Za-z_-]*(" + "|".join(map(re.escape, SUFFIXES)) + ")"
            )
            tagged = sorted(p for p in parent.iterdir() if pattern.fullmatch(p.name))
            if tagged:
                return tagged[0]
    return None


# --- torchvision -------------------------------------------------------------------------------


def _torch_cache() -> Path:
    import torch

    return Path(torch.hub.get_dir()) / "checkpoints"


def _torchvision(rest: str, source: str, origin: Origin | None) -> tuple[list[str], Callable[[], Path]]:
    import torchvision

    name, _, tag = rest.partition("/")
    try:
        versions = {
            str(w.name).rsplit("_", 1)[-1].lower(): w for w in torchvision.models.get_model_weights(name)
        }
    except ValueError as exc:
        hint = did_you_mean(name, torchvision.models.list_models())
        raise error("DET0901", f"torchvision has no model `{name}`{hint}", origin, "asked for here") from exc
    tag = tag or ("v1" if "v1" in versions else next(iter(versions)))
    if tag not in versions:
        have = ", ".join(versions)
        raise error(
            "DET0901",
            f"torchvision's {name} has no weights `{tag}`; there are {have}",
            origin,
            "asked for here",
        )
    url = versions[tag].url
    file = url.rsplit("/", 1)[-1]
    others = {t: w.url.rsplit("/", 1)[-1] for t, w in versions.items() if t != tag}
    return [file, name], lambda: _from_torch_hub(url, file, name, others)


def _from_torch_hub(url: str, file: str, name: str, others: dict[str, str]) -> Path:
    cached = _torch_cache() / file
    if cached.is_file():
        return cached
    notes = [str(cached)]
    notes += [
        f"`torchvision/{name}/{t}` (it is there)" for t, f in others.items() if (_torch_cache() / f).is_file()
    ]
    if offline():
        raise _UnavailableError("not cached, and DETC_OFFLINE is set", notes)
    import socket
    from urllib.error import URLError

    import torch

    hash_prefix = re.search(r"-([a-f0-9]{8,})\.", file)
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_FETCH_SECONDS)
    try:
        cached.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(url, str(cached), hash_prefix[1] if hash_prefix else None)
    except (URLError, OSError, RuntimeError) as exc:
        cause = getattr(exc, "reason", exc)
        raise _UnavailableError(f"not cached, and fetching it failed ({cause})", notes) from exc
    finally:
        socket.setdefaulttimeout(before)
    return cached


# --- Hugging Face (timm) -----------------------------------------------------------------------


def _hub_cache() -> Path:
    home = os.environ.get("HF_HOME") or str(
        Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "huggingface"
    )
    return Path(os.environ.get("HF_HUB_CACHE") or Path(home).expanduser() / "hub")


def _hub(repo: str, file: str | None) -> Path:
    cache = _hub_cache()
    wanted = [file] if file else ["model.safetensors", "pytorch_model.bin"]
    # timm's short names have a default tag: `timm/resnet50` is cached as `timm/resnet50.a1_in1k`.
    exact = cache / ("models--" + repo.replace("/", "--"))
    tagged = sorted(cache.glob(exact.name + ".*")) if repo.startswith("timm/") else []
    for folder in [exact, *tagged]:
        snapshots = (
            [folder / "snapshots" / _main(folder)] if _main(folder) else sorted(folder.glob("snapshots/*"))
        )
        for snapshot in snapshots:
            for name in wanted:
                if (snapshot / name).is_file():
                    return snapshot / name
    notes = [str(exact)]
    if offline():
        raise _UnavailableError("not cached, and the hub is offline", notes)
    try:
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import EntryNotFoundError
    except ImportError as exc:
        raise _UnavailableError(
            "not cached, and `huggingface_hub` is not installed to fetch it", notes
        ) from exc
    reason = ""
    for name in wanted:
        try:
            return Path(hf_hub_download(repo, name, etag_timeout=_FETCH_SECONDS))
        except EntryNotFoundError as exc:
            reason = str(exc).strip().splitlines()[0]
        except Exception as exc:  # the hub's client lets errors of its several HTTP libraries through
            reason = f"{type(exc).__name__}: {(str(exc).strip() or 'no answer').splitlines()[0]}"
            break
    raise _UnavailableError(f"not cached, and fetching it failed ({reason})", notes)


def _main(folder: Path) -> str:
    ref = folder / "refs" / "main"
    return ref.read_text(encoding="utf-8").strip() if ref.is_file() else ""


def offline() -> bool:
    """True if the user forbids fetching."""
    return any(
        os.environ.get(name, "0").lower() in ("1", "true", "yes")
        for name in ("DETC_OFFLINE", "HF_HUB_OFFLINE")
    )
