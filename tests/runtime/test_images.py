"""Everything that a user may call an image ends as the same RGB array."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from detc.runtime.images import ImageError, gather, read_image, to_rgb


@pytest.fixture
def rgb() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (12, 20, 3), np.uint8)


def test_all_forms_agree(rgb, tmp_path):
    import torch

    Image.fromarray(rgb).save(tmp_path / "x.png")
    forms = [
        rgb,
        rgb.astype(np.float32),
        rgb.astype(np.float64) / 255,
        Image.fromarray(rgb),
        torch.from_numpy(rgb).permute(2, 0, 1),
        torch.from_numpy(rgb).permute(2, 0, 1).float(),
        tmp_path / "x.png",
        str(tmp_path / "x.png"),
        np.dstack([rgb, np.full((12, 20), 9, np.uint8)]),
    ]
    for form in forms:
        assert (to_rgb(form) == rgb).all(), form


def test_grey_images_become_three_channels(rgb, tmp_path):
    grey = rgb[:, :, 0]
    Image.fromarray(grey).save(tmp_path / "g.png")
    for form in (grey, grey[:, :, None], Image.fromarray(grey), tmp_path / "g.png"):
        assert to_rgb(form).shape == (12, 20, 3)
        assert (to_rgb(form)[:, :, 2] == grey).all()


def test_exif_orientation_is_applied(rgb, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate by 90 degrees clockwise to show
    Image.fromarray(rgb).save(tmp_path / "turned.png", exif=exif)
    assert (read_image(tmp_path / "turned.png") == np.rot90(rgb, -1)).all()


@pytest.mark.parametrize(
    ("array", "reason"),
    [
        (np.zeros((2, 3, 5, 7)), "no image"),
        (np.zeros((0, 5, 3)), "no image"),
        (np.full((4, 4, 3), np.nan), "NaN"),
        (np.array([["a"]]), "no image"),
        (np.ones((4, 4, 3), complex), "no image"),
    ],
)
def test_unusable_arrays_say_why(array, reason):
    with pytest.raises(ImageError, match=reason):
        to_rgb(array, "image 3")


def test_broken_files_are_named(tmp_path, rgb):
    Image.fromarray(rgb).save(tmp_path / "whole.jpg")
    data = (tmp_path / "whole.jpg").read_bytes()
    (tmp_path / "cut.jpg").write_bytes(data[: len(data) // 2])
    (tmp_path / "text.jpg").write_text("hello")
    for name in ("cut.jpg", "text.jpg", "gone.jpg"):
        with pytest.raises(ImageError, match=name):
            read_image(tmp_path / name)


def test_gather(rgb, tmp_path):
    for name in ("b.jpg", "a.PNG", "deep/c.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.fromarray(rgb).save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("no image")
    names = [n.name.removeprefix(str(tmp_path) + "/") for n in gather(tmp_path)]
    assert names == ["a.PNG", "b.jpg"]
    names = [n.name.removeprefix(str(tmp_path) + "/") for n in gather(f"{tmp_path}/**/*.jpg")]
    assert names == ["b.jpg", "deep/c.jpg"]
    mixed = gather([str(tmp_path), rgb, Image.fromarray(rgb), np.stack([rgb, rgb])])
    assert [n.name for n in mixed[2:]] == ["image 0", "image 1", "image 2", "image 3"]
    assert all(n.pixels().shape == (12, 20, 3) for n in mixed)


@pytest.mark.parametrize("path", ["gone", "gone.jpg", "*.jpg", "."])
def test_gather_says_what_is_missing(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ImageError):
        gather(path)


def test_deep_images_keep_their_brightness(rgb, tmp_path):
    """Pillow's own conversion cuts 16 bits off at 255, and makes 0..1 black."""
    grey = rgb[:, :, 0]
    Image.fromarray(grey.astype(np.uint16) * 257).save(tmp_path / "deep.png")
    Image.fromarray(grey.astype(np.int32) * 257).save(tmp_path / "deep.tif")
    Image.fromarray(grey.astype(np.float32) / 255).save(tmp_path / "float.tif")
    forms = [tmp_path / name for name in ("deep.png", "deep.tif", "float.tif")]
    forms += [Image.open(tmp_path / "deep.png"), grey.astype(np.uint16) * 257, grey.astype(np.int32)]
    for form in forms:
        assert (to_rgb(form)[:, :, 1] == grey).all(), form


def test_folders_that_are_called_like_images_are_none(rgb, tmp_path):
    Image.fromarray(rgb).save(tmp_path / "a.png")
    (tmp_path / "b.png").mkdir()
    assert [n.source.name for n in gather(tmp_path)] == ["a.png"]
    assert [n.source.name for n in gather(f"{tmp_path}/*.png")] == ["a.png"]


@pytest.mark.parametrize("path", ["", "~nobody_of_that_name/x.png", "missing.png", "*.nothing"])
def test_paths_that_lead_nowhere_are_named(path):
    with pytest.raises(ImageError, match=r"no such file|no image matches"):
        gather(path)
