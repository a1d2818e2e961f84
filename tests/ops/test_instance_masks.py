"""Masks drawn by predicted weights: each op against plain loops over objects."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from detc.compiler.functional import instance_masks as fn
from detc.compiler.functional.generated import conv2d
from detc.compiler.functional.points import center_decode, point_grid
from detc.compiler.functional.post import class_nms
from detc.compiler.functional.sample import take
from detc.compiler.functional.tensor import aligned_upsample


def test_best_sample_takes_the_largest_weights() -> None:
    weight = torch.tensor([[0.0, 0.3, 0.0, 0.9, 0.1], [0.0, 0.0, 0.0, 0.0, 0.0]])
    pick = fn.best_sample(weight, n=4)
    assert pick["index"][0, :3].tolist() == [3, 1, 4]
    assert pick["valid"].tolist() == [[True, True, True, False], [False] * 4]
    assert fn.best_sample(weight[:, :2], n=4)["valid"].tolist() == [[True, False, False, False], [False] * 4]


def test_masks_of_objects_equal_a_loop_over_them() -> None:
    """The definition of CondInst, one object at a time: a grouped convolution for each."""
    torch.manual_seed(0)
    shared = torch.randn(2, 8, 5, 7)
    xy, stride = torch.rand(2, 3, 2) * 56, torch.tensor([[8.0, 16.0, 32.0]] * 2)
    kernels = torch.randn(2, 3, 169)
    each = fn.repeat_regions(shared, kernels)
    way = fn.relative_grid(shared, xy, stride, step=8.0, size=8.0, offset=0.5)
    x = torch.cat((way, each), 1)
    shape = {"kernel": 1, "stride": 1, "padding": 0, "dilation": 1, "groups": 1}
    x = conv2d(x, kernels, out=8, weight_at=0, bias_at=152, **shape).relu()
    x = conv2d(x, kernels, out=8, weight_at=80, bias_at=160, **shape).relu()
    found = conv2d(x, kernels, out=1, weight_at=144, bias_at=168, **shape).reshape(2, 3, 5, 7)
    for b in range(2):
        for k in range(3):
            y, x1 = torch.meshgrid(torch.arange(5.0) * 8 + 4, torch.arange(7.0) * 8 + 4, indexing="ij")
            relative = (xy[b, k, :, None, None] - torch.stack((x1, y))) / (stride[b, k] * 8)
            z = torch.cat((relative, shared[b]))[None]
            w = kernels[b, k]
            z = F.conv2d(z, w[:80].view(8, 10, 1, 1), w[152:160]).relu()
            z = F.conv2d(z, w[80:144].view(8, 8, 1, 1), w[160:168]).relu()
            z = F.conv2d(z, w[144:152].view(1, 8, 1, 1), w[168:])
            torch.testing.assert_close(found[b, k], z[0, 0], atol=1e-4, rtol=1e-4)


def test_sampled_masks_are_the_middles_of_cells() -> None:
    masks = torch.rand(2, 3, 16, 24) > 0.5
    found = fn.sampled_masks(torch.tensor([[2, -1], [0, 0]]), masks, stride=4)
    assert found.shape == (2, 2, 4, 6)
    assert torch.equal(found[0, 0], masks[0, 2, 2::4, 2::4].float())
    assert not found[0, 1].any()
    assert torch.equal(found[1, 1], masks[1, 0, 2::4, 2::4].float())


def test_dice_is_that_of_the_paper_and_forgets_empty_rows() -> None:
    torch.manual_seed(0)
    logits, target = torch.randn(2, 3, 4, 5), (torch.rand(2, 3, 4, 5) > 0.5).float()
    weight = torch.tensor([[True, False, True], [False, False, True]])
    p = logits.sigmoid()
    expected = []
    for b, k in weight.nonzero().tolist():
        both = 2 * (p[b, k] * target[b, k]).sum()
        expected.append(1 - both / ((p[b, k] ** 2).sum() + (target[b, k] ** 2).sum() + 2 * 5e-6))
    found = fn.dice(logits, target, weight, squared=True, smooth=0.0, eps=5e-6)
    torch.testing.assert_close(found, torch.stack(expected).mean())
    nothing = fn.dice(logits, target, torch.zeros_like(weight), squared=True, smooth=0.0, eps=5e-6)
    assert nothing == 0
    smooth = fn.dice(logits, target, squared=False, smooth=1.0, eps=0.0)
    both, total = (p * target).sum((2, 3)), (p + target).sum((2, 3))
    torch.testing.assert_close(smooth, (1 - (2 * both + 1) / (total + 1)).mean())


def test_aligned_upsampling_keeps_corners_where_they_are() -> None:
    x = torch.arange(5.0).view(1, 1, 1, 5).expand(1, 1, 3, 5)
    up = aligned_upsample(x, 4)
    assert up.shape == (1, 1, 12, 20)
    torch.testing.assert_close(up[0, 0, 0], ((torch.arange(20.0) - 2) / 4).clamp(0, 4))


def test_rows_of_detections_lead_back_to_points() -> None:
    boxes = torch.tensor([[[0.0, 0, 9, 9], [0, 0, 10, 10], [50, 50, 60, 60]]])
    scores = [torch.tensor([0.2, 0.9, 0.6]).view(1, 1, 1, 3)]
    options = {"iou": 0.5, "score": 0.1, "keep": 3, "before": 0, "background": False, "activation": "none"}
    options |= {"agnostic": False, "min_size": 0.0, "anchors": 1, "rows": True}
    for per_level in (0, 2):
        found = class_nms(boxes, scores, per_level=per_level, **options)
        assert found["index"][0, :2].tolist() == [1, 2]
        assert torch.equal(take(boxes, found["index"])[0, :2], found["boxes"][0, :2])


def test_one_class_a_box() -> None:
    boxes = torch.tensor([[[0.0, 0, 9, 9], [20, 20, 30, 30]]])
    scores = torch.tensor([[[0.9, 0.8], [0.3, 0.4]]])
    options = {"iou": 0.5, "score": 0.1, "keep": 4, "before": 0, "per_level": 0, "background": False}
    options |= {"activation": "none", "agnostic": False, "min_size": 0.0, "anchors": 1}
    assert class_nms(boxes, scores, **options)["valid"].sum() == 4
    found = class_nms(boxes, scores, **options, best_class=True)
    assert found["valid"].sum() == 2 and found["labels"][0, :2].tolist() == [0, 1]


def test_boxes_from_centres() -> None:
    points = point_grid([torch.zeros(1, 1, 2, 3)], strides=[16.0], offset=0.0)
    shift, size = torch.zeros(1, 6, 2), torch.full((1, 6, 2), 0.5)
    shift[0, 4] = torch.tensor([0.25, -0.5])  # x = 16 + 4, y = 16 - 8
    image = {"size": torch.tensor([[32.0, 48.0]])}
    boxes = center_decode(points, shift, size, image, unit="image")
    assert boxes[0, 4].tolist() == [8.0, 0.0, 32.0, 16.0]
    assert center_decode(points, shift, size, unit="stride")[0, 4].tolist() == [16.0, 4.0, 24.0, 12.0]
    clipped = center_decode(points, shift, size * 4, image, unit="image", clip=True)
    assert clipped[0, 4].tolist() == [0.0, 0.0, 48.0, 32.0]
