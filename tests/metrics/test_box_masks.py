"""Mask AP of masks that detections carry: over their boxes, or over the network's canvas, on resized images."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from detc.compiler.functional.masks import mask_targets
from detc.compiler.spec import Size
from detc.runtime.data.loader import make_loader
from detc.runtime.data.sources import CocoJson
from detc.runtime.data.steps import Boxes, Load, Masks, Pad, Resize
from detc.runtime.data.synth import generate
from detc.runtime.metrics import CocoMask
from tests.data.making import spec, steps


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root: Path = tmp_path_factory.mktemp("synth")
    return generate(root / "set", 4, val=0, workers=1)


@pytest.mark.parametrize("over", ("box", "canvas", "bitmap"))
def test_the_truths_own_masks_score_high(sample: Path, over: str) -> None:
    split = {"images": "train/", "ann": "annotations/train.json"}
    source = CocoJson(root=str(sample), train=split, val=split)
    line = steps(
        load=Load(), boxes=Boxes(), masks=Masks(), resize=Resize(size=Size(160, 128)), pad=Pad(align=32)
    )
    data = spec(source, tuple(source.read_classes() or ()), line)
    loader = make_loader(data, "val", 2, train=False)
    metric = CocoMask().build(loader.dataset)
    for batch in loader:
        truth = batch["truth"]
        found: dict[str, Tensor] = {k: truth[k] for k in ("boxes", "labels", "valid")}
        found["scores"] = truth["valid"].float()
        if over == "box":
            index = torch.arange(truth["valid"].shape[1]).expand_as(truth["labels"])
            found["box_masks"] = mask_targets(
                truth["boxes"], index, truth["masks"], size=28, aligned=True, threshold=None
            )
        elif over == "bitmap":
            found["masks"] = truth["masks"]
        else:
            found["masks"] = torch.nn.functional.avg_pool2d(truth["masks"].float(), 2)
        metric.update(found, batch["meta"])
    numbers = metric.compute()
    assert numbers["AP50_mask"] > 0.99 and numbers["AP_mask"] > 0.75, numbers
