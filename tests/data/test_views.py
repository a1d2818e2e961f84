"""`choice` and `fan` blocks, `on = "batch"`, several sources in one data set."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from detc.compiler.check import check
from detc.compiler.spec import ChoiceBlock, DataSpec, FanBlock, NamedSource, NamedStep, Sampling, Size, Step
from detc.dsl.diagnostics import DetError
from detc.runtime.data import later
from detc.runtime.data import steps as library
from detc.runtime.data.loader import make_loader
from detc.runtime.data.mixture import MixedPlan
from detc.runtime.data.sources import Folder, Part, Relabel, Unlabelled

from .making import spec, steps, write_coco

SIZE = Size(64, 64)


def fan(**branches: dict[str, Step]) -> FanBlock:
    return FanBlock({view: steps(**own) for view, own in branches.items()})


def semi(root: Path, ratio: tuple[int, ...] = (1, 2), **fields: Any) -> DataSpec:
    """Six labelled images and ten without truth, which are seen in two views."""
    source = write_coco(root / "a", 16)
    load, boxes, resize = library.Load(), library.Boxes(), library.Resize(size=SIZE)
    pad = library.Pad(align=32)
    views = fan(
        weak={"flip": library.HFlip(p=1.0)},
        strong={"turn": library.RandomAffine(), "flip": library.HFlip(), "hide": library.Erase()},
    )
    train = steps(load=load, boxes=boxes, resize=resize, pad=pad)
    unlabelled = (
        *steps(load=load, resize=library.Resize(size=SIZE)),
        NamedStep("views", views),
        *steps(pad=pad),
    )
    data = spec(source, ("one", "two"), train, **fields)
    return replace(
        data,
        pipelines={**data.pipelines, "unlabelled": unlabelled},
        sources=(
            NamedSource("labelled", Part(of=source, count=6), ("one", "two")),
            NamedSource("unlabelled", Unlabelled(of=Part(of=source, count=6, rest=True))),
        ),
        sample=Sampling(ratio),
    )


def test_a_choice_draws_each_branch_by_its_weight(tmp_path: Path) -> None:
    source = write_coco(tmp_path, 12)
    block = ChoiceBlock(
        {
            "small": steps(a=library.Resize(size=Size(32, 32), mode="exact")),
            "large": steps(b=library.Resize(size=Size(64, 64), mode="exact"), f=library.HFlip()),
        },
        (1.0, 3.0),
    )
    pipeline = (*steps(load=library.Load(), boxes=library.Boxes()), NamedStep("scale", block))
    data = spec(source, ("one", "two"), pipeline, group="none")
    loader = make_loader(data, "train", 1, train=True)
    sides: Counter[int] = Counter()
    for epoch in range(12):
        loader.set_epoch(epoch)
        sides.update(int(b["image"]["size"][0, 0]) for b in loader)
    assert set(sides) == {32, 64}
    assert 0.55 < sides[64] / sides.total() < 0.92


def test_views_hold_the_homography_between_them(tmp_path: Path) -> None:
    source = write_coco(tmp_path, 6)
    views = fan(
        weak={"size": library.Resize(size=Size(96, 72), mode="exact"), "flip": library.HFlip(p=1.0)},
        strong={"turn": library.RandomAffine(rotate=10.0), "crop": library.Crop(size=Size(40, 40))},
    )
    pipeline = (
        *steps(load=library.Load(), boxes=library.Boxes(), resize=library.RandomResize(size=SIZE)),
        NamedStep("views", views),
        *steps(pad=library.Pad(align=32)),
    )
    loader = make_loader(spec(source, ("one", "two"), pipeline), "train", 3, train=True)
    batch = next(iter(loader))
    weak, strong = batch["views"]["weak"], batch["views"]["strong"]
    assert batch["image"]["pixels"].shape[0] == weak["image"]["pixels"].shape[0] == 3
    for b in range(3):
        for name, view in (("weak", weak), ("strong", strong)):
            # the truth went through the same steps as the homography
            boxes = batch["truth"]["boxes"][b][batch["truth"]["valid"][b]].numpy()
            own = view["truth"]["boxes"][b][view["truth"]["valid"][b]].numpy()
            if not len(own):
                continue
            matrix = view["matrix"][b].numpy()
            corners = boxes[:, [0, 1, 2, 1, 2, 3, 0, 3]].reshape(-1, 4, 2)
            moved = corners @ matrix[:2, :2].T + matrix[:2, 2]
            bounds = np.concatenate([moved.min(1), moved.max(1)], 1)
            height, width = view["image"]["size"][b].tolist()
            bounds[:, 0::2] = bounds[:, 0::2].clip(0, width)
            bounds[:, 1::2] = bounds[:, 1::2].clip(0, height)
            for box in own:
                assert np.abs(bounds - box).max(1).min() < 0.75, name  # a pending resize rounds to pixels


def test_each_batch_holds_the_ratio(tmp_path: Path) -> None:
    loader = make_loader(semi(tmp_path), "train", 6, train=True)
    assert len(loader) == 3  # six labelled in twos, ten unlabelled in fours
    labelled, bare = Counter[str](), Counter[str]()
    for batch in loader:
        assert batch["image"]["pixels"].shape[0] == 2
        assert batch["truth"]["valid"].any(1).all()
        for view in batch["views"].values():
            assert view["image"]["pixels"].shape[0] == 4 and not view["truth"]["valid"].any()
            assert view["matrix"].shape == (4, 3, 3)
        labelled.update(m["path"] for m in batch["meta"])
        bare.update(m["path"] for m in batch["views"]["weak"]["meta"])
        strong = [m["path"] for m in batch["views"]["strong"]["meta"]]
        assert strong == [m["path"] for m in batch["views"]["weak"]["meta"]]
    assert len(labelled) == 6 and set(labelled.values()) == {1}
    assert len(bare) == 10 and not set(labelled) & set(bare)


def test_batches_depend_on_seed_and_place_alone(tmp_path: Path) -> None:
    data = semi(tmp_path)

    def read(workers: int, start: int = 0) -> list[dict[str, Any]]:
        loader = make_loader(data, "train", 3, train=True, seed=5, workers=workers)
        loader.set_epoch(2, start)
        return list(loader)

    one, two, late = read(0), read(2), read(0, 2)
    assert len(one) == len(two) == len(late) + 2
    for a, b in [*zip(one, two, strict=True), *zip(one[2:], late, strict=True)]:
        for view in ("weak", "strong"):
            assert torch.equal(a["views"][view]["image"]["pixels"], b["views"][view]["image"]["pixels"])
        assert torch.equal(a["image"]["pixels"], b["image"]["pixels"])


def test_ranks_share_the_images() -> None:
    plans = [MixedPlan((5, 9), (1, 2), 3, rank, 2) for rank in range(2)]
    alone = MixedPlan((5, 9), (2, 4), 3)
    assert len(plans[0]) == len(plans[1]) == len(alone) == 3
    for epoch in range(3):
        for a, b, whole in zip(*(p.batches(epoch) for p in (*plans, alone)), strict=True):
            assert sorted([*a, *b]) == sorted(whole)
    first = MixedPlan((5, 9), (1, 2), 3, epoch=0)
    assert len(first) == 5
    seen = [i for b in range(2) for batch in first.batches(b) for s, _, i in batch if s == 1]
    assert Counter(seen[:9]) == Counter(range(9)) and Counter(seen[9:18]) == Counter(range(9))


def test_a_batch_must_divide(tmp_path: Path) -> None:
    with pytest.raises(DetError) as caught:
        make_loader(semi(tmp_path), "train", 4, train=True)
    assert caught.value.diagnostics[0].code == "DET0609"


# --- steps on batches ---------------------------------------------------------------------------


def _part(tmp_path: Path) -> dict[str, Any]:
    source = write_coco(tmp_path, 4)
    data = spec(source, ("one", "two"), steps(l=library.Load(), b=library.Boxes(), p=library.Pad(align=32)))
    loader = make_loader(data, "train", 4, train=True)
    batch = next(iter(loader))
    part = {k: batch[k] for k in ("image", "truth")}
    part["image"] = {"pixels": part["image"]["pixels"].float(), "size": part["image"]["size"]}
    return {**part, "matrix": torch.eye(3).repeat(4, 1, 1)}


@pytest.mark.parametrize("horizontal", [True, False])
def test_flips_of_batches_equal_those_of_samples(tmp_path: Path, horizontal: bool) -> None:
    part = _part(tmp_path)
    rng = torch.Generator().manual_seed(0)
    out = later.mirror(part, 1.0, rng, horizontal=horizontal)
    source = write_coco(tmp_path, 4)
    flip = library.HFlip(p=1.0) if horizontal else library.VFlip(p=1.0)
    data = spec(
        source,
        ("one", "two"),
        steps(l=library.Load(), b=library.Boxes(), f=flip, p=library.Pad(align=32)),
    )
    batch = next(iter(make_loader(data, "train", 4, train=True)))
    assert torch.equal(out["image"]["pixels"], batch["image"]["pixels"].float())
    valid = batch["truth"]["valid"]
    torch.testing.assert_close(out["truth"]["boxes"][valid], batch["truth"]["boxes"][valid])
    corner = out["matrix"] @ torch.tensor([0.0, 0.0, 1.0])
    size = part["image"]["size"]
    assert torch.equal(corner[:, 0], size[:, 1] if horizontal else torch.zeros(4))


def test_batch_steps_are_repeatable_and_stay_in_range(tmp_path: Path) -> None:
    part = _part(tmp_path)
    chain = steps(
        c=library.ColorJitter(brightness=0.5, contrast=0.5, saturation=0.5, on="batch"),
        g=library.GaussianBlur(sigma=2.0, p=0.5, on="batch"),
        e=library.Erase(ratio=[0.2, 0.3], patches=[1, 1], fill=7.0, on="batch"),
        f=library.HFlip(p=0.5, on="batch"),
    )
    once, again = later.Later(chain, (1, 2, 3))(part), later.Later(chain, (1, 2, 3))(part)
    other = later.Later(chain, (1, 2, 4))(part)
    pixels = once["image"]["pixels"]
    assert torch.equal(pixels, again["image"]["pixels"])
    assert not torch.equal(pixels, other["image"]["pixels"])
    assert pixels.min() >= 0 and pixels.max() <= 255
    share = (pixels == 7.0).all(1).float().mean((1, 2))
    assert ((share > 0.02) & (share < 0.1)).all()  # sides of 0.2 to 0.3 of the content's


def test_the_loader_hands_batch_steps_on(tmp_path: Path) -> None:
    source = write_coco(tmp_path, 6)
    pipeline = steps(
        l=library.Load(), b=library.Boxes(), p=library.Pad(align=32), f=library.HFlip(p=1.0, on="batch")
    )
    loader = make_loader(spec(source, ("one", "two"), pipeline), "train", 2, train=True, seed=4)
    loader.set_epoch(1)
    seeds = [b["later"].seed for b in loader]
    assert seeds == [(4, 0, 1, 0), (4, 0, 1, 1), (4, 0, 1, 2)]
    loader.set_epoch(1, start=2)
    assert [b["later"].seed for b in loader] == seeds[2:]


# --- sources --------------------------------------------------------------------------------------


def test_a_part_and_its_rest_make_the_whole(tmp_path: Path) -> None:
    source = write_coco(tmp_path, 10)
    whole = {r.path for r in source.open("train").records}
    part = {r.path for r in Part(of=source, share=0.3, seed=2).open("train").records}
    rest = {r.path for r in Part(of=source, share=0.3, seed=2, rest=True).open("train").records}
    assert len(part) == 3 and part | rest == whole and not part & rest
    with pytest.raises(DetError):
        Part(of=source, count=11).open("train")


def test_relabel_maps_and_drops(tmp_path: Path) -> None:
    source = write_coco(tmp_path, 8)
    plain = source.open("train", ["one", "two"]).records
    mapped = Relabel(of=source, pairs=[["one", "uno"], ["two", None]])
    assert mapped.read_classes() == ["uno"]
    records = mapped.open("train", ["other", "uno"]).records
    for before, after in zip(plain, records, strict=True):
        assert (after.labels == 1).all() and len(after.labels) == (before.labels == 0).sum()
    with pytest.raises(DetError) as caught:
        Relabel(of=source, pairs=[["three", "uno"]]).read_classes()
    assert caught.value.diagnostics[0].code == "DET0605"


def test_a_folder_has_images_and_no_truth(tmp_path: Path) -> None:
    write_coco(tmp_path / "deep", 5)
    found = Folder(root=str(tmp_path)).open("train", ["one"])
    assert len(found.records) == 5 and all(not len(r.labels) for r in found.records)
    with pytest.raises(DetError):
        Folder(root=str(tmp_path / "nothing")).open("train")


SEMI = """det 1
import std.data {{ CocoJson, Folder, Part, Relabel, Unlabelled, steps }}
import std.models {{ FCOS }}

