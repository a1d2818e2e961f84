"""The dense assigners against plain per-image loops written from the papers, and on awkward batches."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from detc.compiler.functional.dense_assign import atss_assign, centerness, fcos_assign, pairwise_iou
from detc.compiler.functional.points import distance_decode, point_grid
from detc.compiler.functional.soft_label import dynamic_soft_label

STRIDES = [8.0, 16.0, 32.0]
SIZES = [(12, 16), (6, 8), (3, 4)]  # 96 x 128 pixels
N = sum(h * w for h, w in SIZES)


def levels(channels: int = 3, images: int = 2) -> list[Tensor]:
    return [torch.randn(images, channels, h, w) for h, w in SIZES]


def random_truth(images: int, real: int, slots: int, classes: int, seed: int) -> dict[str, Tensor]:
    g = torch.Generator().manual_seed(seed)
    corner = torch.rand(images, slots, 2, generator=g) * torch.tensor([110.0, 80.0])
    size = torch.rand(images, slots, 2, generator=g) * 60 + 4
    valid = torch.arange(slots).expand(images, slots) < real
    boxes = torch.cat((corner, corner + size), -1) * valid[..., None]
    labels = torch.randint(classes, (images, slots), generator=g) * valid
    return {"boxes": boxes, "labels": labels, "valid": valid}


def grid(offset: float = 0.5) -> dict[str, Tensor]:
    return point_grid(levels(), strides=STRIDES, offset=offset)


def test_points_lie_in_their_cells() -> None:
    points = grid()
    assert points["xy"].shape == (N, 2)
    assert points["xy"][1].tolist() == [12.0, 4.0]
    assert points["xy"][16].tolist() == [4.0, 12.0]
    assert points["xy"][-1].tolist() == [112.0, 80.0]
    assert points["stride"].unique().tolist() == STRIDES


def test_measured_points_step_by_whole_pixels() -> None:
    maps = [torch.zeros(1, 1, 7, 11)]
    image = {"pixels": torch.zeros(1, 3, 800, 1344), "size": torch.tensor([[800.0, 1344.0]])}
    points = point_grid(maps, image, strides=[128.0], offset=0.0, measured=True)
    assert points["xy"][1].tolist() == [122.0, 0.0]
    assert points["xy"][11].tolist() == [0.0, 114.0]


def test_distances_decode_and_clip() -> None:
    points = {"xy": torch.tensor([[10.0, 20.0]]), "stride": torch.tensor([8.0])}
    ltrb = torch.tensor([[[1.0, 2.0, 3.0, 4.0]]])
    assert distance_decode(points, ltrb).tolist() == [[[9.0, 18.0, 13.0, 24.0]]]
    image = {"pixels": torch.zeros(1, 3, 64, 64), "size": torch.tensor([[30.0, 32.0]])}
    clipped = distance_decode(points, ltrb, image, by_stride=True, clip=True)
    assert clipped.tolist() == [[[2.0, 4.0, 32.0, 30.0]]]


def fcos_by_loops(
    points: dict[str, Tensor], truth: dict[str, Tensor], radius: float | None
) -> tuple[list[list[int]], list[list[int]]]:
    labels, owners = [], []
    for boxes, classes, valid in zip(truth["boxes"], truth["labels"], truth["valid"], strict=True):
        row, owner = [], []
        for (x, y), stride in zip(points["xy"].tolist(), points["stride"].tolist(), strict=True):
            low, high = stride * 4, stride * 8
            low, high = (-1.0 if stride == STRIDES[0] else low), (math.inf if stride == STRIDES[-1] else high)
            best, found = math.inf, -1
            for i, (x0, y0, x1, y1) in enumerate(boxes.tolist()):
                if not valid[i]:
                    continue
                sides = (x - x0, y - y0, x1 - x, y1 - y)
                near = radius is None or max(abs(x - (x0 + x1) / 2), abs(y - (y0 + y1) / 2)) < radius * stride
                area = (x1 - x0) * (y1 - y0)
                if min(sides) > 0 and low <= max(sides) <= high and near and area < best:
                    best, found = area, i
            row.append(int(classes[found]) if found >= 0 else -1)
            owner.append(found)
        labels.append(row)
        owners.append(owner)
    return labels, owners


@pytest.mark.parametrize("radius", [None, 1.5])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_fcos_equals_loops(radius: float | None, seed: int) -> None:
    points, truth = grid(), random_truth(2, 5, 7, 4, seed)
    target = fcos_assign(points, truth, radius=radius, scale=8.0, inclusive=True)
    labels, owners = fcos_by_loops(points, truth, radius)
    assert target["labels"].tolist() == labels
    for image, owner in enumerate(owners):
        for n, g in enumerate(owner):
            if g >= 0:
                assert torch.equal(target["boxes"][image, n], truth["boxes"][image, g])
    assert float(target["total"]) == sum(x >= 0 for row in labels for x in row) > 0


def test_centerness_is_one_at_the_centre() -> None:
    xy = torch.tensor([[10.0, 10.0], [5.0, 10.0], [0.0, 10.0]])
    box = torch.tensor([0.0, 0.0, 20.0, 20.0]).expand(1, 3, 4)
    found = centerness(xy, box)[0]
    assert found[0] == 1
    assert torch.isclose(found[1], torch.tensor(math.sqrt(1 / 3)))
    assert found[2] == 0


def test_atss_takes_points_above_the_adaptive_threshold() -> None:
    points, truth = grid(), random_truth(2, 4, 6, 4, seed=3)
    maps = levels()
    target = atss_assign(maps, points, truth, topk=9, scale=8.0)
    for image in range(2):
        best = torch.full((N,), -1.0)
        owner = torch.full((N,), -1)
        for g in range(4):
            box = truth["boxes"][image, g]
            half = points["stride"][:, None] * 4
            anchors = torch.cat((points["xy"] - half, points["xy"] + half), -1)
            iou = pairwise_iou(box.view(1, 1, 4), anchors[None])[0, 0]
            center = (box[:2] + box[2:]) / 2
            distance = (points["xy"] - center).norm(dim=-1)
            candidates: list[int] = []
            start = 0
            for h, w in SIZES:
                order = distance[start : start + h * w].argsort(stable=True)[:9] + start
                candidates += order.tolist()
                start += h * w
            among = iou[candidates]
            threshold = among.mean() + among.std()
            for n in candidates:
                x, y = points["xy"][n].tolist()
                inside = box[0] < x < box[2] and box[1] < y < box[3]
                if iou[n] >= threshold and inside and iou[n] > best[n]:
                    best[n], owner[n] = iou[n], g
        wanted = torch.where(owner >= 0, truth["labels"][image][owner.clamp(min=0)], -1)
        assert target["labels"][image].tolist() == wanted.tolist()
    assert float(target["total"]) > 0


def soft_label_by_loops(
    points: dict[str, Tensor], logits: Tensor, boxes: Tensor, truth_boxes: Tensor, labels: Tensor, topk: int
) -> tuple[dict[int, int], Tensor]:
    """One image, real objects only: point -> object, and the IoUs [G, N]."""
    x, y = points["xy"].unbind(-1)
    inside = torch.stack([(x > b[0]) & (x < b[2]) & (y > b[1]) & (y < b[3]) for b in truth_boxes])
    usable = inside.any(0)
    iou = pairwise_iou(truth_boxes[None], boxes[None])[0]
    cost = torch.full_like(iou, math.inf)
    for g, (box, label) in enumerate(zip(truth_boxes, labels.tolist(), strict=True)):
        soft = torch.zeros_like(logits)
        soft[:, label] = iou[g]
        bce = torch.nn.functional.binary_cross_entropy_with_logits(logits, soft, reduction="none")
        cls = (bce * (soft - logits.sigmoid()).abs() ** 2).sum(-1)
        center = (box[:2] + box[2:]) / 2
        distance = (points["xy"] - center).norm(dim=-1) / points["stride"]
        cost[g] = cls - 3 * torch.log(iou[g] + 1e-7) + 10 ** (distance - 3)
    cost[:, ~usable] = math.inf
    taken: dict[int, list[int]] = {}
    for g in range(len(truth_boxes)):
        k = max(int(iou[g][usable].topk(min(topk, int(usable.sum()))).values.sum()), 1)
        for n in cost[g].argsort()[:k].tolist():
            taken.setdefault(n, []).append(g)
    return {n: gs[0] if len(gs) == 1 else int(cost[:, n].argmin()) for n, gs in taken.items()}, iou


@pytest.mark.parametrize("seed", range(4))
def test_dynamic_soft_label_equals_loops(seed: int) -> None:
    classes, slots, real = 4, 9, 6
    points, truth = grid(0.0), random_truth(2, real, slots, classes, seed)
    torch.manual_seed(seed)
    logits = torch.randn(2, N, classes)
    distances = torch.rand(2, N, 4) * 40
    boxes = distance_decode(points, distances)
    target = dynamic_soft_label(
        points, logits, boxes, truth, classes=classes, topk=13, radius=3.0, iou_weight=3.0
    )
    for b in range(2):
        owner, iou = soft_label_by_loops(
            points, logits[b], boxes[b], truth["boxes"][b, :real], truth["labels"][b, :real], 13
        )
        labels = [int(truth["labels"][b, owner[n]]) if n in owner else -1 for n in range(N)]
        assert target["labels"][b].tolist() == labels
        for n, g in owner.items():
            assert torch.isclose(target["weight"][b, n], iou[g, n], atol=1e-6)
            assert torch.isclose(target["scores"][b, n, labels[n]], iou[g, n], atol=1e-6)
            assert torch.equal(target["boxes"][b, n], truth["boxes"][b, g])
    assert torch.isclose(target["total"], target["weight"].sum())
    assert torch.isclose(target["scores"].sum(), target["weight"].sum())


@settings(max_examples=20, deadline=None)
@given(real=st.integers(0, 3), slots=st.integers(1, 4), seed=st.integers(0, 10**6))
def test_padding_never_becomes_a_target(real: int, slots: int, seed: int) -> None:
    real = min(real, slots)
    truth = random_truth(2, real, slots, 3, seed)
    more = {k: torch.cat((v, torch.zeros_like(v)), 1) for k, v in truth.items()}
    points = grid(0.0)
    torch.manual_seed(seed)
    logits, boxes = torch.randn(2, N, 3), distance_decode(points, torch.rand(2, N, 4) * 30)
    few, many = (
        dynamic_soft_label(points, logits, boxes, t, classes=3, topk=13, radius=3.0, iou_weight=3.0)
        for t in (truth, more)
    )
    for name in few:
        assert torch.isfinite(few[name].float()).all()
        assert torch.equal(few[name], many[name]) or name == "boxes"
    if real == 0:
        assert float(few["total"]) == 0
        assert (few["labels"] == -1).all()
    fcos = fcos_assign(points, more, radius=None, scale=8.0, inclusive=True)
    assert torch.equal(
        fcos["labels"], fcos_assign(points, truth, radius=None, scale=8.0, inclusive=True)["labels"]
    )


@pytest.mark.parametrize("name", ["fcos", "soft"])
def test_assigners_compile_without_graph_breaks(name: str) -> None:
    points, truth = grid(0.0), random_truth(2, 3, 5, 3, seed=1)
    logits, boxes = torch.randn(2, N, 3), distance_decode(points, torch.rand(2, N, 4) * 30)

    class Assigner(torch.nn.Module):
        def forward(self, logits: Tensor, boxes: Tensor, truth: dict[str, Tensor]) -> dict[str, Tensor]:
            points = grid(0.0)
            if name == "fcos":
                return fcos_assign(points, truth, radius=1.5, scale=8.0, inclusive=False)
            return dynamic_soft_label(
                points, logits, boxes, truth, classes=3, topk=13, radius=3.0, iou_weight=3.0
            )

    eager = Assigner()(logits, boxes, truth)
    exported = torch.export.export(Assigner(), (logits, boxes, truth)).module()(logits, boxes, truth)
    compiled = torch.compile(Assigner(), fullgraph=True, backend="eager")(logits, boxes, truth)
    for key, value in eager.items():
        assert torch.equal(value, exported[key])
        assert torch.equal(value, compiled[key])
