"""Rois, overlaps and the rest in ONNX: one file runs through its functions in stock onnxruntime, and natively."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from detc.nativeops import ops
from tests.nativeops.onnx_checks import export, one_file_two_paths
from tests.nativeops.op_checks import random_boxes

NODES = {
    "iou": "BoxIou",
    "giou": "BoxGiou",
    "diou": "BoxDiou",
    "ciou": "BoxCiou",
}


def odd_rois(count: int = 12) -> Tensor:
    """Rois of two images, and some of none, without area, inverted, far outside or not finite."""
    rois = torch.cat((torch.arange(count)[:, None] % 2, random_boxes(count, high=30, largest=25)), 1)
    rois[0, 0], rois[1, 0], rois[2, 1], rois[3, 4] = -1, 2, torch.nan, torch.inf
    rois[4, 3:] = rois[4, 1:3]
    rois[5, [1, 3]] = rois[5, [3, 1]]
    rois[6, 1:] += 500
    return rois


def features() -> Tensor:
    return torch.randn(2, 4, 9, 11)


def offsets() -> tuple[Tensor, ...]:
    offset = torch.randn(12, 2, 3, 2)
    offset[7, 0, 0, 0], offset[8, 1, 2, 1] = torch.nan, torch.inf
    return features(), odd_rois(), offset


def odd_boxes(*size: int) -> Tensor:
    boxes = random_boxes(*size)
    flat = boxes.view(-1, 4)
    flat[0, 2] = flat[0, 0]
    flat[1, 2:] = flat[1, :2]
    flat[2] = flat[2][[2, 1, 0, 3]]
    flat[3] = flat[3][[2, 3, 0, 1]]
    return boxes


def edges() -> tuple[Tensor]:
    x = torch.randn(2, 3, 5, 6)
    x[0, 0, 2, 3], x[0, 1, 0, 0], x[0, 2, 4, 5] = torch.nan, torch.inf, -torch.inf
    return (x,)


def pool(sampling: int) -> Callable[..., Tensor]:
    return lambda x, r, o: ops.deform_roi_pool(
        x, r, o, output_size=(3, 2), spatial_scale=0.25, sampling=sampling, gamma=0.3
    )


def masked() -> tuple[Tensor, ...]:
    return torch.randn(2, 3, 7, 8), torch.rand(2, 4, 4) > 0.4, torch.randn(5, 3, 3, 2), torch.randn(5)


CASES: dict[str, tuple[str, Callable[..., Tensor], Callable[[], tuple[Tensor, ...]]]] = {
    "roi_align": (
        "RoiAlign",
        lambda x, r: ops.roi_align(x, r, (2, 3), 0.3),
        lambda: (features(), odd_rois()),
    ),
    "roi_align_aligned": (
        "RoiAlign",
        lambda x, r: ops.roi_align(x, r, 3, 0.25, 2, True),
        lambda: (features(), odd_rois()),
    ),
    "roi_pool": ("RoiPool", lambda x, r: ops.roi_pool(x, r, (2, 3), 0.3), lambda: (features(), odd_rois())),
    "deform_roi_pool": ("DeformRoiPool", pool(0), offsets),
    "deform_roi_pool_sampled": ("DeformRoiPool", pool(2), offsets),
    "deform_roi_pool_rigid": (
        "DeformRoiPool",
        lambda x, r: ops.deform_roi_pool(x, r, output_size=2, spatial_scale=0.25),
        lambda: (features(), odd_rois()),
    ),
    "carafe": (
        "Carafe",
        lambda x, k: ops.carafe(x, k, kernel_size=3, groups=2),
        lambda: (torch.randn(2, 6, 4, 5), torch.randn(2, 18, 8, 10)),
    ),
    "carafe_wide": (
        "Carafe",
        lambda x, k: ops.carafe(x, k, kernel_size=5, scale=3),
        lambda: (torch.randn(1, 3, 2, 3), torch.randn(1, 25, 6, 9)),
    ),
    "masked_conv2d": (
        "MaskedConv2d",
        lambda x, m, w, b: ops.masked_conv2d(x, m, w, b, stride=2, padding=(1, 0)),
        masked,
    ),
    "masked_conv2d_without_bias": (
        "MaskedConv2d",
        lambda x, m, w: ops.masked_conv2d(x, m, w, stride=2, padding=(1, 0)),
        lambda: masked()[:3],
    ),
    "nms": (
        "Nms",
        lambda b, s: ops.nms(b, s, 0.4),
        lambda: (odd_boxes(60), torch.rand(60).mul(20).floor()),
    ),
    **{
        f"corner_pool_{direction}": (
            f"CornerPool{direction.capitalize()}",
            lambda x, direction=direction: ops.corner_pool(x, direction),
            edges,
        )
        for direction in ("top", "bottom", "left", "right")
    },
    **{
        f"box_{kind}": (
            node,
            lambda a, b, kind=kind: ops.box_iou(a, b, kind=kind),
            lambda: (odd_boxes(2, 8), odd_boxes(2, 6)),
        )
        for kind, node in NODES.items()
    },
    **{
        f"box_{kind}_aligned": (
            f"{node}Aligned",
            lambda a, b, kind=kind: ops.box_iou(a, b, kind=kind, aligned=True),
            lambda: (odd_boxes(9), odd_boxes(9).flip(0)),
        )
        for kind, node in NODES.items()
    },
}


@pytest.mark.parametrize("case", list(CASES))
def test_one_file_two_paths(case: str, tmp_path: Path) -> None:
    node, function, make = CASES[case]
    torch.manual_seed(0)
    one_file_two_paths(node, function, make(), tmp_path / f"{case}.onnx")


def test_rotated_boxes_have_no_form() -> None:
    with pytest.raises(Exception, match="rotated boxes has no ONNX form"):
        export(lambda b, s: ops.rotated_nms(b, s, 0.5), (torch.rand(5, 5), torch.rand(5)))
