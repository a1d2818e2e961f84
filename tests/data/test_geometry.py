"""Pixels, boxes and masks stay together under any chain of geometric operations."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from detc.runtime.data.masks import MaskList, clip_polygon, fill_polygons, polygon_area
from detc.runtime.data.mixing import copy_paste, mixup, mosaic
from detc.runtime.data.sample import Sample, map_boxes
from tests.data.making import record

WHITE = 255


def scene(
    width: int, height: int, box: tuple[int, int, int, int], *, bitmap: bool = False, outline: bool = True
) -> Sample:
    """A black image with a white rectangle, which is also its box and its mask."""
    x1, y1, x2, y2 = box
    image = torch.zeros(3, height, width, dtype=torch.uint8)
    image[:, y1:y2, x1:x2] = WHITE
    polygon = [np.array([[x1, y1], [x2, y1], [x2, y2], [x1, y2]], np.float64)]
    mask = image[0].numpy() > 0 if bitmap else polygon
    sample = Sample(record(boxes=[box], size=(width, height)), image, (height, width)).read_boxes()
    return replace(sample, masks=MaskList((mask,), height, width)) if outline else sample


@st.composite
def scenes(draw: st.DrawFn) -> Sample:
    width, height = draw(st.integers(30, 80)), draw(st.integers(30, 80))
    x1, y1 = draw(st.integers(0, width - 12)), draw(st.integers(0, height - 12))
    x2, y2 = draw(st.integers(x1 + 10, width)), draw(st.integers(y1 + 10, height))
    return scene(width, height, (x1, y1, x2, y2), bitmap=draw(st.booleans()))


MOVES = st.one_of(
    st.tuples(st.just("flip"), st.booleans()),
    st.tuples(st.just("resize"), st.floats(0.5, 1.8), st.floats(0.5, 1.8)),
    st.tuples(st.just("crop"), st.floats(0, 1), st.floats(0, 1), st.floats(0.4, 1)),
    st.tuples(st.just("place"), st.floats(0, 1), st.floats(0, 1), st.floats(1, 1.6)),
)


def moved(sample: Sample, move: tuple) -> Sample:
    kind, *args = move
    h, w = sample.height, sample.width
    if kind == "flip":
        return sample.flip(horizontal=args[0])
    if kind == "resize":
        return sample.resize(max(20, int(h * args[0])), max(20, int(w * args[1])))
    ch, cw = max(8, int(h * args[2])), max(8, int(w * args[2]))
    x, y = int(args[0] * abs(w - cw)), int(args[1] * abs(h - ch))
    if kind == "crop":
        ch, cw = min(ch, h), min(cw, w)
        return sample.place(-min(x, w - cw), -min(y, h - ch), ch, cw)
    return sample.place(x, y, ch, cw)


def bright(sample: Sample) -> np.ndarray:
    """Bounds of the pixels that are at least half white, or an empty box."""
    lit = sample.image[0].numpy() >= WHITE // 2
    if not lit.any():
        return np.zeros(4)
    rows, columns = np.flatnonzero(lit.any(1)), np.flatnonzero(lit.any(0))
    return np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])


@settings(max_examples=150, deadline=None)
@given(scenes(), st.lists(MOVES, max_size=4))
def test_box_and_mask_lie_where_the_pixels_are(sample: Sample, moves: list[tuple]) -> None:
    for move in moves:
        sample = moved(sample, move)
    assert sample.boxes is not None and sample.masks is not None
    assert sample.image.shape == (3, sample.height, sample.width)
    assert (sample.masks.height, sample.masks.width) == (sample.height, sample.width)
    assert (sample.boxes >= 0).all() and (sample.boxes <= [sample.width, sample.height] * 2).all()
    kept = sample.drop_degenerate(smallest=4.0)
    if not len(kept.truth()[0]):
        return
    # a resize blurs edges and rounds sizes: each move may shift an edge by about a pixel
    tolerance = 1.0 + 1.0 * len(moves)
    assert np.abs(kept.truth()[0][0] - bright(kept)).max() <= tolerance
    assert kept.masks is not None
    lit, mask = kept.image[0].numpy() >= WHITE // 2, kept.masks.rasterise()[0]
    off = (lit ^ mask).sum()
    rim = 2 * (lit.any(1).sum() + lit.any(0).sum())
    assert off <= tolerance * max(rim, 8)


@settings(max_examples=60, deadline=None)
@given(scenes(), st.lists(MOVES.filter(lambda m: m[0] != "crop"), max_size=3))
def test_the_matrix_maps_the_original_box_to_the_present_one(sample: Sample, moves: list[tuple]) -> None:
    assert sample.boxes is not None
    before = sample.boxes.copy()
    for move in moves:
        sample = moved(sample, move)
    assert sample.boxes is not None
    expected = map_boxes(before, sample.matrix)
    expected[:, 0::2] = expected[:, 0::2].clip(0, sample.width)
    expected[:, 1::2] = expected[:, 1::2].clip(0, sample.height)
    np.testing.assert_allclose(sample.boxes, expected, atol=1e-2)


@given(scenes())
def test_two_flips_are_none(sample: Sample) -> None:
    for horizontal in (True, False):
        twice = sample.flip(horizontal).flip(horizontal)
        assert torch.equal(twice.image, sample.image)
        np.testing.assert_allclose(twice.truth()[0], sample.truth()[0])
        assert twice.masks is not None and sample.masks is not None
        assert (twice.masks.rasterise() == sample.masks.rasterise()).all()


@settings(max_examples=40, deadline=None)
@given(st.floats(-40, 40), st.floats(0.7, 1.4), st.floats(-10, 10))
def test_warped_pixels_lie_under_the_warped_mask(degrees: float, scale: float, shift: float) -> None:
    a = np.radians(degrees)
    turn = scale * np.array([[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]])
    matrix = np.eye(3)
    matrix[:2, :2], matrix[:2, 2] = turn, np.array([40, 40]) - turn @ [40, 40] + shift
    for bitmap in (False, True):
        warped = scene(80, 80, (25, 30, 55, 48), bitmap=bitmap).warp(matrix, 80, 80, 0)
        assert warped.masks is not None
        lit, mask = warped.image[0].numpy() >= WHITE // 2, warped.masks.rasterise()[0]
        assert (lit & mask).sum() > 0.9 * (lit | mask).sum()
        bounds = warped.boxes_from_masks().truth()[0][0]
        assert np.abs(bounds - bright(warped)).max() <= 2
        assert (warped.truth()[0][0][:2] <= bounds[:2] + 1).all()  # corners' bounds contain the object


def test_a_crop_of_a_pending_resize_equals_the_resize_then_cropped() -> None:
    noise = torch.randint(0, 255, (3, 60, 90), dtype=torch.uint8)
    sample = replace(scene(90, 60, (20, 10, 70, 50)), stored=noise).resize(120, 180)
    fast = sample.place(-40, -20, 64, 64)  # scale 2, even offsets: the window falls on whole pixels
    slow = sample.with_image(sample.image).place(-40, -20, 64, 64)
    inner = slice(2, -2)  # at the window's border the neighbours outside of it are not known
    difference = fast.image[:, inner, inner].int() - slow.image[:, inner, inner].int()
    assert difference.abs().max() <= 1
    np.testing.assert_allclose(fast.truth()[0], slow.truth()[0], atol=1e-4)
    np.testing.assert_allclose(fast.matrix, slow.matrix, atol=1e-9)


@settings(max_examples=40, deadline=None)
@given(st.integers(16, 48), st.integers(16, 48), st.integers(0, 3))
def test_each_tile_of_a_mosaic_shows_its_own_object(cx: int, cy: int, lit: int) -> None:
    tiles = [
        scene(40, 30, (5, 5, 30, 25)) if k == lit else _dark(scene(40, 30, (5, 5, 30, 25))) for k in range(4)
    ]
    made = mosaic(tiles, 32, 32, (cx, cy), 0)
    assert made.image.shape == (3, 64, 64) and made.content == (64, 64)
    boxes = made.truth()[0]
    if bright(made).any() and len(boxes) == 4:
        assert np.abs(boxes[lit] - bright(made)).max() <= 2
    assert made.masks is not None and len(made.masks) == len(boxes)
    raster = made.masks.rasterise()
    assert (raster.sum(0) <= 1).all()  # no object reaches into another tile


def _dark(sample: Sample) -> Sample:
    return sample.with_image(torch.zeros_like(sample.stored))


def test_mixup_halves_and_keeps_all_objects() -> None:
    one, other = scene(40, 40, (2, 2, 14, 14)), scene(20, 20, (10, 10, 18, 18))
    mixed = mixup(one, other, (40, 40), 1.0, False, (0.0, 0.0), 0)
    np.testing.assert_allclose(mixed.truth()[0], [[2, 2, 14, 14], [20, 20, 36, 36]])
    assert mixed.image[0, 5, 5] == 128 and mixed.image[0, 28, 28] == 128 and mixed.image[0, 39, 0] == 0
    flipped = mixup(one, other, (40, 40), 1.0, True, (0.0, 0.0), 0)
    np.testing.assert_allclose(flipped.truth()[0][1], [4, 20, 20, 36])


def test_pasted_objects_cover_others_and_drop_the_hidden() -> None:
    below = scene(40, 40, (10, 10, 30, 30))
    above = scene(40, 40, (0, 0, 40, 20))
    above = above.with_image(above.stored // 2)
    pasted = copy_paste(below, above, np.array([0]), 10.0)
    np.testing.assert_allclose(pasted.truth()[0], [[10, 20, 30, 30], [0, 0, 40, 20]])
    assert pasted.image[0, 15, 15] == 127 and pasted.image[0, 25, 15] == 255
    gone = copy_paste(below, scene(40, 40, (8, 8, 32, 32)), np.array([0]), 10.0)
    np.testing.assert_allclose(gone.truth()[0], [[8, 8, 32, 32]])
    with pytest.raises(ValueError, match="needs masks"):
        copy_paste(scene(40, 40, (1, 1, 20, 20), outline=False), above, np.array([0]), 1.0)


@given(
    st.lists(st.tuples(st.floats(-20, 60), st.floats(-20, 60)), min_size=3, max_size=3),
    st.tuples(st.integers(0, 20), st.integers(0, 20), st.integers(5, 30), st.integers(5, 30)),
)
def test_clipped_triangles_fill_what_full_ones_fill_inside(
    points: list, box: tuple[int, int, int, int]
) -> None:
    triangle = np.array(points)
    x, y, w, h = box
    clipped = clip_polygon(triangle, (x, y, x + w, y + h))
    if len(clipped):
        assert (clipped >= np.array([x, y]) - 1e-6).all() and (
            clipped <= np.array([x + w, y + h]) + 1e-6
        ).all()
    area = polygon_area(clipped) if len(clipped) else 0.0
    # an independent answer: sample the window finely
    ys, xs = np.mgrid[0:200, 0:200]
    px, py = x + (xs + 0.5) * w / 200, y + (ys + 0.5) * h / 200
    signs = []
    for (ax, ay), (bx, by) in zip(points, points[1:] + points[:1], strict=True):
        signs.append((bx - ax) * (py - ay) - (by - ay) * (px - ax))
    inside = (np.array(signs) >= 0).all(0) | (np.array(signs) <= 0).all(0)
    if polygon_area(triangle) > 1e-3:
        assert area == pytest.approx(inside.mean() * w * h, abs=0.02 * w * h)


def test_run_length_codes_and_polygons_give_the_same_masks() -> None:
    from pycocotools import mask as coco_mask

    from detc.runtime.data.masks import from_segments

    polygon = np.array([[3.0, 4.0], [30.0, 6.0], [22.0, 28.0]])
    (code,) = coco_mask.frPyObjects([polygon.reshape(-1).tolist()], 32, 40)
    plain = {"size": [32, 40], "counts": _counts(coco_mask.decode(code))}
    masks = from_segments([[polygon], code, plain], 32, 40).rasterise()
    assert (masks == masks[0]).all() and masks[0].any()
    with pytest.raises(ValueError, match="a mask of"):
        from_segments([code], 30, 40)


def _counts(mask: np.ndarray) -> list[int]:
    flat = mask.T.reshape(-1)
    edges = np.flatnonzero(np.diff(np.concatenate([[0], flat])))
    return np.diff(np.concatenate([[0], edges, [len(flat)]])).tolist()


def test_a_two_point_polygon_is_nothing_and_a_small_one_is_not_a_box() -> None:
    assert not fill_polygons([np.array([[1.0, 1.0], [5.0, 5.0]])], 10, 10).any()
    assert fill_polygons([np.array([[1.0, 1.0], [8.0, 1.0], [1.0, 8.0]])], 10, 10).sum() < 40
