"""Each step: what it guarantees whatever the dice say."""

from __future__ import annotations

import colorsys
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from detc.compiler.primitives import everything
from detc.compiler.spec import Size, Step
from detc.runtime.data import colour, pixels
from detc.runtime.data import steps as library
from detc.runtime.data.sample import Sample
from detc.runtime.data.steps.resize import target
from tests.data.making import record
from tests.data.test_geometry import scene

SIDE = Size(32, 24)


def dice(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def partners(count: int, cache: int = 0) -> list[Sample]:
    return [scene(30, 40, (3, 4, 20, 30)) for _ in range(count)]


def run(step: Step, sample: Sample, seed: int = 0) -> Sample:
    result: Sample = step.build()(sample, dice(seed), partners)
    return result


ALL = [
    library.Resize(size=SIDE),
    library.Resize(size=SIDE, mode="exact"),
    library.RandomResize(size=SIDE, ratio=[0.5, 2.0]),
    library.ResizeShortest(short=[20, 30], max=50),
    library.Crop(size=SIDE),
    library.Crop(size=SIDE, keep=0.3, tight=True, empty=False, smallest=Size(8, 8)),
    library.MinIoUCrop(),
    library.Expand(p=1.0, ratio=[1.0, 2.0]),
    library.HFlip(p=1.0),
    library.VFlip(p=1.0),
    library.HSV(),
    library.ColorJitter(brightness=0.3, contrast=0.3, saturation=0.3, hue=0.1),
    library.PhotoMetric(),
    library.GaussianBlur(sigma=1.0, p=1.0),
    library.Erase(ratio=[0.1, 0.3]),
    library.Pad(align=32),
    library.Mosaic(size=SIDE),
    library.MixUp(size=SIDE, ratio=[0.5, 1.5]),
    library.CopyPaste(p=1.0),
    library.RandomAffine(),
    library.RandomAffine(size=SIDE, p=0.0),
    library.Choice(options=[library.HFlip(), [library.Crop(size=SIDE), library.VFlip()]]),
]


def test_every_step_is_tried_here() -> None:
    tried = {type(s) for s in ALL} | {library.Load, library.Boxes, library.Masks, library.Classes}
    ours = {c for c in everything() if issubclass(c, Step) and c.module == "std.data.steps"}
    assert {c.name for c in ours if c.__module__.startswith("detc.")} == {c.name for c in tried}


@pytest.mark.parametrize("step", ALL, ids=lambda s: s.name)
@settings(max_examples=12, deadline=None)
@given(st.integers(0, 1 << 30))
def test_a_step_keeps_samples_whole(step: Step, seed: int) -> None:
    before = scene(50, 40, (10, 5, 35, 30))
    frozen = before.stored.clone()
    after = run(step, before, seed)
    again = run(step, before, seed)
    assert torch.equal(after.image, again.image)  # the dice are all that is random
    assert torch.equal(before.stored, frozen) and len(before.truth()[0]) == 1  # the input stays as it was
    assert after.image.dtype == torch.uint8 and after.image.shape == (3, after.height, after.width)
    boxes, labels = after.truth()
    assert boxes.dtype == np.float32 and labels.dtype == np.int64 and len(boxes) == len(labels)
    assert (boxes[:, 2:] > boxes[:, :2]).all()
    assert (boxes >= 0).all() and (boxes <= [after.width, after.height] * 2).all()
    assert after.masks is not None and len(after.masks) == len(boxes)
    assert after.masks.rasterise().shape == (len(boxes), after.height, after.width)
    if not step.geometric and not isinstance(step, (library.MixUp, library.CopyPaste)):
        np.testing.assert_array_equal(boxes, before.truth()[0])


@pytest.mark.parametrize("step", ALL, ids=lambda s: s.name)
def test_a_step_manages_without_objects(step: Step) -> None:
    empty = scene(50, 40, (10, 5, 35, 30)).select(np.zeros(1, bool))
    assert run(step, empty, 3).image.shape[0] == 3


@given(st.integers(1, 3000), st.integers(1, 3000))
def test_sizes_keep_the_shape_inside_the_box(height: int, width: int) -> None:
    h, w = target(height, width, (1333, 800), "keep")
    assert (
        max(h, w) <= 1333 and min(h, w) <= 800 and (max(h, w) == 1333 or min(h, w) == 800 or min(h, w) == 1)
    )
    assert h == max(1, int(height * w / width + 0.5)) or abs(h - height * w / width) <= 1 + height / width
    h, w = target(height, width, (640, 384), "fit")
    assert w <= 640 and h <= 384
    assert target(height, width, (640, 384), "exact") == (384, 640)


def test_published_sizes() -> None:
    assert target(480, 640, (1333, 800), "keep") == (800, 1067)
    assert target(640, 480, (1333, 800), "keep") == (1067, 800)
    assert target(427, 640, (640, 640), "keep") == (427, 640)


def test_a_float_resize_is_the_interpolation_of_a_deployed_graph() -> None:
    image = torch.rand(3, 37, 53) * 255
    sample = replace(scene(53, 37, (1, 1, 20, 20)), stored=image)
    out = run(library.Resize(size=Size(64, 64)), sample)
    expected = torch.nn.functional.interpolate(
        image[None], size=(out.height, out.width), mode="bilinear", align_corners=False, antialias=False
    )[0]
    assert out.image.dtype == torch.float32 and torch.equal(out.image, expected)


@settings(max_examples=40, deadline=None)
@given(st.integers(5, 90), st.integers(5, 90), st.integers(8, 64), st.integers(8, 64))
def test_evaluation_sees_what_a_deployed_graph_sees(height: int, width: int, box_h: int, box_w: int) -> None:
    from detc.compiler.functional.letterbox import letterbox

    image = torch.randint(0, 256, (3, height, width), generator=torch.Generator().manual_seed(1)).float()
    box = Size(box_w, box_h)
    sample = Sample(record(size=(width, height)), image, (height, width))
    out = run(library.Pad(size=box, fill=114.0), run(library.Resize(size=box, mode="fit"), sample))
    pixels_BCHW, size_2 = letterbox(image[None], (box_h, box_w), 114.0)
    assert tuple(size_2.tolist()) == out.content
    assert (pixels_BCHW[0] - out.image).abs().max() < 0.01


@pytest.mark.parametrize("size", [(20, 30), (70, 90), (37, 106)])
@pytest.mark.parametrize("interleaved", [True, False])
def test_a_uint8_resize_is_within_rounding_of_the_float_one(size: tuple[int, int], interleaved: bool) -> None:
    image = torch.randint(0, 256, (3, 37, 53), dtype=torch.uint8)
    if interleaved:
        image = image.permute(1, 2, 0).contiguous().permute(2, 0, 1)
    exact = pixels.resize(image.float(), *size)
    assert (pixels.resize(image, *size).float() - exact).abs().max() <= 1.05  # rounded after each direction


@settings(max_examples=30, deadline=None)
@given(st.floats(-180, 180), st.floats(-60, 60), st.floats(-60, 60), st.integers(0, 1000))
def test_hsv_shift_equals_the_conversion_there_and_back(
    hue: float, sat: float, val: float, seed: int
) -> None:
    image = torch.randint(0, 256, (3, 3, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))
    out = colour.shift_hsv(image, hue, sat, val).permute(1, 2, 0).reshape(-1, 3)
    for pixel, got in zip(image.permute(1, 2, 0).reshape(-1, 3).tolist(), out.tolist(), strict=True):
        h, s, v = colorsys.rgb_to_hsv(*(p / 255 for p in pixel))
        s = 0.0 if max(pixel) == min(pixel) else min(max(s + sat / 255, 0), 1)
        expected = colorsys.hsv_to_rgb((h + hue / 360) % 1.0, s, min(max(v + val / 255, 0), 1))
        np.testing.assert_allclose(got, np.array(expected) * 255, atol=0.51)


@pytest.mark.parametrize("factor", [0.4, 1.0, 1.7])
@pytest.mark.parametrize("name", ["brightness", "contrast", "saturation"])
def test_colour_changes_equal_torchvisions(name: str, factor: float) -> None:
    from torchvision.transforms.v2 import functional as reference

    image = torch.randint(0, 256, (3, 20, 30), dtype=torch.uint8)
    expected = getattr(reference, f"adjust_{name}")(image, factor)
    assert (getattr(colour, name)(image, factor).int() - expected.int()).abs().max() <= 1


def test_blur_equals_torchvisions() -> None:
    from torchvision.transforms.v2 import functional as reference

    image = torch.randint(0, 256, (3, 20, 30), dtype=torch.uint8)
    expected = reference.gaussian_blur(image, [7, 7], [1.0, 1.0])
    assert (pixels.blur(image, 1.0).int() - expected.int()).abs().max() <= 1


def test_padding_keeps_the_content_and_refuses_too_large_images() -> None:
    sample = scene(50, 40, (10, 5, 35, 30))
    padded = run(library.Pad(size=Size(64, 64), fill=[1.0, 2.0, 3.0]), sample)
    assert padded.content == (40, 50) and padded.image.shape == (3, 64, 64)
    assert padded.image[:, 63, 63].tolist() == [1, 2, 3]
    with pytest.raises(ValueError, match="50x40 does not fit"):
        run(library.Pad(size=Size(48, 48)), sample)


def test_a_crop_keeps_only_objects_with_enough_left() -> None:
    sample = scene(100, 20, (0, 0, 100, 20))
    assert not len(run(library.Crop(size=Size(10, 20), keep=0.2), sample).truth()[0])
    assert len(run(library.Crop(size=Size(30, 20), keep=0.2), sample).truth()[0]) == 1


def test_a_crop_that_wants_an_object_looks_for_one() -> None:
    sample = scene(200, 20, (0, 0, 60, 20))
    found = [len(run(library.Crop(size=Size(40, 20), empty=False), sample, s).truth()[0]) for s in range(60)]
    loose = [len(run(library.Crop(size=Size(40, 20)), sample, s).truth()[0]) for s in range(60)]
    assert sum(found) > 55 > sum(loose)


def test_a_choice_follows_its_weights() -> None:
    step = library.Choice(options=[library.HFlip(p=1.0), library.VFlip(p=1.0)], weights=[3.0, 1.0])
    sample = scene(20, 20, (0, 0, 5, 10))
    turned = [run(step, sample, s).truth()[0][0].tolist() == [15, 0, 20, 10] for s in range(200)]
    assert 120 < sum(turned) < 175
    assert step.reads == ("image",) and step.geometric and not step.pads


@pytest.mark.parametrize(
    ("build", "text"),
    [
        (lambda: library.Choice(options=[library.Pad(align=32)]), "padding comes after"),
        (lambda: library.Choice(options=[library.HFlip()], weights=[1.0, 2.0]), "2 weights for 1"),
        (lambda: library.RandomResize(size=SIDE, ratio=[2.0, 1.0]), "ratio is"),
        (lambda: library.Mosaic(size=SIDE, centre=[0.0, 1.0]), "centre lies"),
        (lambda: library.Pad(size=Size(30, 30), align=32), "not a multiple"),
        (lambda: library.Crop(size=SIDE, smallest=Size(99, 1)), "exceeds"),
        (lambda: library.HFlip(p=2.0), "less than or equal to 1"),
    ],
)
def test_impossible_arguments_are_refused(build: object, text: str) -> None:
    with pytest.raises(ValidationError, match=text):
        build()  # type: ignore[operator]


def test_masks_need_outlines() -> None:
    sample = Sample(record(boxes=[(1, 1, 5, 5)]), torch.zeros(3, 30, 40, dtype=torch.uint8), (30, 40))
    with pytest.raises(ValueError, match="no masks"):
        run(library.Masks(), sample)
