"""RoIPool: against torchvision, against the reference, at the edges."""

from __future__ import annotations

import math

import pytest
import torch
import torchvision

from detc.nativeops import ops
from detc.nativeops.reference import roi_pool as reference
from tests.nativeops.op_checks import assert_same, check_graph, check_op, random_boxes, require_native


@pytest.fixture(autouse=True)
def seeded() -> None:
    require_native("roi_pool", "roi_pool_backward")
    torch.manual_seed(0)


def rois_of(n: int, images: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.cat(
        (torch.randint(0, images, (n, 1)).to(dtype), random_boxes(n, low=-10, high=30, dtype=dtype)), 1
    )


def test_equals_torchvision() -> None:
    for case in range(500):
        dtype = (torch.float32, torch.float64)[case % 2]
        feature = torch.randn(2, 3, 11, 14, dtype=dtype, requires_grad=True)
        rois, size = rois_of(case % 9, 2, dtype), ((7, 7), (3, 4), (1, 1))[case % 3]
        got, wanted = (
            ops.roi_pool(feature, rois, size, 0.5),
            torchvision.ops.roi_pool(feature, rois, size, 0.5),
        )
        assert_same(got, wanted)
        grad = torch.randn_like(got)
        assert_same(*(torch.autograd.grad(out, feature, grad)[0] for out in (got, wanted)), atol=1e-5)


def test_native_equals_reference_also_where_rois_mean_nothing() -> None:
    feature, rois = torch.randn(2, 3, 11, 14), rois_of(12, 2)
    rois[0, 1], rois[1, 0], rois[2, 3], rois[3, 0], rois[4, 2] = math.nan, 7, 1e30, -1, -math.inf
    feature[0, 0, 3, 4] = math.nan
    feature[1] = -math.inf
    got, wanted = (f(feature, rois, 0.5, 3, 4) for f in (torch.ops.detc.roi_pool, reference.roi_pool))
    assert_same(got, wanted)
    assert (got[0][[0, 1, 3, 4]] == 0).all()
    grad = torch.randn_like(got[0])
    args = (grad, feature, rois, got[1], 0.5)
    assert_same(torch.ops.detc.roi_pool_backward(*args), reference.roi_pool_backward(*args), atol=1e-5)


@pytest.mark.parametrize(("images", "rois", "channels"), [(1, 0, 2), (0, 0, 2), (1, 3, 0)])
def test_empty(images: int, rois: int, channels: int) -> None:
    feature = torch.randn(images, channels, 5, 5, requires_grad=True)
    out = ops.roi_pool(feature, rois_of(rois, max(images, 1)), 2)
    assert out.shape == (rois, channels, 2, 2)
    out.sum().backward()
    assert (feature.grad == 0).all()


def test_half_and_not_contiguous() -> None:
    feature, rois = torch.randn(2, 14, 11, 3).permute(0, 3, 2, 1), rois_of(6, 2)
    assert_same(ops.roi_pool(feature, rois, 3), ops.roi_pool(feature.contiguous(), rois, 3))
    for dtype in (torch.float16, torch.bfloat16):
        assert_same(
            ops.roi_pool(feature.to(dtype), rois, 3).float(), ops.roi_pool(feature.to(dtype).float(), rois, 3)
        )


def test_gradcheck_op_and_graph() -> None:
    feature, rois = (
        torch.randn(1, 2, 6, 7, dtype=torch.float64, requires_grad=True),
        rois_of(3, 1, torch.float64),
    )
    assert torch.autograd.gradcheck(lambda f: ops.roi_pool(f, rois, 2, 0.5), feature)
    check_op(torch.ops.detc.roi_pool.default, (feature, rois, 0.5, 2, 3))
    out, where = torch.ops.detc.roi_pool(feature.detach(), rois, 0.5, 2, 3)
    check_op(torch.ops.detc.roi_pool_backward.default, (out, feature.detach(), rois, where, 0.5))
    check_graph(lambda f, r: ops.roi_pool(f, r, 2), (feature.detach(), rois), "roi_pool")
