"""The CUDA kernels on a GPU: the CPU's results, the same twice, and no host synchronisation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from detc.nativeops import loader, ops
from detc.nativeops.registry import has_native_kernel
from tests.nativeops.checks import relative_error

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU: CUDA kernels not run")

SHAPES = [(20, 30), (10, 15), (5, 8)]
POSITIONS = sum(h * w for h, w in SHAPES)
OPS = {"soft_nms": "batched_nms", "matrix_nms": "batched_nms", "varifocal_loss_sum": "focal_loss"}
OPS |= {"quality_focal_loss": "focal_loss", "rotated_nms": "nms"}
VARIABLE = ("nms", "rotated_nms")  # the result has the length that it has
Case = tuple[Callable[..., Any], Callable[[], list[Tensor]], int]  # function, inputs, how many have gradients


def boxes(n: int) -> Tensor:
    corner = torch.rand(n, 2) * 60
    return torch.cat((corner, corner + torch.rand(n, 2) * 60 + 1), 1)


def rois(n: int) -> Tensor:
    return torch.cat((torch.arange(n)[:, None] % 2, boxes(n)), 1)


CASES: dict[str, Case] = {
    "ms_deform_attn": (
        lambda v, p, w: ops.ms_deform_attn(v, SHAPES, p, w),
        lambda: [
            torch.randn(2, POSITIONS, 4, 32),
            torch.rand(2, 50, 4, 3, 4, 2) * 1.2 - 0.1,
            torch.rand(2, 50, 4, 3, 4),
        ],
        3,
    ),
    "deform_conv2d": (
        lambda x, o, w, b, m: ops.deform_conv2d(x, o, w, b, padding=1, mask=m),
        lambda: [
            torch.randn(2, 32, 20, 22),
            torch.randn(2, 36, 20, 22),
            torch.randn(24, 16, 3, 3),
            torch.randn(24),
            torch.rand(2, 18, 20, 22),
        ],
        5,
    ),
    "point_sample": (
        lambda x, p: ops.point_sample(x, p),
        lambda: [torch.randn(2, 5, 30, 40), torch.rand(2, 500, 2) * 1.2 - 0.1],
        2,
    ),
    "carafe": (
        lambda x, k: ops.carafe(x, k, kernel_size=5, groups=2),
        lambda: [torch.randn(2, 16, 10, 12), torch.randn(2, 50, 20, 24)],
        2,
    ),
    "corner_pool": (lambda x: ops.corner_pool(x, "top"), lambda: [torch.randn(2, 8, 30, 40)], 1),
    "masked_conv2d": (
        lambda x, w, b, m: ops.masked_conv2d(x, m, w, b, padding=1),
        lambda: [
            torch.randn(2, 8, 20, 22),
            torch.randn(6, 8, 3, 3),
            torch.randn(6),
            torch.rand(2, 20, 22) - 0.5,
        ],
        3,
    ),
    "deform_roi_pool": (
        lambda x, o, r: ops.deform_roi_pool(x, r, o, output_size=7, spatial_scale=0.25),
        lambda: [torch.randn(2, 16, 30, 30), torch.randn(20, 2, 7, 7), rois(20)],
        2,
    ),
    "linear_assignment": (
        lambda c, v: ops.linear_assignment(c, col_valid_BM=v > 0.2),
        lambda: [torch.randn(8, 300, 20), torch.rand(8, 20)],
        0,
    ),
    "mask_paste": (
        lambda m, b: ops.mask_paste(m, b, height=100, width=130),
        lambda: [torch.rand(20, 28, 28), boxes(20)],
        0,
    ),
    "rle_encode": (
        lambda m: ops.rle_encode(m > 0.9, capacity=4000),
        lambda: [torch.rand(5, 60, 70)],
        0,
    ),
    "rle_decode": (
        lambda r: ops.rle_decode(r.int(), r[:, 0].long() * 0 + 3, height=60, width=70),
        lambda: [torch.randint(0, 1400, (5, 4))],
        0,
    ),
    "batched_nms": (
        lambda b, s: ops.batched_nms(b, s, iou_threshold=0.5, keep=50, pre_topk=200),
        lambda: [torch.stack((boxes(300), boxes(300))), torch.rand(2, 300, 5)],
        0,
    ),
    "soft_nms": (
        lambda b, s: ops.batched_nms(b, s, iou_threshold=0.5, keep=50, method="soft_linear", min_score=0.1),
        lambda: [boxes(300)[None], torch.rand(1, 300, 5)],
        0,
    ),
    "matrix_nms": (
        lambda b, s: ops.batched_nms(b, s, iou_threshold=0.5, keep=50, method="matrix_linear"),
        lambda: [boxes(300)[None], torch.rand(1, 300, 5)],
        0,
    ),
    "multilevel_roi_align": (
        lambda a, b, r: ops.multilevel_roi_align([a, b], r, output_size=7, strides=(4.0, 8.0)),
        lambda: [torch.randn(2, 16, 30, 32), torch.randn(2, 16, 15, 16), boxes(40).reshape(2, 20, 4)],
        2,
    ),
    "roi_align": (
        lambda x, r: ops.roi_align(x, r, 7, 0.25, 2, True),
        lambda: [torch.randn(2, 16, 30, 30), rois(20)],
        1,
    ),
    "roi_pool": (lambda x, r: ops.roi_pool(x, r, 7, 0.25), lambda: [torch.randn(2, 16, 30, 30), rois(20)], 1),
    "focal_loss": (
        lambda x, t: ops.sigmoid_focal_loss(x, t.round()),
        lambda: [torch.randn(4, 900, 20), torch.rand(4, 900, 20)],
        1,
    ),
    "varifocal_loss_sum": (
        lambda x, t: ops.varifocal_loss(x, t, reduction="sum"),
        lambda: [torch.randn(4, 900, 20), torch.rand(4, 900, 20) * (torch.rand(4, 900, 20) > 0.9)],
        1,
    ),
    "quality_focal_loss": (
        lambda x, t: ops.quality_focal_loss(x, t),
        lambda: [torch.randn(4, 900, 20), torch.rand(4, 900, 20)],
        1,
    ),
    "box_iou": (lambda a, b: ops.box_iou(a, b, kind="giou"), lambda: [boxes(70), boxes(50)], 2),
    "max_iou_assign": (
        lambda a, t, v: ops.max_iou_assign(a, t, v > 0.2, positive=0.6, negative=0.3, low_quality="truth"),
        lambda: [boxes(3000), boxes(14).reshape(2, 7, 4), torch.rand(2, 7)],
        0,
    ),
    "rotated_iou": (
        lambda a, b: ops.rotated_iou(a, b),
        lambda: [torch.rand(50, 5) * 30, torch.rand(40, 5) * 30],
        0,
    ),
    "nms": (lambda b, s: ops.nms(b, s, 0.5), lambda: [boxes(3000), torch.rand(3000)], 0),
    "rotated_nms": (
        lambda b, s: ops.rotated_nms(b, s, 0.3),
        lambda: [torch.rand(700, 5) * torch.tensor([60.0, 60, 20, 20, 3]), torch.rand(700)],
        0,
    ),
}


def results(case: Case, inputs: Sequence[Tensor]) -> list[Tensor]:
    """The outputs, and the gradients of those inputs that have them."""
    function, _, differentiable = case
    leaves = [t.detach().requires_grad_() if i < differentiable else t for i, t in enumerate(inputs)]
    out = function(*leaves)
    outputs = [out] if isinstance(out, Tensor) else list(out)
    if not differentiable:
        return outputs
    grads = torch.autograd.grad(outputs[0].square().sum(), leaves[:differentiable])
    return [outputs[0].detach(), *grads]


@pytest.mark.parametrize("name", list(CASES))
def test_equals_the_cpu_and_itself(name: str) -> None:
    case = CASES[name]
    torch.manual_seed(0)
    inputs = case[1]()
    on_cpu = results(case, inputs)
    on_gpu = results(case, [t.cuda() for t in inputs])
    library = loader.loaded_library()
    if library is not None and library.architectures:
        assert has_native_kernel(OPS.get(name, name), "cuda")
    for got, wanted in zip(on_gpu, on_cpu, strict=True):
        assert got.is_cuda
        if wanted.is_floating_point():
            assert relative_error(got.cpu(), wanted) < 1e-4
        elif name == "mask_paste":
            assert (got.cpu() != wanted).float().mean() < 1e-5
        else:
            assert torch.equal(got.cpu(), wanted)
    again = results(case, [t.cuda() for t in inputs])
    assert all(torch.equal(a, b) for a, b in zip(on_gpu, again, strict=True))


@pytest.mark.parametrize("name", [n for n, c in CASES.items() if c[2]])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_sixteen_bits(name: str, dtype: torch.dtype) -> None:
    case = CASES[name]
    torch.manual_seed(0)
    inputs = [t.to(dtype) for t in case[1]()]
    got = case[0](*(t.cuda() for t in inputs))
    assert got.dtype == (torch.float32 if name.endswith("_sum") else dtype)
    wanted = case[0](*(t.float() for t in inputs))
    assert relative_error(got.cpu(), wanted) < (5e-3 if dtype == torch.float16 else 4e-2)


@pytest.mark.parametrize("name", [n for n in CASES if n not in VARIABLE])
def test_no_host_synchronisation(name: str) -> None:
    case = CASES[name]
    inputs = [t.cuda() for t in case[1]()]
    results(case, inputs)
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        results(case, inputs)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_empty_inputs() -> None:
    none = torch.zeros(0, device="cuda")
    assert ops.ms_deform_attn(none.reshape(0, POSITIONS, 4, 8), SHAPES, none.reshape(0, 5, 4, 3, 4, 2),
                              none.reshape(0, 5, 4, 3, 4)).shape == (0, 5, 32)  # fmt: skip
    found = ops.linear_assignment(torch.zeros(2, 5, 0, device="cuda"))
    assert found.col_of_row.tolist() == [[-1] * 5] * 2
    assert ops.mask_paste(none.reshape(0, 28, 28), none.reshape(0, 4), height=9, width=9).shape == (0, 9, 9)
    assert ops.deform_roi_pool(
        torch.zeros(1, 2, 4, 4, device="cuda"), none.reshape(0, 5), output_size=2
    ).shape == (0, 2, 2, 2)
