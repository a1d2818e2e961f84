"""The letterbox in the graph equals torch's own resize."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from detc.compiler.functional.letterbox import letterbox, pad_to, unletterbox


@settings(max_examples=40, deadline=None)
@given(st.integers(16, 90), st.integers(16, 90), st.sampled_from([(64, 64), (32, 96), (96, 64)]))
def test_it_is_interpolate_and_pad(height: int, width: int, box: tuple[int, int]) -> None:
    image = torch.randint(0, 256, (2, 3, height, width), dtype=torch.uint8)
    pixels, fit = letterbox(image, box, [114.0])
    h, w = fit.tolist()
    scale = min(box[0] / height, box[1] / width)
    assert abs(h - height * scale) <= 0.5 + 1e-6 and abs(w - width * scale) <= 0.5 + 1e-6
    expected = F.interpolate(image.float(), size=(h, w), mode="bilinear", align_corners=False)
    torch.testing.assert_close(pixels[..., :h, :w], expected, atol=2e-3, rtol=0)
    assert (pixels[..., h:, :] == 114).all() and (pixels[..., w:] == 114).all()


def test_boxes_come_back() -> None:
    image = torch.zeros(1, 3, 100, 200, dtype=torch.uint8)
    _, fit = letterbox(image, (64, 64), [0.0])
    assert fit.tolist() == [32, 64]
    boxes = torch.tensor([[[8.0, 4.0, 16.0, 32.0], [-1.0, 0.0, 65.0, 30.0]]])
    back = torch.tensor([[[25.0, 12.5, 50.0, 100.0], [-3.125, 0.0, 203.125, 93.75]]])
    torch.testing.assert_close(unletterbox(boxes, image, fit), back)


def test_boxes_that_end_at_the_border_still_do() -> None:
    image = torch.zeros(1, 3, 97, 311, dtype=torch.uint8)
    _, fit = letterbox(image, (640, 640), [0.0])
    border = torch.tensor([[[0.0, 0.0, float(fit[1]), float(fit[0])]]])
    assert unletterbox(border, image, fit).tolist() == [[[0.0, 0.0, 311.0, 97.0]]]


def test_dynamic_graphs_pad_only() -> None:
    image = torch.full((1, 3, 33, 64), 7, dtype=torch.uint8)
    pixels, fit = pad_to(image, 32, [1.0, 2.0, 3.0])
    assert pixels.shape == (1, 3, 64, 64) and fit.tolist() == [33, 64]
    assert (pixels[:, :, :33] == 7).all() and (pixels[0, 1, 33:] == 2).all()
