"""Batches: their form, and that nothing but seed, epoch and plan decides what is in them."""

from __future__ import annotations

import logging
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from detc.compiler.spec import DataSpec, Size
from detc.dsl.diagnostics import DetError
from detc.runtime.data.collate import collate, object_bucket, to_original
from detc.runtime.data.loader import make_loader
from detc.runtime.data.sampler import Plan
from detc.runtime.data.steps import (
    HSV,
    Boxes,
    Crop,
    HFlip,
    Load,
    Masks,
    MixUp,
    Mosaic,
    Pad,
    RandomResize,
    Resize,
)
from tests.data.making import shared, spec, steps, write_coco
from tests.data.test_geometry import scene

SIDE = Size(32, 32)
BUSY = steps(
    load=Load(),
    boxes=Boxes(),
    masks=Masks(),
    mosaic=Mosaic(size=SIDE),
    resize=RandomResize(size=Size(64, 64), ratio=[0.6, 1.5]),
    crop=Crop(size=SIDE),
    hsv=HSV(),
    flip=HFlip(),
    pad=Pad(size=SIDE, fill=114.0),
    mixup=MixUp(size=SIDE, cache=4),
)
CALM = steps(load=Load(), boxes=Boxes(), resize=Resize(size=SIDE), pad=Pad(align=8))


def busy(root: Path, **fields: Any) -> DataSpec:
    return spec(write_coco(root, 10), ("one", "two"), BUSY, CALM, late=CALM, **fields)


def same(a: dict[str, Any], b: dict[str, Any]) -> bool:
    tensors = [(a[k][f], b[k][f]) for k in ("image", "truth") for f in a[k]]
    return a["meta"] == b["meta"] and all(torch.equal(x, y) for x, y in tensors)


def test_a_training_batch_has_the_form_that_graphs_take(tmp_path: Path) -> None:
    batch = next(iter(make_loader(busy(tmp_path), "train", 4, train=True)))
    assert batch["image"]["pixels"].shape == (4, 3, 32, 32) and batch["image"]["pixels"].dtype == torch.uint8
    assert batch["image"]["pixels"].is_contiguous()
    assert batch["image"]["size"].tolist() == [[32, 32]] * 4
    truth = batch["truth"]
    assert truth["boxes"].shape == (4, 16, 4) and truth["boxes"].dtype == torch.float32
    assert truth["labels"].shape == (4, 16) and truth["labels"].dtype == torch.int64
    assert truth["valid"].dtype == torch.bool and truth["valid"].any()
    assert truth["masks"].shape == (4, 16, 32, 32) and truth["masks"].dtype == torch.bool
    assert not truth["boxes"][~truth["valid"]].any() and not truth["masks"][~truth["valid"]].any()
    assert [set(m) for m in batch["meta"]] == [{"id", "path", "size", "matrix", "canvas"}] * 4


def test_workers_and_caches_change_nothing(tmp_path: Path) -> None:
    plain = list(make_loader(busy(tmp_path), "train", 4, train=True, seed=5, workers=0))
    for workers, cache in ((2, "none"), (0, "ram"), (1, "ram")):
        loader = make_loader(busy(tmp_path, cache=cache), "train", 4, train=True, seed=5, workers=workers)
        for epoch in (1, 0):  # the cache is full the second time
            loader.set_epoch(epoch)
            got = list(loader)
        assert all(map(same, plain, got)) and len(got) == len(plain) == 3


def test_a_data_set_travels_to_workers_that_are_not_forked(tmp_path: Path) -> None:
    dataset = make_loader(busy(tmp_path, cache="ram"), "train", 4, train=True).dataset
    items = [("train", 0, i) for i in range(4)]
    first = dataset.__getitems__(items).data
    copied = pickle.loads(pickle.dumps(dataset)).__getitems__(items).data
    assert first is not None and same(first, copied)


