"""Every public op with small inputs: what the checks that hold for all of them run over.

An input's axes are letters; those in ``may_be_empty`` can have size zero, in all inputs that have them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from detc.nativeops import ops
from detc.nativeops.reference.winograd import winograd_pack
from tests.nativeops.op_checks import random_boxes

DType = torch.dtype


@dataclass(frozen=True)
class Case:
    """One use of one op."""

    op: str
    run: Callable[..., Any]
    make: Callable[[DType], list[Tensor]]
    axes: tuple[str, ...]  # of each input
    may_be_empty: str
    differentiable: int = 0  # the first so many inputs
    boxes: tuple[int, ...] = ()  # inputs that hold boxes (the last four of their last axis)
    weights: tuple[int, ...] = ()  # inputs that any output may depend on when they are not finite
    sixteen: float = 1e-2  # largest relative error of a 16-bit float; 0: the results have no such floats


SHAPES = [(5, 6), (3, 4)]


def listed(n: int, dtype: DType) -> Tensor:
    return torch.cat((torch.arange(n)[:, None] % 2, random_boxes(n, high=14, largest=10, dtype=dtype)), 1).to(
        dtype
    )


def rotated(*size: int, dtype: DType) -> Tensor:
    return torch.rand(*size, 5, dtype=dtype) * torch.tensor([20.0, 20, 15, 15, 3], dtype=dtype)


def nms(method: str) -> Case:
    return Case(
        "batched_nms",
        lambda b, s: tuple(ops.batched_nms(b, s, iou_threshold=0.4, keep=9, pre_topk=20, method=method)),
        lambda t: [random_boxes(2, 12, high=40, dtype=t), torch.rand(2, 12, 3, dtype=t)],
        ("BN.", "BNC"),
        "BNC",
        boxes=(0,),
    )


def focal(function: Callable[..., Tensor], reduction: str, **options: Any) -> Case:
    return Case(
        "focal_loss",
        lambda x, t: function(x, t, reduction=reduction, **options),
        lambda t: [torch.randn(7, 5, dtype=t), torch.rand(7, 5, dtype=t) * (torch.rand(7, 5) > 0.5)],
        ("NC", "NC"),
        "NC",
        differentiable=1,
    )


def iou(kind: str, aligned: bool) -> Case:
    return Case(
        "box_iou",
        lambda a, b: ops.box_iou(a, b, kind=kind, aligned=aligned),
        lambda t: [random_boxes(6, high=50, dtype=t), random_boxes(6 if aligned else 4, high=50, dtype=t)],
        ("N.", "N.") if aligned else ("N.", "M."),
        "N" if aligned else "NM",
        differentiable=0 if kind == "ciou" else 2,  # CIoU's trade-off is a constant to the gradient
        boxes=(0, 1),
        sixteen=2e-2,
    )


def norm_act(activation: str) -> Case:
    return Case(
        "batch_norm_act",
        lambda x, w, b: ops.batch_norm_act(x, w, b, activation=activation, slope=0.1)[0],
        lambda t: [
            3 * torch.randn(3, 5, 6, 7, dtype=t) + 2,
            torch.rand(5, dtype=t) + 0.5,
            torch.randn(5, dtype=t),
        ],
        ("BCHW", "C", "C"),
        "BCHW",
        differentiable=3,
        weights=(0,),  # a channel's statistics reach all of it; `test_batch_norm_act` looks at that
        sixteen=2e-2,
    )


def soft_label_inputs(dtype: DType) -> list[Tensor]:
    y, x = torch.meshgrid(torch.arange(4) * 8.0, torch.arange(5) * 8.0, indexing="ij")
    points = torch.stack((x, y), -1).reshape(-1, 2)
    sides = torch.rand(2, 20, 4) * 20
    boxes = torch.cat((points - sides[..., :2], points + sides[..., 2:]), -1)
    floats = [points, torch.full((20,), 8.0), torch.randn(2, 20, 3), boxes, random_boxes(2, 4, high=25)]
    valid = torch.tensor([[True, True, True, False], [True, False, False, False]])
    return [*(f.to(dtype) for f in floats), torch.tensor([[0, 2, 1, 0]] * 2), valid]


CASES: dict[str, Case] = {
    "nms_hard": nms("hard"),
    "nms_soft_linear": nms("soft_linear"),
    "nms_soft_gaussian": nms("soft_gaussian"),
    "nms_matrix_linear": nms("matrix_linear"),
    "nms_matrix_gaussian": nms("matrix_gaussian"),
    "nms_rotated": Case(
        "batched_nms",
        lambda b, s: tuple(ops.batched_nms(b, s, iou_threshold=0.4, keep=9)),
        lambda t: [rotated(2, 12, dtype=t), torch.rand(2, 12, 3, dtype=t)],
        ("BN.", "BNC"),
        "BNC",
    ),
    "nms": Case(
        "nms",
        lambda b, s: ops.nms(b, s, 0.4),
        lambda t: [random_boxes(30, high=60, dtype=t), torch.rand(30, dtype=t)],
        ("N.", "N"),
        "N",
        boxes=(0,),
        sixteen=0,
    ),
    "rotated_nms": Case(
        "nms",
        lambda b, s: ops.rotated_nms(b, s, 0.4),
        lambda t: [rotated(20, dtype=t), torch.rand(20, dtype=t)],
        ("N.", "N"),
        "N",
        sixteen=0,
    ),
    "multilevel_roi_align": Case(
        "multilevel_roi_align",
        lambda a, b, r: ops.multilevel_roi_align(
            [a, b], r, output_size=(2, 3), strides=(2.0, 4.0), canonical_scale=14, canonical_level=1
        ),
        lambda t: [
            torch.randn(2, 3, 9, 10, dtype=t),
            torch.randn(2, 3, 5, 6, dtype=t),
            random_boxes(2, 4, high=18, largest=20, dtype=t),
        ],
        ("BC..", "BC..", "BR."),
        "BCR",
        differentiable=2,
        boxes=(2,),
    ),
    "roi_align": Case(
        "roi_align",
        lambda x, r: ops.roi_align(x, r, (2, 3), 0.5),
        lambda t: [torch.randn(2, 3, 7, 8, dtype=t), listed(5, t)],
        ("BC..", "R."),
        "BCR",
        differentiable=1,
        boxes=(1,),
    ),
    "roi_pool": Case(
        "roi_pool",
        lambda x, r: ops.roi_pool(x, r, (2, 3), 0.5),
        lambda t: [torch.randn(2, 3, 7, 8, dtype=t), listed(5, t)],
        ("BC..", "R."),
        "BCR",
        differentiable=1,
        boxes=(1,),
    ),
    "deform_roi_pool": Case(
        "deform_roi_pool",
        lambda x, o, r: ops.deform_roi_pool(x, r, o, output_size=2, spatial_scale=0.5, sampling=2),
        lambda t: [torch.randn(2, 3, 7, 8, dtype=t), torch.randn(5, 2, 2, 2, dtype=t), listed(5, t)],
        ("BC..", "R...", "R."),
        "BCR",
        differentiable=2,
        boxes=(2,),
    ),
    "ms_deform_attn": Case(
        "ms_deform_attn",
        lambda v, p, w: ops.ms_deform_attn(v, SHAPES, p, w),
        lambda t: [
            torch.randn(2, 42, 2, 4, dtype=t),
            torch.rand(2, 3, 2, 2, 3, 2, dtype=t) * 1.2 - 0.1,
            torch.rand(2, 3, 2, 2, 3, dtype=t),
        ],
        ("B.MD", "BQM...", "BQM.."),
        "BQMD",
        differentiable=3,
        sixteen=4e-2,
    ),
    "deform_conv2d": Case(
        "deform_conv2d",
        lambda x, o, w, b, m: ops.deform_conv2d(x, o, w, b, padding=1, mask=m),
        lambda t: [
            torch.randn(2, 4, 4, 5, dtype=t),
            torch.randn(2, 36, 4, 5, dtype=t),
            torch.randn(2, 2, 3, 3, dtype=t),
            torch.randn(2, dtype=t),
            torch.rand(2, 18, 4, 5, dtype=t),
        ],
        ("B...", "B...", "....", ".", "B..."),
        "B",
        differentiable=5,
        sixteen=4e-2,
    ),
    "deform_conv2d_v1": Case(
        "deform_conv2d",
        lambda x, o, w: ops.deform_conv2d(x, o, w),
        lambda t: [
            torch.randn(2, 2, 4, 5, dtype=t),
            torch.randn(2, 8, 3, 4, dtype=t),
            torch.randn(3, 2, 2, 2, dtype=t),
        ],
        ("B...", "B...", "...."),
        "B",
        differentiable=3,
        sixteen=4e-2,
    ),
    "point_sample": Case(
        "point_sample",
        lambda x, p: ops.point_sample(x, p),
        lambda t: [torch.randn(2, 3, 5, 6, dtype=t), torch.rand(2, 7, 2, dtype=t) * 1.2 - 0.1],
        ("BC..", "BP."),
        "BCP",
        differentiable=2,
        sixteen=4e-2,
    ),
    "batch_norm": norm_act("identity"),
    "batch_norm_silu": norm_act("silu"),
    "batch_norm_relu": norm_act("relu"),
    "batch_norm_leaky_relu": norm_act("leaky_relu"),
    "batch_norm_hardswish": norm_act("hardswish"),
    "depthwise_weight_grad": Case(
        "depthwise_weight_grad",
        lambda g, x: ops.depthwise_weight_grad(g, x, kernel=3, stride=(2, 1), padding=1, dilation=(1, 2)),
        lambda t: [torch.randn(2, 5, 4, 4, dtype=t), torch.randn(2, 5, 7, 6, dtype=t)],
        ("BC..", "BC.."),
        "BC",
        weights=(0, 1),  # a channel's taps each see all of it
    ),
    "carafe": Case(
        "carafe",
        lambda x, k: ops.carafe(x, k, kernel_size=3, groups=2),
        lambda t: [torch.randn(2, 4, 2, 3, dtype=t), torch.randn(2, 18, 4, 6, dtype=t)],
        ("B...", "B..."),
        "B",
        differentiable=2,
    ),
    "masked_conv2d": Case(
        "masked_conv2d",
        lambda x, w, b, m: ops.masked_conv2d(x, m > 0.4, w, b, padding=1),
        lambda t: [
            torch.randn(2, 3, 4, 5, dtype=t),
            torch.randn(2, 3, 3, 3, dtype=t),
            torch.randn(2, dtype=t),
            torch.rand(2, 4, 5),
        ],
        ("B...", "....", ".", "B.."),
        "B",
        differentiable=3,
        weights=(1, 2),
        sixteen=2e-2,
    ),
    "winograd_conv2d": Case(
        "winograd_conv2d",
        lambda x, w, b, o: ops.winograd_conv2d(
            x, w, b, packed=winograd_pack(w.detach()), other=o, activation="silu"
        ),
        lambda t: [
            torch.randn(2, 3, 6, 9, dtype=t),
            torch.randn(4, 3, 3, 3, dtype=t) / 5,
            torch.randn(4, dtype=t),
            torch.randn(2, 4, 6, 9, dtype=t),
        ],
        ("B...", "....", ".", "B..."),
        "B",
        differentiable=4,
        weights=(0, 1),  # a tile's outputs share what its patch holds
        sixteen=4e-2,
    ),
    "winograd_pack": Case(
        "winograd_pack",
        ops.winograd_pack,
        lambda t: [torch.randn(35, 3, 3, 3, dtype=t)],
        ("OC..",),
        "OC",
        weights=(0,),
    ),
    "corner_pool": Case(
        "corner_pool",
        lambda x: ops.corner_pool(x, "left"),
        lambda t: [torch.randperm(72).reshape(2, 3, 3, 4).to(t)],
        ("BCHW",),
        "BCHW",
        differentiable=1,
    ),
    "focal": focal(ops.sigmoid_focal_loss, "none"),
    "focal_sum": focal(ops.sigmoid_focal_loss, "sum"),
    "quality_focal": focal(ops.quality_focal_loss, "none"),
    "varifocal": focal(ops.varifocal_loss, "none"),
    "varifocal_detached": Case(
        **{**focal(ops.varifocal_loss, "sum", detach_weight=True).__dict__, "differentiable": 0}
    ),
    "iou": iou("iou", False),
    "giou": iou("giou", False),
    "diou": iou("diou", True),
    "ciou": iou("ciou", True),
    "max_iou_assign": Case(
        "max_iou_assign",
        lambda b, t, v: ops.max_iou_assign(b, t, v, positive=0.5, negative=0.3, low_quality="truth"),
        lambda t: [
            random_boxes(12, high=30, dtype=t),
            random_boxes(2, 3, high=30, dtype=t),
            torch.tensor([[True, True, False], [True, False, True]]),
        ],
        ("N.", "BG.", "BG"),
        "NBG",
        boxes=(0, 1),
    ),
    "dynamic_soft_label": Case(
        "dynamic_soft_label",
        lambda *a: ops.dynamic_soft_label(*a, topk=5),
        soft_label_inputs,
        ("N.", "N", "BNC", "BN.", "BG.", "BG", "BG"),
        "BNG",
        boxes=(3, 4),
        weights=(4,),  # of an endless truth all points cost alike, and torch's topk has no order for ties
    ),
    "rotated_iou": Case(
        "rotated_iou",
        lambda a, b: ops.rotated_iou(a, b),
        lambda t: [rotated(5, dtype=t), rotated(4, dtype=t)],
        ("N.", "M."),
        "NM",
    ),
    "linear_assignment": Case(
        "linear_assignment",
        lambda c: tuple(ops.linear_assignment(c)),
        lambda t: [torch.randperm(60).reshape(3, 5, 4).to(t)],
        ("BNM",),
        "BNM",
        sixteen=0,
    ),
    "mask_paste": Case(
        "mask_paste",
        lambda m, b: ops.mask_paste(m, b, height=20, width=30),
        lambda t: [torch.rand(4, 5, 6, dtype=t), random_boxes(4, high=20, largest=15, dtype=t)],
        ("Nmk", "N."),
        "Nmk",
        boxes=(1,),
        sixteen=0,
    ),
    "rle_encode": Case(
        "rle_encode",
        lambda m: tuple(ops.rle_encode(m, capacity=20)),
        lambda t: [torch.rand(3, 4, 5) > 0.5],
        ("NHW",),
        "NHW",
        sixteen=0,
    ),
    "rle_decode": Case(
        "rle_decode",
        lambda r, n: ops.rle_decode(r, n, height=4, width=5),
        lambda t: [torch.tensor([[3, 4, 13], [0, 20, 0]], dtype=torch.int32), torch.tensor([3, 2])],
        ("NR", "N"),
        "NR",
        sixteen=0,
    ),
}
