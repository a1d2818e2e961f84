"""From whatever a user calls an image to an RGB array, and from folders and globs to lists of files."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from glob import glob
from pathlib import Path
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".gif"})


class ImageError(ValueError):
    """An image that cannot be used; `name` says which. `code` is that of the diagnostic that shows it."""

    code = "DET0904"

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"{name}: {reason}")
        self.name, self.reason = name, reason


@dataclass(frozen=True)
class Named:
    """An image with the name that messages and output files use."""

    name: str
    source: Any

    def pixels(self) -> Array:
        """uint8 [H, W, 3], RGB.

        Raises:
            ImageError: if it cannot be read or has an unusable shape.
        """
        return to_rgb(self.source, self.name)


def gather(images: Any) -> list[Named]:
    """List the images in paths, folders, globs, arrays, PIL images, tensors, or any mixture of them.

    A folder gives its images in order of their names (not those of its subfolders), as does a pattern such as
    `shots/**/*.jpg`. A 4-D array or tensor is a batch.

    Raises:
        ImageError: if a path does not exist, or a folder or a pattern holds no image.
    """
    return list(_walk(images))


def _walk(images: Any, counter: list[int] | None = None) -> Iterator[Named]:
    counter = [0] if counter is None else counter
    if isinstance(images, str | Path):
        yield from _paths(str(images))
    elif _is_several(images):
        for one in images:
            yield from _walk(one, counter)
    else:
        name = getattr(images, "filename", "") or f"image {counter[0]}"
        counter[0] += 1
        yield Named(str(name), images)


def _is_several(images: Any) -> bool:
    """True for a batch (four axes) and for any collection; False for one array, tensor or PIL image."""
    if hasattr(images, "__array__"):
        return getattr(images, "ndim", 0) == 4
    return isinstance(images, Iterable) and not hasattr(images, "convert")


def _paths(text: str) -> Iterator[Named]:
    path = Path(os.path.expanduser(text))  # Path.expanduser raises where there is no such user
    if not text:
        raise ImageError("''", "no such file or folder")
    if path.is_dir():
        found = sorted(p for p in path.iterdir() if p.suffix.lower() in SUFFIXES and p.is_file())
        if not found:
            raise ImageError(text, f"the folder holds no image ({', '.join(sorted(SUFFIXES))})")
    elif path.exists():
        found = [path]
    elif any(c in text for c in "*?["):
        matches = (Path(p) for p in glob(str(path), recursive=True))
        found = sorted(p for p in matches if p.suffix.lower() in SUFFIXES and p.is_file())
        if not found:
            raise ImageError(text, "no image matches this pattern")
    else:
        raise ImageError(text, "no such file or folder")
    for p in found:
        yield Named(str(p), p)


def to_rgb(image: Any, name: str = "image") -> Array:
    """uint8 [H, W, 3] RGB from a path, PIL image, array or tensor.

    Arrays are [H, W, 3], [H, W, 4] (alpha is dropped) or [H, W], RGB; tensors are [3, H, W] (or [1, H, W]).
    Floating-point values are 0..255, or 0..1 if none is above 1. Of 16 bits (uint16) the upper 8 are taken.

    Raises:
        ImageError: if the file cannot be decoded or the array has another shape.
    """
    if isinstance(image, str | Path):
        return read_image(image)
    if hasattr(image, "convert"):  # PIL
        return _from_pil(image, name)
    if hasattr(image, "detach"):  # torch
        array = image.detach().cpu().numpy()
        if array.ndim == 3 and array.shape[0] in (1, 3, 4):
            array = array.transpose(1, 2, 0)
        elif array.ndim != 2:
            raise ImageError(name, f"a tensor of shape {tuple(array.shape)} is no image; expected [3, H, W]")
    else:
        array = np.asarray(image)
    return _to_uint8(_three_channels(array, name), name)


def _from_pil(image: Any, name: str) -> Array:
    """The pixels of a PIL image; its own conversion cuts off what 16 bits or floating point hold beyond 8."""
    if image.mode.startswith("I;16"):
        deep = np.asarray(image).astype(np.uint16)
    elif image.mode == "F":
        deep = np.asarray(image)
    elif image.mode == "I":
        deep = np.asarray(image)
        if deep.size and deep.max() > 255:
            deep = np.clip(deep, 0, 65535).astype(np.uint16)
    else:
        return np.array(image.convert("RGB"))
    return _to_uint8(_three_channels(deep, name), name)


def _three_channels(array: Array, name: str) -> Array:
    if array.ndim == 2:
        array = array[:, :, None]
    if array.ndim != 3 or array.shape[2] not in (1, 3, 4) or 0 in array.shape:
        raise ImageError(name, f"an array of shape {array.shape} is no image; expected [H, W, 3], RGB")
    return np.repeat(array, 3, axis=2) if array.shape[2] == 1 else array[:, :, :3]


def _to_uint8(array: Array, name: str) -> Array:
    if array.dtype == np.uint8:
        return np.ascontiguousarray(array)
    if array.dtype == np.uint16:
        return np.ascontiguousarray((array >> 8).astype(np.uint8))
    if array.dtype == bool:
        return array.astype(np.uint8) * 255
    if not np.issubdtype(array.dtype, np.number) or np.iscomplexobj(array):
        raise ImageError(name, f"an array of {array.dtype} is no image")
    if not np.isfinite(array).all():
        raise ImageError(name, "the array holds NaN or infinity")
    if np.issubdtype(array.dtype, np.floating) and array.max() <= 1.0:
        array = array * 255.0
    return np.ascontiguousarray(np.clip(np.rint(array), 0, 255).astype(np.uint8))


def read_image(path: str | Path) -> Array:
    """Decode a file to uint8 [H, W, 3] RGB, turned as its EXIF tag says.

    Raises:
        ImageError: if it is missing, not an image, or cut short.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        with warnings.catch_warnings(), Image.open(path) as file:
            warnings.simplefilter("ignore")  # odd tags and the like; what cannot be decoded raises
            return _from_pil(ImageOps.exif_transpose(file), str(path))
    except UnidentifiedImageError:
        raise ImageError(str(path), "not an image, or a format that Pillow cannot read") from None
    except FileNotFoundError:
        raise ImageError(str(path), "no such file") from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as fault:
        raise ImageError(str(path), f"cannot be decoded ({fault})") from None
