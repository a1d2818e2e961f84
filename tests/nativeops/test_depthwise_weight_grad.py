"""The weights' gradient of depthwise convolutions against torch's, over sizes, strides, borders and types."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn.grad import conv2d_weight

from detc.nativeops import ops
from tests.nativeops.checks import one_and_two_threads, relative_error
from tests.nativeops.op_checks import require_native


@pytest.fixture(autouse=True)
def seeded() -> None:
    require_native("depthwise_weight_grad")
    torch.manual_seed(0)


def pair_of(
    shape: tuple[int, ...],
    dtype: torch.dtype = torch.float32,
    kernel: tuple[int, int] = (5, 5),
    **options: object,
) -> tuple[Tensor, Tensor]:
    x = torch.randn(shape)
    size = torch.conv2d(x, x.new_zeros(shape[1], 1, *kernel), groups=shape[1], **options).shape  # type: ignore[call-overload]
    return torch.randn(size).to(dtype), x.to(dtype)


# Channels that fill vectors, some and several blocks; kernels whose taps fit the registers at once and in parts.
@pytest.mark.parametrize("channels", [1, 5, 24, 64, 130])
@pytest.mark.parametrize("kernel", [(1, 1), (3, 3), (5, 5), (2, 7), (3, 12)])
def test_equals_torch(channels: int, kernel: tuple[int, int]) -> None:
    for stride, padding, dilation in ((1, 2, 1), (2, 0, 1), ((1, 2), (3, 1), (2, 1)), (3, 9, 2)):
        options = {"stride": stride, "padding": padding, "dilation": dilation}
        grad, x = pair_of((2, channels, 13, 27), kernel=kernel, **options)
        got = ops.depthwise_weight_grad(grad, x, kernel=kernel, **options)  # type: ignore[arg-type]
        wanted = conv2d_weight(x.double(), (channels, 1, *kernel), grad.double(), groups=channels, **options)
        assert relative_error(got, wanted) < 1e-5


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_types_and_orders(dtype: torch.dtype, layout: torch.memory_format) -> None:
    """Sums are kept wide: of 16-bit maps the gradient is float32 and as good as their values."""
    grad, x = pair_of((3, 20, 30, 31), dtype, padding=2)
    args = (grad.contiguous(memory_format=layout), x.contiguous(memory_format=layout))
    got = ops.depthwise_weight_grad(*args, kernel=5, padding=2)
    exact = conv2d_weight(x.double(), (20, 1, 5, 5), grad.double(), padding=2, groups=20)
    assert got.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert relative_error(got, exact) < (1e-13 if dtype == torch.float64 else 1e-5)


def test_threads_and_many_bands_change_nothing() -> None:
    for shape in ((2, 70, 60, 60), (1, 3, 9, 9000)):
        grad, x = pair_of(shape, kernel=(3, 3), padding=1)
        one_and_two_threads(lambda: [ops.depthwise_weight_grad(grad, x, kernel=3, padding=1)])  # noqa: B023
        wanted = conv2d_weight(x.double(), (shape[1], 1, 3, 3), grad.double(), padding=1, groups=shape[1])
        assert relative_error(ops.depthwise_weight_grad(grad, x, kernel=3, padding=1), wanted) < 1e-5


def test_what_is_refused() -> None:
    grad, x = pair_of((1, 4, 8, 8))
    with pytest.raises(ValueError, match="grad is"):
        ops.depthwise_weight_grad(grad, x, kernel=3)
    with pytest.raises(ValueError, match="depthwise_weight_grad: x"):
        ops.depthwise_weight_grad(grad, x, kernel=5, stride=0)
    with pytest.raises(RuntimeError, match="not of the size"):
        torch.ops.detc.depthwise_weight_grad(grad, x, [3, 3], [1, 1], [0, 0], [1, 1])
    with pytest.raises(RuntimeError, match="one dtype"):
        torch.ops.detc.depthwise_weight_grad(grad.double(), x, [5, 5], [1, 1], [0, 0], [1, 1])
