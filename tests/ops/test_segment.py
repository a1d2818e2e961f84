"""Instances, panoptic maps and class maps from queries: against plain loops, with padding and empty images."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest
import torch

from detc.compiler.dims import dim
from detc.compiler.functional.segment import areas_of_ids, boxes_of_ids, boxes_of_masks
from detc.compiler.ops.segment import ClassMap, InstanceMasks, PanopticFusion
from detc.compiler.types import Image, Map, Mismatch, tensor
from tests.ops.running import run

B, Q, C, H, W = 3, 12, 5, 24, 32
STUFF = [3, 4]
TYPES = (tensor("B", Q, C + 1), Map(Q, Fraction(1), dim(H), dim(W)), Image(dim(H), dim(W)))


def queries(seed: int = 0, sharp: float = 6.0) -> tuple[torch.Tensor, torch.Tensor, dict[str, torch.Tensor]]:
    """Confident queries with blobs as masks; the last image has none."""
    torch.manual_seed(seed)
    logits = torch.randn(B, Q, C + 1)
    logits.scatter_(2, torch.randint(0, C + 1, (B, Q, 1)), sharp)
    logits[-1, :, -1] = 20.0
    coarse = torch.randn(B, Q, 4, 5)
    coarse -= coarse.topk(2, dim=1).values.mean(1, keepdim=True)  # about one query to a cell
    masks = torch.nn.functional.interpolate(coarse * 9, size=(H, W), mode="bilinear")
    image = {"pixels": torch.zeros(B, 3, H, W), "size": torch.tensor([[H, W], [H - 6.0, W - 9.0], [H, W]])}
    return logits, masks, image


def fused(logits: torch.Tensor, masks: torch.Tensor, score: float, overlap: float) -> tuple[Any, list[int]]:
    """MaskFormer's loop over the queries of one image: segments as {class, pixels}, in order of score."""
    best, labels = logits.softmax(-1).max(-1)
    kept = [q for q in best.argsort(descending=True).tolist() if labels[q] < C and best[q] > score]
    shares = masks.sigmoid()
    canvas = torch.zeros(masks.shape[-2:], dtype=torch.int64)
    classes: list[int] = []
    memory: dict[int, int] = {}
    if kept:
        owner = (shares[kept] * best[kept, None, None]).argmax(0)
    for k, q in enumerate(kept):
        own, whole = owner == k, shares[q] >= 0.5
        firm = own & whole
        if not firm.any() or own.sum() / whole.sum() < overlap:
            continue
        label = int(labels[q])
        if label in STUFF and label in memory:
            canvas[firm] = memory[label]
            continue
        classes.append(label)
        canvas[firm] = len(classes)
        if label in STUFF:
            memory[label] = len(classes)
    return canvas, classes


@pytest.mark.parametrize("overlap", [0.0, 0.5, 0.8])
def test_fusion_is_the_loop_over_queries(overlap: float) -> None:
    op = PanopticFusion(stuff=STUFF, score=0.5, overlap=overlap)
    segments = 0
    for seed in range(5):
        logits, masks, image = queries(seed)
        found = run(op, *TYPES, given=[logits, masks, image])
        for b in range(B):
            height, width = (int(n) for n in image["size"][b])
            canvas, classes = fused(logits[b], masks[b, :, :height, :width], 0.5, overlap)
            rows = found["valid"][b].nonzero().flatten()
            assert found["labels"][b][rows].tolist() == classes
            table = torch.zeros(Q + 1, dtype=torch.int64)
            table[rows + 1] = torch.arange(len(rows)) + 1
            ours = found["panoptic"][b]
            assert torch.equal(table[ours[:height, :width]], canvas)
            assert not ours[height:].any() and not ours[:, width:].any(), "padding belongs to nothing"
            for row in rows.tolist():
                ys, xs = (ours == row + 1).nonzero(as_tuple=True)
                box = [int(xs.min()), int(ys.min()), int(xs.max()) + 1, int(ys.max()) + 1]
                assert found["boxes"][b, row].tolist() == box
            assert (found["scores"][b][rows].diff() <= 0).all()
            segments += len(classes)
        assert not found["valid"][-1].any() and not found["panoptic"][-1].any()
    assert segments > (20 if overlap < 0.8 else 5)