def test_another_epoch_or_seed_is_another_order_and_other_pixels(tmp_path: Path) -> None:
    loader = make_loader(busy(tmp_path), "train", 4, train=True)
    first = list(loader)
    loader.set_epoch(1)
    assert not any(map(same, first, loader))
    assert not any(map(same, first, make_loader(busy(tmp_path), "train", 4, train=True, seed=1)))


def test_resuming_in_an_epoch_continues_exactly(tmp_path: Path) -> None:
    loader = make_loader(busy(tmp_path), "train", 4, train=True, workers=1)
    loader.set_epoch(2)
    whole = list(loader)
    fresh = make_loader(busy(tmp_path), "train", 4, train=True, epoch=7, workers=0)
    fresh.set_epoch(2, start=1)
    rest = list(fresh)
    assert len(rest) == 2 and all(map(same, whole[1:], rest))
    fresh.set_epoch(3)
    assert len(list(fresh)) == 3


def test_the_pipeline_switches_between_epochs_even_with_workers(tmp_path: Path) -> None:
    loader = make_loader(busy(tmp_path), "train", 4, train=True, workers=1)
    assert "masks" in next(iter(loader))["truth"] and loader.pipeline == "train"
    loader.set_pipeline("late")
    loader.set_epoch(1)
    assert all("masks" not in b["truth"] for b in loader)
    with pytest.raises(DetError) as caught:
        loader.set_pipeline("early")
    assert caught.value.diagnostics[0].code == "DET0908"


def test_evaluation_delivers_every_image_once_in_float(tmp_path: Path) -> None:
    loader = make_loader(busy(tmp_path), "val", 4, train=False)
    batches = list(loader)
    assert [m["id"] for b in batches for m in b["meta"]] == list(range(1, 11))
    assert [len(b["meta"]) for b in batches] == [4, 4, 2] and len(loader) == 3
    pixels = batches[0]["image"]["pixels"]
    assert pixels.dtype == torch.float32 and pixels.shape == (4, 3, 24, 32)  # 48x36 in 32x32
    raw = torch.from_numpy(np.array(_image(tmp_path, 0))).permute(2, 0, 1)[None].float()
    expected = torch.nn.functional.interpolate(raw, size=(24, 32), mode="bilinear", align_corners=False)[0]
    assert torch.equal(pixels[0], expected)


def _image(root: Path, i: int) -> Any:
    from PIL import Image

    return Image.open(root / f"{i}.png")


def test_boxes_go_back_to_the_files_pixels(tmp_path: Path) -> None:
    data = busy(tmp_path)
    records = {r.id: r for r in data.source.open("val", ["one", "two"]).records}
    for batch in make_loader(data, "val", 4, train=False):
        for b, meta in enumerate(batch["meta"]):
            boxes = batch["truth"]["boxes"][b][batch["truth"]["valid"][b]]
            np.testing.assert_allclose(to_original(boxes, meta), records[meta["id"]].boxes, atol=1e-4)


@given(st.booleans(), st.booleans(), st.integers(20, 90), st.integers(20, 90))
def test_boxes_go_back_through_flips_and_stretches(h: bool, v: bool, height: int, width: int) -> None:
    sample = scene(50, 40, (10, 5, 35, 30)).resize(height, width)
    sample = sample.flip(True) if h else sample
    sample = sample.flip(False) if v else sample
    meta = collate([sample])["meta"][0]
    back = to_original(torch.from_numpy(sample.truth()[0]), meta)
    np.testing.assert_allclose(back, [[10, 5, 35, 30]], atol=1e-3)


