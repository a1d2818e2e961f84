"""Annotated pictures: boxes, masks and labels that stay readable on any image.

A class has the same colour in every picture. Lines and text grow with the image; a label avoids the labels
that are already there, and its text is black or white, whichever contrasts more.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from detc.runtime.images import to_rgb

if TYPE_CHECKING:
    from PIL import Image, ImageDraw, ImageFont

    from detc.runtime.results import Detections

Color = tuple[int, int, int]
Rect = tuple[float, float, float, float]  # x1, y1, x2, y2
GOLDEN_ANGLE = 137.50776  # successive hues lie as far apart as possible
SUPERSAMPLE = 3  # label tags are drawn larger and shrunk: round corners without steps


def class_color(index: int) -> Color:
    """The RGB colour of class `index`: hues by the golden angle, three steps of lightness.

    Computed in OKLCH (Ottosson 2020, "A perceptual color space for image processing"), so that no class is
    much darker or duller than another.
    """
    lightness = (0.74, 0.62, 0.84)[(index // 9) % 3]
    return oklch(lightness, 0.19, 25.0 + index * GOLDEN_ANGLE)


def oklch(lightness: float, chroma: float, hue: float) -> Color:
    """RGB of an OKLCH colour (`hue` in degrees); chroma is lowered until the colour exists in sRGB."""
    while True:
        a, b = chroma * math.cos(math.radians(hue)), chroma * math.sin(math.radians(hue))
        root_l = lightness + 0.3963377774 * a + 0.2158037573 * b
        root_m = lightness - 0.1055613458 * a - 0.0638541728 * b
        root_s = lightness - 0.0894841775 * a - 1.2914855480 * b
        l, m, s = root_l**3, root_m**3, root_s**3
        linear = (
            4.0767416621 * l - 3.3077115913 * m + 0.2309699292 * s,
            -1.2684380046 * l + 2.6097574011 * m - 0.3413193965 * s,
            -0.0041960863 * l - 0.7034186147 * m + 1.7076147010 * s,
        )
        if chroma < 0.01 or all(-1e-3 <= v <= 1.001 for v in linear):
            r, g, b8 = (round(255 * _gamma(min(max(v, 0.0), 1.0))) for v in linear)
            return (r, g, b8)
        chroma *= 0.95


def _gamma(linear: float) -> float:
    return 12.92 * linear if linear <= 0.0031308 else 1.055 * linear ** (1 / 2.4) - 0.055


def text_color(background: Color) -> Color:
    """Black or white, whichever has the higher WCAG 2 contrast ratio on `background`."""
    linear = [
        v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in (c / 255 for c in background)
    ]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    on_white, on_black = 1.05 / (luminance + 0.05), (luminance + 0.05) / 0.05
    return (255, 255, 255) if on_white > on_black else (0, 0, 0)


@dataclass(frozen=True)
class Style:
    """Sizes in pixels, derived from the image."""

    line: int
    font: int
    pad: int

    @staticmethod
    def of(width: int, height: int, line: int | None = None, font: int | None = None) -> Style:
        """Readable sizes for an image of this size; `line` and `font` override them."""
        reference = math.sqrt(width * height)
        line = max(1, round(reference / 320)) if line is None else line
        font = max(11, min(48, round(reference / 42))) if font is None else font
        return Style(line, font, max(2, round(font * 0.28)))


def draw(
    image: Any,
    detections: Detections,
    *,
    score: float = 0.3,
    labels: bool = True,
    scores: bool = True,
    line: int | None = None,
    font: int | None = None,
    alpha: float = 0.45,
    zoom: int = 1,
) -> Image.Image:
    """Draw detections on a copy of an image.

    Args:
        image: path, array, tensor or PIL image.
        detections: what to draw, in the image's pixels.
        score: leave out what scores lower.
        labels: write class names.
        scores: write scores behind the names.
        line: line width in pixels; by default grows with the image.
        font: text height in pixels; by default grows with the image.
        alpha: opacity of masks, 0 to 1.
        zoom: enlarge the picture first, so that labels leave room on a small one.

    Returns:
        A PIL image, RGB, `zoom` times as large as the image.
    """
    from PIL import Image, ImageDraw

    pixels = to_rgb(image)
    shown = detections.filter(score)
    if zoom != 1:
        pixels, shown = _enlarged(pixels, shown, zoom)
    height, width = pixels.shape[:2]
    style = Style.of(width, height, line, font)
    if shown.masks is not None or shown.segments is not None:
        pixels = _blend_masks(pixels, shown, alpha)
    canvas = Image.fromarray(pixels)
    pen = ImageDraw.Draw(canvas)
    order = np.argsort(shown.scores, kind="stable")  # the best is drawn last, on top
    for i in order if shown.segments is None else ():
        _outline(
            pen, tuple(shown.boxes[i].tolist()), class_color(int(shown.labels[i])), style, (width, height)
        )
    if labels:
        taken: list[Rect] = []
        for i in order[::-1]:  # the best chooses its place first
            text = shown.class_name(int(shown.labels[i]))
            text += f" {shown.scores[i]:.2f}" if scores else ""
            place = tuple(shown.boxes[i].tolist()) if shown.segments is None else _middle(shown, int(i))
            _label(canvas, place, text, class_color(int(shown.labels[i])), style, taken)
    return canvas


def _enlarged(
    pixels: np.ndarray[Any, Any], shown: Detections, zoom: int
) -> tuple[np.ndarray[Any, Any], Detections]:
    from PIL import Image

    height, width = (zoom * n for n in pixels.shape[:2])
    large = Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC)
    masks = None if shown.masks is None else shown.masks.repeat(zoom, axis=1).repeat(zoom, axis=2)
    segments = None if shown.segments is None else shown.segments.repeat(zoom, axis=0).repeat(zoom, axis=1)
    scaled = replace(shown, boxes=shown.boxes * zoom, masks=masks, segments=segments, size=(height, width))
    return np.asarray(large), scaled


def _blend_masks(pixels: np.ndarray[Any, Any], shown: Detections, alpha: float) -> np.ndarray[Any, Any]:
    blended = pixels.astype(np.float32)
    for i in np.argsort(shown.scores, kind="stable"):
        inside = shown.mask(int(i))
        assert inside is not None
        if inside.shape != pixels.shape[:2]:
            raise ValueError(f"a mask of {inside.shape} does not fit an image of {pixels.shape[:2]}")
        color = np.asarray(class_color(int(shown.labels[i])), np.float32)
        blended[inside] = blended[inside] * (1 - alpha) + color * alpha
        blended[_border(inside)] = color
    return blended.round().astype(np.uint8)


def _middle(shown: Detections, index: int) -> Rect:
    """A small square in the thickest part of a segment, for its label."""
    mask = shown.mask(index)
    assert mask is not None
    step = max(1, max(mask.shape) // 128)  # as fine as a label needs
    left = np.pad(mask[::step, ::step], 1)
    depth = np.zeros(left.shape, np.int32)
    while left.any():
        depth += left
        left[1:-1, 1:-1] &= left[:-2, 1:-1] & left[2:, 1:-1] & left[1:-1, :-2] & left[1:-1, 2:]
    y, x = np.unravel_index(depth.argmax(), depth.shape)
    return (step * (x - 1.0), step * (y - 1.0), step * (x - 1.0) + 1, step * (y - 1.0) + 1)


def _border(mask: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Pixels of the mask with a 4-neighbour outside of it."""
    padded = np.pad(mask, 1)
    core = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return mask & ~core