data Semi(root: str = "{root}") {{
  {classes}
  let all = CocoJson(
    root, train = {{ images = "", ann = "ann.json" }}, val = {{ images = "", ann = "ann.json" }}
  )
  sources {{
    labelled: Part({labelled}, count = 3)
    more: Folder(root)
  }}
  sample {{ ratio = [1, 4]  epoch = "labelled" }}
  pipeline train {{
    load: steps.Load()
    boxes: steps.Boxes()
    choice scale {{
      small: steps.Resize(64x64)
      large {{
        up: steps.Resize(96x96)
        flip: steps.HFlip(0.5)
      }}
      weights = [1, 2]
    }}
    pad: steps.Pad(align = 32)
    jitter: steps.ColorJitter(brightness = 0.2, on = "batch")
  }}
  pipeline more extends train {{
    remove boxes
    remove jitter
  }}
  pipeline val {{ load: steps.Load()  pad: steps.Pad(align = 32) }}
}}
"""


def _spec_text(root: Path, classes: str = "", labelled: str = "all", more: str = "") -> str:
    body = SEMI.format(root=root, classes=classes, labelled=labelled)
    return body + more + "run { data = Mine()  model = FCOS(classes = data.classes) }\n"


VIEWS = """
data Mine extends Semi {
  pipeline more {
    load: steps.Load()
    fan views { weak { flip: steps.HFlip(0.5) }  strong { turn: steps.VFlip(0.5)  hide: steps.Erase() } }
    pad: steps.Pad(align = 32)
  }
  pipeline late extends train {
    set scale.large.flip.p = 0.25
    remove scale.large.up
  }
  set sources.labelled.count = 5
}
"""


def test_a_spec_with_sources_resolves_to_itself(tmp_path: Path) -> None:
    write_coco(tmp_path, 8)
    result = check(_spec_text(tmp_path, more=VIEWS))
    assert not result.report.errors, result.report.errors
    run = result.run()
    data = run.data
    assert data is not None and data.classes == ("one", "two")
    assert [s.name for s in data.sources] == ["labelled", "more"]
    assert data.sources[0].source.count == 5  # type: ignore[attr-defined]
    assert data.sample is not None and data.sample.ratio == (1, 4) and data.sample.epoch == "labelled"
    late = data.pipelines["late"][2].step
    assert isinstance(late, ChoiceBlock) and late.weights == (1.0, 2.0)
    assert [s.name for s in late.branches["large"]] == ["flip"]
    assert late.branches["large"][0].step.p == 0.25  # type: ignore[union-attr]
    again = check(run.text)
    assert not again.report.errors, again.report.errors
    assert again.run().text == run.text and again.run().data == data


def test_an_unmapped_class_is_an_error_at_its_source(tmp_path: Path) -> None:
    write_coco(tmp_path, 8)
    found = check(_spec_text(tmp_path, classes='classes = ["one", "three"]', more=VIEWS)).report.errors
    assert [d.code for d in found] == ["DET0605"] and '"two"' in found[0].message
    span = found[0].labels[0].origin.span
    assert span.source.text[span.start : span.end].startswith("Part(all")
    mapped = _spec_text(
        tmp_path, 'classes = ["one", "three"]', 'Relabel(all, [["two", "three"]])', more=VIEWS
    )
    assert not check(mapped).report.errors
