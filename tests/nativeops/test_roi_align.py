"""RoIAlign: against torchvision, against the reference, at the edges."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from detc.nativeops import ops
from detc.nativeops.reference import roi_align as reference
from tests.nativeops.op_checks import assert_same, check_graph, check_op, random_boxes, require_native

STRIDES = (4.0, 8.0, 16.0, 32.0)


@pytest.fixture(autouse=True)
def seeded() -> None:
    require_native("multilevel_roi_align", "multilevel_roi_align_backward", "roi_align", "roi_align_backward")
    torch.manual_seed(0)


def listed(boxes: Tensor, images: int) -> Tensor:
    return torch.cat((torch.randint(0, images, (len(boxes), 1)).to(boxes), boxes), 1)


def test_equals_torchvision_on_ten_thousand_cases() -> None:
    features = {(h, w): torch.randn(2, 3, h, w) for h in (1, 5, 17) for w in (1, 8, 21)}
    shapes = list(features)
    worst = 0.0
    for case in range(10_000):
        feature = features[shapes[case % len(shapes)]]
        rois = listed(random_boxes(case % 4, low=-10, high=50, largest=(8.0, 40.0, 120.0)[case % 3]), 2)
        size, ratio, aligned = ((1, 1), (2, 3), (7, 7))[case % 3], case // 3 % 3, bool(case // 9 % 2)
        got = ops.roi_align(feature, rois, size, 0.5, ratio, aligned)
        wanted = torchvision.ops.roi_align(feature, rois, size, 0.5, ratio or -1, aligned)
        if len(rois):
            worst = max(worst, (got - wanted).abs().max().item())
    assert worst <= 1e-5


@pytest.mark.parametrize("aligned", [False, True])
@pytest.mark.parametrize("ratio", [0, 2])
def test_gradient_equals_torchvision(ratio: int, aligned: bool) -> None:
    for dtype, tolerance in ((torch.float32, 1e-5), (torch.float64, 1e-12)):
        feature = torch.randn(2, 11, 13, 17, dtype=dtype, requires_grad=True)
        rois = listed(random_boxes(40, low=-10, high=40, dtype=dtype), 2)
        results = []
        for out in (
            ops.roi_align(feature, rois, (7, 5), 0.5, ratio, aligned),
            torchvision.ops.roi_align(feature, rois, (7, 5), 0.5, ratio or -1, aligned),
        ):
            torch.manual_seed(1)
            results.append(torch.autograd.grad(out, feature, torch.randn_like(out))[0])
        assert_same(*results, atol=tolerance)


def pyramid(batch: int, channels: int, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    return [torch.randn(batch, channels, int(256 // s), int(320 // s), dtype=dtype) for s in STRIDES]


def test_pyramid_equals_torchvision() -> None:
    features = pyramid(2, 5)
    sides = torch.exp(torch.rand(2, 60, 2) * 4 + 2)
    corner = torch.rand(2, 60, 2) * torch.tensor([320.0, 256.0])
    rois = torch.cat((corner - sides / 2, corner + sides / 2), -1)
    rois[..., 0::2].clamp_(0, 320)
    rois[..., 1::2].clamp_(0, 256)
    pooler = torchvision.ops.MultiScaleRoIAlign(["0", "1", "2", "3"], 7, 2, canonical_scale=112)
    wanted = pooler({str(i): f for i, f in enumerate(features)}, list(rois), [(256, 320)] * 2)
    got = ops.multilevel_roi_align(
        features, rois, output_size=7, strides=STRIDES, sampling_ratio=2, aligned=False, canonical_scale=112
    )
    assert_same(got.flatten(0, 1), wanted, atol=1e-5)
    levels = reference.roi_levels(rois, 4, [1 / s for s in STRIDES], 112.0, 4.0)
    assert levels.unique().tolist() == [0, 1, 2, 3]


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    ratio=st.integers(0, 3),
    aligned=st.booleans(),
    size=st.sampled_from([(1, 1), (7, 7), (14, 14), (3, 9)]),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
def test_native_equals_reference(
    seed: int, ratio: int, aligned: bool, size: tuple[int, int], dtype: torch.dtype
) -> None:
    torch.manual_seed(seed)
    features = pyramid(2, 1 + seed % 11, dtype)[seed % 3 :]
    rois = random_boxes(2, 6, low=-50, high=300, largest=(20.0, 300.0)[seed % 2], dtype=dtype)
    rois[0, 1] = torch.tensor([30.0, 40.0, 10.0, 90.0])  # inverted
    rois[1, 2] = torch.tensor([30.0, 40.0, 30.0, 40.0])  # no area
    rois[1, 3, 0] = math.nan
    valid = torch.rand(2, 6) > 0.2
    scales = [1 / s for s in STRIDES[seed % 3 :]]
    options = (ratio, aligned, 224.0, 4.0)
    tolerance = 1e-5 if dtype == torch.float32 else 1e-12
    forward = torch.ops.detc.multilevel_roi_align(features, rois, valid, scales, *size, *options)
    assert_same(
        forward,
        reference.multilevel_roi_align(features, rois, valid, scales, *size, *options),
        atol=tolerance,
    )
    grad = torch.randn_like(forward)
    backward = torch.ops.detc.multilevel_roi_align_backward(grad, features, rois, valid, scales, *options)
    assert_same(
        backward,
        reference.multilevel_roi_align_backward(grad, features, rois, valid, scales, *options),
        atol=tolerance * 5,
    )


def test_rois_without_meaning_give_zeros() -> None:
    features = [f.requires_grad_() for f in pyramid(1, 3)]
    rois = random_boxes(1, 7, high=200)
    rois[0, 0, 0], rois[0, 1, 1], rois[0, 2, 2] = math.nan, math.inf, -math.inf
    valid = torch.tensor([[True, True, True, False, True, True, True]])
    out = ops.multilevel_roi_align(features, rois, output_size=3, strides=STRIDES, valid=valid)
    assert (out[0, :4] == 0).all() and (out[0, 4:] != 0).any(-1).any(-1).any(-1).all()
    listed_rois = torch.tensor(
        [[-1.0, 0, 0, 9, 9], [2, 0, 0, 9, 9], [math.nan, 0, 0, 9, 9], [1e30, 0, 0, 9, 9], [0, 0, 0, 9, 9]]
    )
    out = ops.roi_align(features[0], listed_rois, 2)
    assert (out[:4] == 0).all() and (out[4] != 0).all()


@pytest.mark.parametrize("side", [1e4, 1e8, 1e30])
def test_rois_far_larger_than_the_map(side: float) -> None:
    """Adaptive sampling asks for as many samples as the roi has pixels; only those inside the map are
    taken."""
    feature = torch.ones(1, 1, 8, 8)
    out = ops.roi_align(feature, torch.tensor([[0.0, -side, -side, side, side]]), 2, 1.0, 0, True)
    assert out.isfinite().all() and out.abs().max() <= 0.1


def test_inverted_and_empty_rois() -> None:
    feature = torch.randn(1, 2, 9, 9)
    rois = torch.tensor([[0.0, 6, 6, 2, 2], [0, 4, 4, 4, 4]])
    assert (ops.roi_align(feature, rois, 3, 1.0, 0, True) == 0).all()  # no sample fits
    for row in ops.roi_align(feature, rois, 3, 1.0, 0, False):  # taken as one pixel wide
        assert (row != 0).any()


@pytest.mark.parametrize("sizes", [(0, 3, 5), (2, 0, 5), (2, 3, 0)])
def test_empty(sizes: Sequence[int]) -> None:
    batch, rois, channels = sizes
    features = [f.requires_grad_() for f in pyramid(batch, channels)]
    out = ops.multilevel_roi_align(features, random_boxes(batch, rois), output_size=7, strides=STRIDES)
    assert out.shape == (batch, rois, channels, 7, 7)
    out.sum().backward()
    assert all((f.grad == 0).all() and f.grad.shape == f.shape for f in features)
    nothing = ops.roi_align(torch.rand(1, 2, 0, 4), torch.tensor([[0.0, 0, 0, 2, 2]]), 2)
    assert nothing.shape == (1, 2, 2, 2) and (nothing == 0).all()


def test_not_contiguous() -> None:
    feature = torch.randn(2, 12, 10, 3).permute(0, 3, 2, 1)
    rois = listed(random_boxes(9, high=12), 2).repeat(1, 2)[:, ::1][:, :5]
    channels_last = feature.contiguous(memory_format=torch.channels_last)
    dense = ops.roi_align(feature.contiguous(), rois.contiguous(), 3)
    assert_same(ops.roi_align(feature, rois, 3), dense)
    assert_same(ops.roi_align(channels_last, rois, 3), dense)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float16, 5e-3), (torch.bfloat16, 4e-2)])
def test_half(dtype: torch.dtype, tolerance: float) -> None:
    feature = torch.randn(1, 9, 20, 20).to(dtype).requires_grad_()
    rois = torch.cat((torch.zeros(30, 1), random_boxes(30, high=20)), 1)
    out = ops.roi_align(feature, rois, 7)
    wide = feature.detach().float().requires_grad_()
    wanted = ops.roi_align(wide, rois, 7)
    grad = torch.randn_like(out)
    out.backward(grad)
    wanted.backward(grad.float())
    assert out.dtype == feature.grad.dtype == dtype
    torch.testing.assert_close(out.float(), wanted, atol=tolerance, rtol=tolerance)
    torch.testing.assert_close(feature.grad.float(), wide.grad, atol=tolerance, rtol=tolerance)


def test_result_does_not_depend_on_threads() -> None:
    features = [f.requires_grad_() for f in pyramid(2, 40)]
    rois = random_boxes(2, 50, high=250, largest=200)
    before, results = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            out = ops.multilevel_roi_align(features, rois, output_size=7, strides=STRIDES)
            results.append((out, *torch.autograd.grad(out.square().sum(), features)))
    finally:
        torch.set_num_threads(before)
    assert_same(results[1], results[0])
    assert_same(results[2], results[0])


def test_gradcheck() -> None:
    features = [torch.randn(1, 2, s, s + 1, dtype=torch.float64, requires_grad=True) for s in (8, 4)]
    rois = random_boxes(1, 3, high=30, dtype=torch.float64)

    def pooled(*maps: Tensor) -> Tensor:
        return ops.multilevel_roi_align(
            maps, rois, output_size=2, strides=(4.0, 8.0), canonical_scale=20, canonical_level=2
        )

    assert torch.autograd.gradcheck(pooled, features)
    single = torch.cat((torch.zeros(3, 1, dtype=torch.float64), rois[0]), 1)
    assert torch.autograd.gradcheck(lambda f: ops.roi_align(f, single, 2, 0.25), features[:1])


def test_op_and_graph() -> None:
    features, rois = [f.requires_grad_() for f in pyramid(1, 2)], random_boxes(1, 3)
    scales, options = [1 / s for s in STRIDES], (0, True, 224.0, 4.0)
    valid = torch.tensor([[True, False, True]])
    check_op(
        torch.ops.detc.multilevel_roi_align.default,
        (features, rois, None, scales, 2, 2, *options),
        (features, rois, valid, scales, 2, 2, *options),
    )
    grad = torch.randn(1, 3, 2, 2, 2)
    plain = [f.detach() for f in features]
    check_op(
        torch.ops.detc.multilevel_roi_align_backward.default, (grad, plain, rois, valid, scales, *options)
    )
    single = listed(rois[0], 1)
    check_op(torch.ops.detc.roi_align.default, (features[0], single, 0.25, 2, 2, 0, True))
    check_op(torch.ops.detc.roi_align_backward.default, (grad[0], plain[0], single, 0.25, 0, True))
    check_graph(
        lambda a, b, r: ops.multilevel_roi_align([a, b], r, output_size=2, strides=STRIDES[:2]),
        (*plain[:2], rois),
        "multilevel_roi_align",
    )
    check_graph(lambda f, r: ops.roi_align(f, r, 3), (plain[0], single), "roi_align")


def test_wrong_arguments() -> None:
    features, rois = pyramid(1, 2), random_boxes(1, 3)
    with pytest.raises(ValueError, match="as many strides"):
        ops.multilevel_roi_align(features, rois, output_size=7, strides=STRIDES[:2])
    with pytest.raises(ValueError, match="rois"):
        ops.multilevel_roi_align(features, rois[0], output_size=7, strides=STRIDES)
    with pytest.raises(ValueError, match="output_size"):
        ops.roi_align(features[0], listed(rois[0], 1), 0)
    with pytest.raises(ValueError, match="spatial_scale"):
        ops.roi_align(features[0], listed(rois[0], 1), 2, spatial_scale=-1)