def test_batches_come_in_few_shapes(tmp_path: Path) -> None:
    pipeline = steps(
        load=Load(), boxes=Boxes(), r=RandomResize(size=Size(90, 90), ratio=[0.6, 1.0]), pad=Pad(align=8)
    )
    source = write_coco(tmp_path, 16, vary=True)
    loader = make_loader(spec(source, ("one", "two"), pipeline, bucket=32), "train", 4, train=True)
    shapes = set()
    for epoch in range(4):
        loader.set_epoch(epoch)
        for batch in loader:
            height, width = batch["image"]["pixels"].shape[2:]
            shapes.add((height, width))
            assert height % 32 == width % 32 == 0
            lying = {w > h for h, w in (m["size"] for m in batch["meta"])}
            assert len(lying) == 1  # grouped by shape: little padding
            assert (batch["image"]["size"] <= torch.tensor([height, width])).all()
    assert shapes <= {(32, 64), (64, 64), (64, 96), (96, 96), (64, 32), (96, 64)}
    assert [object_bucket(n) for n in (0, 16, 17, 300, 1024, 1025)] == [16, 16, 32, 512, 1024, 2048]


def test_padding_of_the_batch_has_the_steps_colour() -> None:
    batch = collate([scene(20, 10, (1, 1, 5, 5)), scene(10, 20, (1, 1, 5, 5))], align=8, fill=[9.0, 8.0, 7.0])
    assert batch["image"]["pixels"].shape == (2, 3, 24, 24)
    assert batch["image"]["pixels"][0, :, 23, 0].tolist() == [9, 8, 7]
    assert batch["image"]["size"].tolist() == [[10, 20], [20, 10]]


# --- broken files ------------------------------------------------------------------------------


def break_images(root: Path) -> None:
    """One file cut short, one that is no image, one missing, one of another size."""
    (root / "1.png").write_bytes((root / "1.png").read_bytes()[:300])
    (root / "3.png").write_text("this is text")
    (root / "5.png").unlink()
    (root / "7.png").write_bytes((root / "0.png").read_bytes())
    from PIL import Image

    Image.new("RGB", (8, 8)).save(root / "7.png")


@pytest.mark.parametrize("workers", [0, 2])
def test_broken_images_are_named_and_skipped(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, workers: int
) -> None:
    data = busy(tmp_path)
    break_images(tmp_path)
    with caplog.at_level(logging.WARNING, "detc.data"):
        loader = make_loader(data, "train", 4, train=True, workers=workers)
        for epoch in range(3):
            loader.set_epoch(epoch)
            assert [len(b["meta"]) for b in loader] == [4, 4, 4]
    broken = {Path(p.file).name for p in loader.tally.problems}
    assert broken == {"1.png", "3.png", "5.png", "7.png"}
    assert len(loader.tally.problems) == 4  # each told once
    assert loader.tally.images["the file is broken"] == 4
    said = " ".join(r.getMessage() for r in caplog.records)
    assert "DET0904" in said and "is 8x8, its annotation says 48x36" in said and "no such file" in said


def test_evaluation_leaves_broken_images_out(tmp_path: Path) -> None:
    data = busy(tmp_path)
    break_images(tmp_path)
    batches = list(make_loader(data, "val", 1, train=False))
    assert [m["id"] for b in batches for m in b["meta"]] == [1, 3, 5, 7, 9, 10]


@pytest.mark.parametrize("workers", [0, 1])
def test_broken_images_stop_a_run_that_wants_that(tmp_path: Path, workers: int) -> None:
    data = busy(tmp_path, on_error="stop")
    break_images(tmp_path)
    with pytest.raises(DetError) as caught:
        list(make_loader(data, "train", 4, train=True, workers=workers))
    (diagnostic,) = caught.value.diagnostics
    assert (
        diagnostic.code == "DET0904"
        and ".png" in diagnostic.message
        and "on_error" in (diagnostic.help or "")
    )


def test_nothing_but_broken_images_is_an_error(tmp_path: Path) -> None:
    data = busy(tmp_path)
    for file in tmp_path.glob("*.png"):
        file.write_text("no")
    with pytest.raises(DetError) as caught:
        list(make_loader(data, "train", 4, train=True))
    assert caught.value.diagnostics[0].code == "DET0905"


