"""Drawings: on the right pixels, readable, the same colour for a class everywhere."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from detc.runtime.draw import class_color, draw, grid, load_font, text_color
from detc.runtime.results import Detections


def detections(boxes, labels, **extra) -> Detections:
    names = tuple(f"kind {i}" for i in range(30))
    return Detections(boxes, np.linspace(0.9, 0.5, len(labels)), labels, names, (200, 300), **extra)


def luminance(color):
    linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in (c / 255 for c in color)]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_the_frame_lies_on_the_box():
    grey = np.full((200, 300, 3), 128, np.uint8)
    picture = np.asarray(draw(grey, detections([[40, 60, 140, 160]], [0]), labels=False))
    color = np.array(class_color(0))
    inside = (picture == color).all(axis=2)
    ys, xs = np.nonzero(inside)
    assert (xs.min(), xs.max() + 1, ys.min(), ys.max() + 1) == (40, 140, 60, 160)
    assert (picture[100, 90] == 128).all(), "the object itself stays visible"
    assert (grey == 128).all(), "the input is not drawn on"


def test_low_scores_are_left_out():
    grey = np.full((200, 300, 3), 128, np.uint8)
    assert np.asarray(draw(grey, detections([[40, 60, 140, 160]], [0]), score=0.95)).std() == 0


def test_boxes_beyond_the_image_do_not_fail():
    grey = np.full((200, 300, 3), 128, np.uint8)
    boxes = [
        [-50, -50, 400, 400],
        [290, 190, 310, 230],
        [-20, -20, -5, -5],
        [10, 10, 10, 10],
        [50, 50, 40, 40],
    ]
    assert draw(grey, detections(boxes, [0, 1, 2, 3, 4])).size == (300, 200)


def test_masks_tint_only_their_pixels():
    grey = np.full((200, 300, 3), 128, np.uint8)
    mask = np.zeros((1, 200, 300), bool)
    mask[0, 70:150, 50:130] = True
    picture = np.asarray(draw(grey, detections([[40, 60, 140, 160]], [0], masks=mask), labels=False))
    assert (picture[100, 90] != 128).any() and (picture[65, 45] == 128).all()
    with pytest.raises(ValueError, match="does not fit"):
        draw(np.zeros((100, 100, 3), np.uint8), detections([[0, 0, 9, 9]], [0], masks=mask))


def test_labels_of_one_spot_do_not_hide_each_other():
    from detc.runtime.draw import _overlap, _place

    taken = []
    for _ in range(4):
        x, y = _place((100, 80, 180, 140), (60, 14), (300, 200), taken)
        taken.append((x, y, x + 60, y + 14))
    overlaps = [_overlap(a, b) for i, a in enumerate(taken) for b in taken[:i]]
    assert max(overlaps) == 0
    assert all(0 <= x1 and x2 <= 300 and 0 <= y1 and y2 <= 200 for x1, y1, x2, y2 in taken)


def test_colors_differ_and_text_is_readable():
    colors = [class_color(i) for i in range(27)]
    assert len(set(colors)) == 27
    near = [np.abs(np.subtract(colors[i], colors[i + 1])).sum() for i in range(26)]
    assert min(near) > 60, "neighbours are told apart at a glance"
    for color in colors:
        bright, dark = sorted([luminance(color), luminance(text_color(color))], reverse=True)
        assert (bright + 0.05) / (dark + 0.05) >= 4.5, f"WCAG AA on {color}"


def test_font_knows_more_than_ascii():
    assert load_font(20).getmask("Größe é ж λ").getbbox() is not None


def test_grid():
    images = [Image.new("RGB", (300, 200), c) for c in ("red", "green", "blue")]
    sheet = grid(images, ["one", "two", "three"], columns=2, cell=100, gap=10)
    assert sheet.width == 230 and sheet.getpixel((60, 60)) == (255, 0, 0)
    with pytest.raises(ValueError, match="2 captions for 3 images"):
        grid(images, ["a", "b"])
    with pytest.raises(ValueError, match="at least one"):
        grid([])


def test_zoom_enlarges_boxes_and_masks_too():
    grey = np.full((200, 300, 3), 128, np.uint8)
    mask = np.zeros((1, 200, 300), bool)
    mask[0, 70:150, 50:130] = True
    found = detections([[40, 60, 140, 160]], [0], masks=mask)
    picture = draw(grey, found, labels=False, zoom=2, line=1)
    assert picture.size == (600, 400)
    color = (np.asarray(picture) == np.array(class_color(0))).all(axis=2)
    assert color[120, 100] and color[140:300, 100].any() and not color[118, 100]