def test_a_class_of_stuff_has_one_segment() -> None:
    logits = torch.full((1, Q, C + 1), -9.0)
    logits[0, :, C] = 9.0
    logits[0, :3] = torch.nn.functional.one_hot(torch.tensor([3, 3, 0]), C + 1) * 18.0 - 9.0
    masks = torch.full((1, Q, H, W), -9.0)
    masks[0, 0, :8], masks[0, 1, 16:], masks[0, 2, 8:16, :9] = 9.0, 9.0, 9.0
    image = {"pixels": torch.zeros(1, 3, H, W), "size": torch.tensor([[H, W]])}
    found = run(PanopticFusion(stuff=STUFF), *TYPES, given=[logits, masks, image])
    assert found["valid"].sum() == 2
    row = int((found["labels"][0] == 3).nonzero()[0])
    assert (found["panoptic"][0] == row + 1).sum() == 16 * W
    assert found["boxes"][0, row].tolist() == [0, 0, W, H]
    things = run(PanopticFusion(stuff=[]), *TYPES, given=[logits, masks, image])
    assert things["valid"].sum() == 3


def test_instances_are_the_best_pairs_of_query_and_class() -> None:
    logits, masks, image = queries()
    found = run(InstanceMasks(keep=20, stuff=STUFF), *TYPES, given=[logits, masks, image])
    for b in range(B - 1):
        height, width = (int(n) for n in image["size"][b])
        scores = logits[b].softmax(-1)[:, :C].clone()
        scores[:, STUFF] = 0
        rows = []
        for pair in scores.flatten().argsort(descending=True)[:20].tolist():
            share = masks[b, pair // C, :height, :width].sigmoid()
            sure = (share * (share > 0.5)).sum() / ((share > 0.5).sum() + 1e-6)
            rows.append((float(scores.flatten()[pair] * sure), pair))
        rows.sort(key=lambda r: -r[0])
        torch.testing.assert_close(found["scores"][b], torch.tensor([r[0] for r in rows]))
        valid = found["valid"][b]
        assert valid.tolist() == [score > 0 for score, _ in rows] and valid.sum() >= 3
        for k, (_, pair) in enumerate(rows[: int(valid.sum())]):
            assert found["labels"][b, k] == pair % C
            inside = masks[b, pair // C] > 0
            inside[height:] = False
            inside[:, width:] = False
            assert torch.equal(found["masks"][b, k], inside)
    assert not torch.isin(found["labels"], torch.tensor(STUFF)).any()
    torch.testing.assert_close(found["boxes"], boxes_of_masks(found["masks"]) * found["valid"][..., None])


def test_the_class_of_each_pixel() -> None:
    logits, masks, image = queries(3)
    found = run(ClassMap(), *TYPES, given=[logits, masks, image])
    sums = torch.einsum("bqc,bqhw->bchw", logits.softmax(-1)[..., :C], masks.sigmoid())
    for b in range(B):
        height, width = (int(n) for n in image["size"][b])
        expected = sums[b].argmax(0)[:height, :width]
        assert torch.equal(found["semantic"][b, :height, :width], expected)
        assert (found["semantic"][b, height:] == -1).all()
        assert sorted(found["labels"][b][found["valid"][b]].tolist()) == expected.unique().tolist()
        for k in found["valid"][b].nonzero().flatten().tolist():
            ys, xs = (expected == found["labels"][b, k]).nonzero(as_tuple=True)
            assert found["boxes"][b, k].tolist() == [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]


def test_numbers_that_do_not_occur_have_no_box() -> None:
    ids = torch.tensor([[[0, 3, 3], [3, 2, 3]]])
    assert boxes_of_ids(ids, 3).tolist() == [[[0, 0, 1, 1], [0, 0, 0, 0], [1, 1, 2, 2]]]
    assert areas_of_ids(ids, 3).tolist() == [[1, 0, 1]]


def test_what_does_not_fit_is_refused() -> None:
    logits, masks, image = TYPES
    with pytest.raises(Mismatch, match="12 queries and masks of 9"):
        ClassMap().infer(logits, masks.with_channels(9), image)
    small = Map(Q, Fraction(4), dim("H") // 4, dim("W") // 4)
    with pytest.raises(Mismatch, match="stride 4 do not lie") as caught:
        InstanceMasks().infer(logits, small, image)
    assert caught.value.help == 'bring them to the input\'s size: -> Upsample(4, mode = "bilinear")'
    with pytest.raises(Mismatch, match="no class 5 among 5"):
        PanopticFusion(stuff=[5]).infer(logits, masks, image)
    with pytest.raises(Mismatch, match="fewer than 61"):
        InstanceMasks(keep=61).infer(logits, masks, image)
