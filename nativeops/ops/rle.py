"""``detc::rle_encode`` and ``detc::rle_decode``, and COCO's compressed form of the runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from detc.nativeops.ops._common import check, check_device
from detc.nativeops.reference.rle import rle_decode as decode_reference
from detc.nativeops.reference.rle import rle_encode as encode_reference
from detc.nativeops.registry import native_op

_encode = native_op(
    "rle_encode(Tensor masks, int capacity) -> (Tensor, Tensor)",
    reference=encode_reference,
    fake=lambda masks, capacity: (
        masks.new_empty((masks.shape[0], capacity), dtype=torch.int32),
        masks.new_empty((masks.shape[0],), dtype=torch.int64),
    ),
)
_decode = native_op(
    "rle_decode(Tensor runs, Tensor lengths, int height, int width) -> Tensor",
    reference=decode_reference,
    fake=lambda runs, lengths, height, width: runs.new_empty(
        (runs.shape[0], height, width), dtype=torch.bool
    ),
)


def rle_encode(masks_NHW: torch.Tensor, *, capacity: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Runs ``[N, capacity]`` (int32) of bitmaps and their number ``[N]`` (int64), as COCO counts them.

    Runs go down the columns and start with zeros (possibly none of them). Shapes are static: a mask with
    more than ``capacity`` runs reports its true number and keeps the first; unused entries are 0.

    Args:
        masks_NHW: bool, or any dtype of which non-zero values are set. Below 2^31 pixels a mask.

    Raises:
        ValueError: another number of axes, a negative capacity, or a mask of too many pixels.
    """
    check("rle_encode", "masks", masks_NHW, "[N, H, W]")
    if capacity < 0:
        raise ValueError(f"rle_encode: capacity must not be negative: {capacity}")
    _check_pixels("rle_encode", masks_NHW.shape[1], masks_NHW.shape[2])
    if masks_NHW.dtype != torch.bool:
        masks_NHW = masks_NHW != 0
    return _encode(masks_NHW, capacity)


def rle_decode(runs_NR: torch.Tensor, lengths_N: torch.Tensor, *, height: int, width: int) -> torch.Tensor:
    """Bitmaps ``[N, H, W]`` (bool) of runs as :func:`rle_encode` gives them.

    Pixels behind the last run are unset, runs behind the last pixel are ignored, negative runs count as 0.

    Raises:
        ValueError: shapes or devices that do not fit, a negative size, or a mask of too many pixels.
    """
    check("rle_decode", "runs", runs_NR, "[N, R]")
    if lengths_N.shape != runs_NR.shape[:1]:
        raise ValueError(
            f"rle_decode: lengths must be [N] for runs {tuple(runs_NR.shape)}, got {tuple(lengths_N.shape)}"
        )
    if height < 0 or width < 0:
        raise ValueError(f"rle_decode: the size must not be negative: {height} x {width}")
    _check_pixels("rle_decode", height, width)
    check_device("rle_decode", runs_NR, lengths_N)
    return _decode(runs_NR.to(torch.int32), lengths_N.to(torch.int64), height, width)


def _check_pixels(op: str, height: int, width: int) -> None:
    if height * width >= 2**31:
        raise ValueError(f"{op}: a mask must have fewer than 2^31 pixels, got {height} x {width}")


def masks_to_coco(masks_NHW: torch.Tensor) -> list[dict[str, Any]]:
    """Bitmaps as COCO's compressed RLE: ``{"size": [H, W], "counts": bytes}``, equal to pycocotools'
    ``encode``.

    Copies the runs to the host, so it is for results, not for graphs.
    """
    height, width = masks_NHW.shape[1:]
    # Most objects cross a column twice; whoever has more runs is encoded again.
    runs, lengths = rle_encode(masks_NHW, capacity=4 * width + 2)
    most = int(lengths.max()) if len(lengths) else 0
    if most > runs.shape[1]:
        runs, lengths = rle_encode(masks_NHW, capacity=most)
    rows = zip(runs.cpu().numpy(), lengths.tolist(), strict=True)
    return [{"size": [height, width], "counts": _compress(row[:length])} for row, length in rows]


def coco_to_masks(rles: Sequence[dict[str, Any]], device: torch.device | str = "cpu") -> torch.Tensor:
    """The reverse: ``[N, H, W]`` (bool) of COCO RLEs, compressed (bytes or str) or not (a list of counts).

    Raises:
        ValueError: the masks differ in size, or there is none (so no size is known).
    """
    sizes = {tuple(rle["size"]) for rle in rles}
    if len(sizes) != 1:
        raise ValueError(f"expected RLEs of one size, got {sorted(sizes)}")
    height, width = sizes.pop()
    counts = [_decompress(c) if isinstance(c := rle["counts"], (bytes, str)) else list(c) for rle in rles]
    runs = torch.zeros((len(counts), max(map(len, counts))), dtype=torch.int32)
    for row, values in zip(runs, counts, strict=True):
        row[: len(values)] = torch.tensor(values, dtype=torch.int32)
    lengths = torch.tensor([len(values) for values in counts])
    return rle_decode(runs.to(device), lengths.to(device), height=height, width=width)


def _compress(runs: Any) -> bytes:
    """COCO's text form: from the third run on the difference to the run before the last, 5 bits a
    character."""
    import numpy as np

    values = runs.astype(np.int64)
    values[3:] -= values[1:-2].copy()
    columns = []
    going = np.ones(len(values), dtype=bool)
    while going.any():
        digit = values & 0x1F
        values = values >> 5
        # The sign is bit 4 of the last character, so a value ends where the rest is its sign extension.
        more = going & ~(((digit & 0x10 != 0) & (values == -1)) | ((digit & 0x10 == 0) & (values == 0)))
        columns.append(np.where(going, digit + np.where(more, 0x20, 0) + 48, 0))
        going = more
    if not columns:
        return b""
    text = np.stack(columns, axis=1).astype(np.uint8).reshape(-1)
    return text[text != 0].tobytes()


def _decompress(text: bytes | str) -> list[int]:
    runs: list[int] = []
    value = shift = 0
    for char in text.encode() if isinstance(text, str) else text:
        char -= 48
        value |= (char & 0x1F) << shift
        shift += 5
        if char & 0x20:
            continue
        if char & 0x10:
            value -= 1 << shift
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
        value = shift = 0
    return runs
