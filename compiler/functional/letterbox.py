"""Pre- and post-processing inside deployed graphs: letterbox in, boxes back out.

Shapes: B images, C channels, H x W the camera's size, h x w the network's, K detections.
"""

from __future__ import annotations

import torch
from torch import Tensor


def _axis(size_in: Tensor, size_fit: Tensor, length: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Source indices and weights of bilinear resampling along one axis, half-pixel centres, no antialiasing.

    Equals `interpolate(mode="bilinear", align_corners=False)` from `size_in` to `size_fit` samples, on a fixed
    number `length` of outputs of which the first `size_fit` count.
    """
    out = torch.arange(length, device=size_in.device)
    scale = size_in.to(torch.float32) / size_fit.to(torch.float32)
    at = ((out + 0.5) * scale - 0.5).clamp(min=0.0)
    last = size_in - 1
    low = torch.minimum(at.floor().to(torch.int64), last)
    high = torch.minimum(low + 1, last)
    return low, high, at - low.to(at.dtype), out < size_fit


def fitted(height: Tensor, width: Tensor, box: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Sides (int64 scalars) of the largest image of shape `height` x `width` inside `box` (height, width).

    Integer arithmetic, so that every back end rounds alike: half up, at least 1.
    """
    box_h, box_w = box
    wide = width * box_h >= height * box_w
    by_width = torch.div(2 * height * box_w + width, 2 * width, rounding_mode="floor")
    by_height = torch.div(2 * width * box_h + height, 2 * height, rounding_mode="floor")
    fit_h = torch.where(wide, by_width, torch.full_like(by_width, box_h))
    fit_w = torch.where(wide, torch.full_like(by_height, box_w), by_height)
    return fit_h.clamp(1, box_h), fit_w.clamp(1, box_w)


def _sides(image_BCHW: Tensor) -> tuple[Tensor, Tensor]:
    h, w = image_BCHW.shape[-2:]
    device = image_BCHW.device
    height = torch.full((), h, dtype=torch.int64, device=device)
    return height, torch.full((), w, dtype=torch.int64, device=device)


def letterbox(
    image_BCHW: Tensor, box: tuple[int, int], fill: float | list[float], stretch: bool = False
) -> tuple[Tensor, Tensor]:
    """Scale images into `box` (height, width), keeping their shape, and pad right and below with `fill`.

    Args:
        image_BCHW: uint8 or float, 0..255, any size (the same for the whole batch).
        box: the network's input size.
        fill: one number, or one a channel.
        stretch: fill the whole box instead of keeping the shape.

    Returns:
        float32 pixels [B, C, h, w] and the content's (height, width), int64 [2].
    """
    height, width = _sides(image_BCHW)
    if stretch:
        fit_h, fit_w = torch.full_like(height, box[0]), torch.full_like(width, box[1])
    else:
        fit_h, fit_w = fitted(height, width, box)
    y0, y1, wy, in_y = _axis(height, fit_h, box[0])
    x0, x1, wx, in_x = _axis(width, fit_w, box[1])
    top = image_BCHW.index_select(-2, y0).to(torch.float32)
    bottom = image_BCHW.index_select(-2, y1).to(torch.float32)
    rows = top + (bottom - top) * wy[:, None]
    left, right = rows.index_select(-1, x0), rows.index_select(-1, x1)
    pixels = left + (right - left) * wx
    inside = in_y[:, None] & in_x[None, :]
    padding = torch.tensor(fill, dtype=pixels.dtype, device=pixels.device).reshape(1, -1, 1, 1)
    return torch.where(inside, pixels, padding), torch.stack([fit_h, fit_w])


def pad_to(image_BCHW: Tensor, align: int, fill: float | list[float]) -> tuple[Tensor, Tensor]:
    """Pad right and below to multiples of `align`; for graphs of dynamic size.

    Returns:
        float32 pixels [B, C, h, w] and the content's (height, width), int64 [2].
    """
    h, w = image_BCHW.shape[-2:]
    # multiples of a whole number: of those the shapes of all strides follow without a remainder
    below, right = (h + align - 1) // align * align - h, (w + align - 1) // align * align - w
    height, width = _sides(image_BCHW)
    pixels = image_BCHW.to(torch.float32)
    offset = torch.tensor(fill, dtype=pixels.dtype, device=pixels.device).reshape(1, -1, 1, 1)
    pixels = torch.nn.functional.pad(pixels - offset, (0, right, 0, below)) + offset
    return pixels, torch.stack([height, width])


def content_size(pixels_BCHW: Tensor, fit_2: Tensor) -> Tensor:
    """The content's (height, width) of every image of a batch: float32 [B, 2]."""
    return fit_2.to(torch.float32).expand(pixels_BCHW.shape[0], 2)


def map_to_image(map_Bhw: Tensor, image_BCHW: Tensor, fit_2: Tensor) -> Tensor:
    """Numbers of pixels [B, h, w] from the network's input to the original image: [B, H, W], by the nearest."""
    height, width = image_BCHW.shape[-2:]
    for axis, size in ((0, height), (1, width)):
        at = (torch.arange(size, device=map_Bhw.device) + 0.5) * (fit_2[axis].to(torch.float32) / size)
        index = torch.minimum(at.to(torch.int64), fit_2[axis] - 1)
        map_Bhw = map_Bhw.index_select(axis + 1, index)
    return map_Bhw


def unletterbox(boxes_BK4: Tensor, image_BCHW: Tensor, fit_2: Tensor) -> Tensor:
    """Boxes from the network's pixels back to the original image's.

    Whether boxes end at the border is the model's affair; those that do end exactly there.
    """
    height, width = _sides(image_BCHW)
    size, fit = torch.stack([height, width]).to(torch.float32), fit_2.to(torch.float32)
    border, limit = (torch.stack([x[1], x[0], x[1], x[0]]) for x in (fit, size))
    return torch.where(boxes_BK4 == border, limit, boxes_BK4 * (limit / border))
