"""The built-in sample set: what it holds, and that it is the same wherever it is made."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from detc.runtime.data.masks import fill_polygons
from detc.runtime.data.shapes import CLASSES, coverage, outline, polygons, pose
from detc.runtime.data.synth import draw, generate
from detc.runtime.data.textures import background


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return generate(tmp_path_factory.mktemp("x") / "synth", 12, 3, val=4, smallest=64, largest=96, workers=2)


def test_files_and_annotations_agree(made: Path) -> None:
    seen = set()
    for split, count in (("train", 12), ("val", 4)):
        data = json.loads((made / f"annotations/{split}.json").read_text())
        assert len(data["images"]) == count == len(list((made / split).glob("*.jpg")))
        assert [c["name"] for c in data["categories"]] == list(CLASSES)
        sizes = {}
        for image in data["images"]:
            with Image.open(made / split / image["file_name"]) as file:
                assert (
                    file.size == (image["width"], image["height"])
                    and 64 <= min(file.size) <= max(file.size) <= 96
                )
            sizes[image["id"]] = (image["height"], image["width"])
        for one in data["annotations"]:
            height, width = sizes[one["image_id"]]
            mask = fill_polygons([np.array(p).reshape(-1, 2) for p in one["segmentation"]], height, width)
            x, y, w, h = one["bbox"]
            assert 0 <= x < x + w <= width and 0 <= y < y + h <= height
            assert abs(int(mask.sum()) - one["area"]) <= 0.12 * one["area"] + 6
            rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
            bounds = np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])
            assert np.abs(bounds - [x, y, x + w, y + h]).max() <= 1
            seen.add(one["category_id"])
    assert len(seen) >= 5


def test_the_same_seed_makes_the_same_set_with_any_number_of_processes(made: Path, tmp_path: Path) -> None:
    again = generate(tmp_path / "a", 12, 3, val=4, smallest=64, largest=96, workers=1)
    other = generate(tmp_path / "b", 12, 4, val=4, smallest=64, largest=96, workers=1)
    for name in ("annotations/train.json", "annotations/val.json", "train/000005.jpg"):
        assert (made / name).read_bytes() == (again / name).read_bytes()
        assert (made / name).read_bytes() != (other / name).read_bytes()


def test_making_it_again_does_nothing_and_other_settings_replace_it(tmp_path: Path) -> None:
    root = generate(tmp_path / "s", 2, val=1, smallest=48, largest=48, workers=1)
    before = os.stat(root / "train/000000.jpg").st_mtime_ns
    generate(root, 2, val=1, smallest=48, largest=48, workers=1)
    assert os.stat(root / "train/000000.jpg").st_mtime_ns == before
    steps: list[tuple[int, int]] = []
    generate(root, 3, val=1, smallest=48, largest=48, workers=1, progress=lambda *a: steps.append(a))
    assert len(list((root / "train").iterdir())) == 3 and steps[-1] == (4, 4)
    assert not (tmp_path / "s.part").exists()


def test_a_folder_with_other_things_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("precious")
    with pytest.raises(ValueError, match="not empty"):
        generate(tmp_path, 1, val=0)
    assert (tmp_path / "mine.txt").read_text() == "precious"
    with pytest.raises(ValueError, match="smallest"):
        generate(tmp_path / "x", 1, smallest=100, largest=50)


def test_visible_masks_do_not_overlap_and_are_mostly_visible() -> None:
    for seed in range(6):
        rng = np.random.default_rng(seed)
        pixels, masks, kinds = draw(background(120, 160, rng), rng, 7)
        assert pixels.shape == (120, 160, 3) and pixels.dtype == np.uint8 and len(masks) == len(kinds) >= 1
        assert np.sum(masks, 0).max() <= 1
        assert all(m.sum() > 30 for m in masks)


@pytest.mark.parametrize("kind", CLASSES)
def test_outlines_of_masks_fill_to_the_masks(kind: str) -> None:
    rng = np.random.default_rng(1)
    shape = pose(outline(kind, rng), 30.0, (40.0, 38.0), rng)
    alpha, inside = coverage(shape, 80, 80)
    mask = alpha > 0.5
    assert inside == pytest.approx(1.0)
    again = fill_polygons([np.array(p).reshape(-1, 2) for p in polygons(mask)], 80, 80)
    assert (mask & again).sum() / (mask | again).sum() > 0.93
    if kind == "ring":
        assert not mask[38, 40] and not again[38, 40]