def test_a_step_that_fails_is_named_with_the_file(tmp_path: Path) -> None:
    pipeline = steps(load=Load(), boxes=Boxes(), tight=Pad(size=Size(16, 16)))
    data = spec(write_coco(tmp_path, 4), ("one", "two"), pipeline)
    with pytest.raises(DetError) as caught:
        list(make_loader(data, "train", 2, train=True))
    (diagnostic,) = caught.value.diagnostics
    assert diagnostic.code == "DET0907"
    assert "step `tight` of pipeline `train`" in diagnostic.message and "does not fit" in diagnostic.message


def test_a_set_smaller_than_a_batch(tmp_path: Path) -> None:
    assert [len(b["meta"]) for b in make_loader(busy(tmp_path), "train", 16, train=True)] == [16]
    with pytest.raises(DetError, match="10 images make no batch of 16"):
        make_loader(busy(tmp_path), "train", 16, train=True, drop_last=True)


# --- plans -------------------------------------------------------------------------------------


@given(
    st.integers(1, 60), st.integers(1, 9), st.integers(1, 3), st.booleans(), st.booleans(), st.integers(0, 99)
)
def test_ranks_share_an_epoch_evenly(
    count: int, batch: int, world: int, drop: bool, grouped: bool, seed: int
) -> None:
    group = np.arange(count) % 3 if grouped else None
    plans = [Plan(count, batch, True, seed, rank, world, drop, group) for rank in range(world)]
    epochs = [p.batches(4) for p in plans]
    assert all(len(b) == batch for e in epochs for b in e)
    assert len({len(e) for e in epochs}) == 1 == len({len(p) for p in plans})
    assert [len(e) for e in epochs] == [len(p) for p in plans]
    seen = [i for e in epochs for b in e for i in b]
    if drop:
        assert len(seen) == len(set(seen)) == count // (batch * world) * batch * world
    else:
        assert set(seen) == set(range(count))
    assert plans[0].batches(4) == epochs[0]


@given(st.integers(1, 40), st.integers(1, 9), st.integers(1, 3))
def test_evaluation_visits_each_image_once(count: int, batch: int, world: int) -> None:
    plans = [Plan(count, batch, False, 0, rank, world) for rank in range(world)]
    assert sorted(i for p in plans for b in p.batches(0) for i in b) == list(range(count))
    assert all(len(p) == len(p.batches(0)) for p in plans)


# --- real files --------------------------------------------------------------------------------


def test_photos_decode_as_pillow_does() -> None:
    from PIL import Image

    from detc.runtime.data.pixels import load_pixels

    for path in sorted(shared("photos").glob("*.jpg"))[:4]:
        expected = np.asarray(Image.open(path).convert("RGB"))
        assert np.abs(load_pixels(str(path)).permute(1, 2, 0).numpy().astype(int) - expected).max() <= 1


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "CMYK", "I;16", "1"])
def test_other_colour_spaces_become_rgb(tmp_path: Path, mode: str) -> None:
    from PIL import Image

    from detc.runtime.data.pixels import load_pixels

    base = Image.new("RGB", (9, 7), (255, 255, 255))
    image = Image.new("I;16", (9, 7), 65535) if mode == "I;16" else base.convert(mode)
    path = tmp_path / ("x.jpg" if mode in ("L", "CMYK") else "x.png")
    image.save(path)
    pixels = load_pixels(str(path))
    assert pixels.shape == (3, 7, 9) and pixels.dtype == torch.uint8
    assert (pixels.int() - 255).abs().max() <= 2


def test_a_turned_photo_follows_its_annotation(tmp_path: Path) -> None:
    from PIL import Image

    from detc.runtime.data.pixels import load_pixels
    from detc.runtime.images import ImageError

    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    Image.new("RGB", (40, 20), (255, 0, 0)).save(tmp_path / "t.jpg", exif=exif)
    path = str(tmp_path / "t.jpg")
    assert load_pixels(path).shape == (3, 40, 20)
    assert load_pixels(path, (20, 40)).shape == (3, 40, 20)
    assert load_pixels(path, (40, 20)).shape == (3, 20, 40)  # annotated without the turn
    with pytest.raises(ImageError, match="is 20x40, its annotation says 41x20"):
        load_pixels(path, (41, 20))