def _outline(pen: ImageDraw.ImageDraw, box: Rect, color: Color, style: Style, size: tuple[int, int]) -> None:
    """A coloured frame with a dark hairline around it, so that it shows on a background of its own colour."""
    x1, y1, x2, y2 = _on_canvas(box, size)
    if x2 < x1 or y2 < y1:
        return
    pen.rectangle((x1 - 1, y1 - 1, x2 + 1, y2 + 1), outline=tuple(c // 4 for c in color))
    pen.rectangle((x1, y1, x2, y2), outline=color, width=style.line)


def _on_canvas(box: Rect, size: tuple[int, int]) -> Rect:
    """Pixel columns and rows covered by `box` (x2 and y2 are exclusive borders), cut at the image."""
    x1, y1, x2, y2 = box
    return (max(round(x1), 0), max(round(y1), 0), min(round(x2), size[0]) - 1, min(round(y2), size[1]) - 1)


def _label(canvas: Image.Image, box: Rect, text: str, color: Color, style: Style, taken: list[Rect]) -> None:
    tag = _tag(text, color, style)
    width, height = tag.size
    x, y = _place(box, (width, height), canvas.size, taken)
    taken.append((x, y, x + width, y + height))
    canvas.paste(tag, (int(x), int(y)), tag)


def _place(
    box: Rect, tag: tuple[int, int], canvas: tuple[int, int], taken: Sequence[Rect]
) -> tuple[float, float]:
    """The first free place of: above, inside at the top, below, inside at the bottom; else the best."""
    x1, y1, x2, y2 = (round(v) for v in box)
    width, height = tag
    left, right = x1, x2 - width
    best, least = (0.0, 0.0), math.inf
    for x, y in (
        (left, y1 - height), (left, y1), (right, y1 - height), (left, y2), (left, y2 - height), (right, y2),
    ):  # fmt: skip
        inside = min(max(x, 0), max(canvas[0] - width, 0)), min(max(y, 0), max(canvas[1] - height, 0))
        moved = abs(inside[0] - x) + abs(inside[1] - y)
        covered = sum(_overlap((*inside, inside[0] + width, inside[1] + height), other) for other in taken)
        # leaving its place at the border of the image is better than hiding another label, yet not free
        cost = covered + 0.1 * moved
        if cost < least:
            best, least = inside, cost
        if cost == 0:
            break
    return best


def _overlap(a: Rect, b: Rect) -> float:
    return max(min(a[2], b[2]) - max(a[0], b[0]), 0) * max(min(a[3], b[3]) - max(a[1], b[1]), 0)


@lru_cache(maxsize=512)
def _tag(text: str, color: Color, style: Style) -> Image.Image:
    """A rounded tag with `text`, as an RGBA image."""
    from PIL import Image, ImageDraw

    k = SUPERSAMPLE
    font = load_font(style.font * k)
    left, top, right, bottom = font.getbbox(text)
    ascent, descent = font.getmetrics()
    del top, bottom  # tags of one size have one height, whatever their letters
    pad = style.pad * k
    size = (round(right - left) + 2 * pad, ascent + descent + pad)
    image = Image.new("RGBA", size, (*color, 0))
    pen = ImageDraw.Draw(image)
    pen.rounded_rectangle((0, 0, size[0] - 1, size[1] - 1), radius=pad, fill=(*color, 235))
    pen.text((pad - left, pad / 2), text, font=font, fill=(*text_color(color), 255))
    return image.resize((max(size[0] // k, 1), max(size[1] // k, 1)), Image.Resampling.LANCZOS)


@lru_cache(maxsize=32)
def load_font(size: int) -> ImageFont.FreeTypeFont:
    """DejaVu Sans (it comes with matplotlib and knows most alphabets) at `size` pixels."""
    from pathlib import Path

    import matplotlib
    from PIL import ImageFont

    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts/ttf/DejaVuSans.ttf"), size)


def grid(
    images: Sequence[Image.Image],
    captions: Sequence[str] | None = None,
    *,
    columns: int | None = None,
    cell: int = 480,
    gap: int = 12,
) -> Image.Image:
    """A contact sheet: every image fitted into a square cell of `cell` pixels, captions below.

    Raises:
        ValueError: if there is no image, or not one caption for each.
    """
    from PIL import Image, ImageDraw, ImageOps

    if not images:
        raise ValueError("a grid needs at least one image")
    if captions is not None and len(captions) != len(images):
        raise ValueError(f"{len(captions)} captions for {len(images)} images")
    columns = columns or math.ceil(math.sqrt(len(images)))
    rows = math.ceil(len(images) / columns)
    text_height = round(cell / 18) if captions else 0
    step_x, step_y = cell + gap, cell + gap + (text_height + gap // 2 if captions else 0)
    sheet = Image.new("RGB", (columns * step_x + gap, rows * step_y + gap), (250, 250, 250))
    pen = ImageDraw.Draw(sheet)
    for i, image in enumerate(images):
        x, y = gap + (i % columns) * step_x, gap + (i // columns) * step_y
        small = ImageOps.contain(image.convert("RGB"), (cell, cell), Image.Resampling.LANCZOS)
        sheet.paste(small, (x + (cell - small.width) // 2, y + (cell - small.height) // 2))
        if captions:
            font = load_font(text_height)
            pen.text(
                (x + cell / 2, y + cell + gap / 3), captions[i], font=font, fill=(40, 40, 40), anchor="ma"
            )
    return sheet
