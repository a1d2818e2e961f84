"""Image files and pixel arithmetic on uint8 tensors [3, H, W] (any strides), RGB."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F

from detc.runtime.images import ImageError, read_image

if TYPE_CHECKING:
    from collections.abc import Sequence

JPEG = b"\xff\xd8\xff"


def load_pixels(path: str, declared: tuple[int, int] | None = None) -> torch.Tensor:
    """Decode a file to uint8 [3, H, W] RGB.

    An EXIF turn is applied, unless the annotations' `declared` (width, height) is that of the file without
    it: annotations are right about the frame that they were drawn in.

    Raises:
        ImageError: if the file cannot be decoded or has another size than declared.
    """
    try:
        with open(path, "rb") as file:
            raw = file.read()
    except OSError as fault:
        reason = "no such file" if isinstance(fault, FileNotFoundError) else f"cannot be read ({fault})"
        raise ImageError(path, reason) from None
    if not raw:
        raise ImageError(path, "the file is empty")
    image = _decode_jpeg(raw, turn=True) if raw[:3] == JPEG else None
    if image is None:
        image = torch.from_numpy(read_image(path)).permute(2, 0, 1)
    if declared is None or declared == (image.shape[2], image.shape[1]):
        return image
    if declared == (image.shape[1], image.shape[2]) and raw[:3] == JPEG:
        unturned = _decode_jpeg(raw, turn=False)
        if unturned is not None and declared == (unturned.shape[2], unturned.shape[1]):
            return unturned
    raise ImageError(
        path, f"is {image.shape[2]}x{image.shape[1]}, its annotation says {declared[0]}x{declared[1]}"
    )


def _decode_jpeg(raw: bytes, *, turn: bool) -> torch.Tensor | None:
    """None where this decoder gives up (odd colour spaces, broken files): Pillow then has the last word."""
    decode = _decoder()
    if decode is None:
        return None
    data = torch.frombuffer(bytearray(raw), dtype=torch.uint8)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            image: torch.Tensor = decode(data, mode="RGB", apply_exif_orientation=turn)
            return image
    except RuntimeError:
        return None


@cache
def _decoder() -> Callable[..., torch.Tensor] | None:
    """torchvision's JPEG decoder: Pillow's pixels, 1.5 times as fast; later releases may drop it."""
    try:
        from torchvision.io import decode_jpeg
    except ImportError:
        return None
    return decode_jpeg  # type: ignore[no-any-return]


def resize(image: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Bilinear, half-pixel centres, no antialiasing: what a deployed graph does. Keeps dtype and strides.

    On float input it is `F.interpolate(…, align_corners=False)` itself; on uint8 input its result is within
    one of that, rounded.
    """
    if tuple(image.shape[1:]) == (height, width):
        return image
    if image.dtype == torch.uint8 and image.is_contiguous():
        image = image.permute(1, 2, 0).contiguous().permute(2, 0, 1)  # three times as fast interleaved
    return F.interpolate(image[None], size=(height, width), mode="bilinear", align_corners=False)[0]


def flip(image: torch.Tensor, horizontal: bool) -> torch.Tensor:
    """Mirrored copy; planar memory makes it fast."""
    return image.contiguous().flip(2 if horizontal else 1)


def canvas(height: int, width: int, fill: Sequence[float] | float, like: torch.Tensor) -> torch.Tensor:
    """[3, height, width] of one colour, of the dtype of `like`."""
    if isinstance(fill, (int, float)):
        return torch.full(
            (3, height, width), round(fill) if like.dtype == torch.uint8 else fill, dtype=like.dtype
        )
    colour = torch.tensor(fill, dtype=torch.float32)
    colour = colour.round() if like.dtype == torch.uint8 else colour
    return colour.to(like.dtype)[:, None, None].repeat(1, height, width)


def pad(image: torch.Tensor, height: int, width: int, fill: Sequence[float] | float) -> torch.Tensor:
    """Enlarge to the right and the bottom."""
    if tuple(image.shape[1:]) == (height, width):
        return image
    out = canvas(height, width, fill, image)
    out[:, : image.shape[1], : image.shape[2]] = image
    return out


def warp(image: torch.Tensor, matrix: np.ndarray, height: int, width: int, fill: float) -> torch.Tensor:
    """Affine map, bilinear. `matrix` [3, 3] maps old pixel coordinates (edges at integers) to new ones."""
    from PIL import Image

    inverse = np.linalg.inv(matrix)
    picture = Image.fromarray(image.permute(1, 2, 0).contiguous().numpy())
    colour = (round(fill),) * 3
    turned = picture.transform(
        (width, height),
        Image.Transform.AFFINE,
        tuple(inverse[:2].reshape(-1)),
        resample=Image.Resampling.BILINEAR,
        fillcolor=colour,
    )
    return torch.from_numpy(np.array(turned)).permute(2, 0, 1)


def blend(a: torch.Tensor, b: torch.Tensor, share: float = 0.5) -> torch.Tensor:
    """`share * a + (1 - share) * b`, uint8, rounded."""
    if share == 0.5:
        return ((a.to(torch.int16) + b + 1) >> 1).to(torch.uint8)
    return torch.lerp(b.float(), a.float(), share).round_().to(torch.uint8)


def blur(image: torch.Tensor, sigma: float) -> torch.Tensor:
    """Gaussian blur with reflected borders."""
    radius = max(1, int(3 * sigma + 0.5))
    radius = min(radius, image.shape[1] - 1, image.shape[2] - 1)
    offsets = torch.arange(-radius, radius + 1, dtype=torch.float32)
    kernel = torch.exp(-(offsets**2) / (2 * sigma**2))
    kernel = (kernel / kernel.sum()).expand(3, 1, -1)
    x = F.pad(image.float()[None], (radius,) * 4, mode="reflect")
    x = F.conv2d(x, kernel[:, :, None, :], groups=3)
    return F.conv2d(x, kernel[:, :, :, None], groups=3)[0].round_().to(torch.uint8)
