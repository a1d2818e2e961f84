"""``detc::batch_norm_act`` and its gradient: a norm in training and the activation behind it, as one op."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from detc.nativeops.ops._common import cast, gradients_of
from detc.nativeops.reference.batch_norm_act import ACTIVATIONS
from detc.nativeops.reference.batch_norm_act import batch_norm_act as reference
from detc.nativeops.registry import native_op

_INDEX = {name: i for i, name in enumerate(ACTIVATIONS)}


class NormResult(NamedTuple):
    """The map, and the statistics that it was normalised by."""

    out: Tensor  # as x
    mean: Tensor  # [C], constant to the gradient
    var: Tensor  # [C], unbiased, as running statistics take it in; constant to the gradient


def _like(x: Tensor) -> Tensor:
    """As the kernel makes it: a map with gaps is copied, to channels last where channels are neighbours."""
    last = torch.channels_last
    if x.is_contiguous() or x.is_contiguous(memory_format=last):
        return torch.empty_like(x)
    neighbours = x.shape[1] > 1 and x.stride(1) == 1
    return torch.empty_like(x, memory_format=last if neighbours else torch.contiguous_format)


def _fake(x: Tensor, weight: Tensor, bias: Tensor, *options: object) -> tuple[Tensor, Tensor, Tensor]:
    return _like(x), weight.new_empty(weight.shape), weight.new_empty(weight.shape)


def _reference_backward(
    grad: Tensor,
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    mean: Tensor,
    var: Tensor,
    eps: float,
    activation: int,
    slope: float,
) -> tuple[Tensor, ...]:
    return gradients_of(
        lambda a, w, b: reference(a, w, b, eps, activation, slope)[0], (x, weight, bias), grad
    )


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    x, weight, bias, *ctx.options = inputs
    _, mean, var = output
    ctx.mark_non_differentiable(mean, var)
    ctx.save_for_backward(x, weight, bias, mean, var)


def _backward(ctx: Any, grad: Tensor, *of_statistics: Tensor) -> tuple[Tensor | None, ...]:
    return (*_grad_op(grad, *ctx.saved_tensors, *ctx.options), None, None, None)


_grad_op = native_op(
    "batch_norm_act_backward(Tensor grad, Tensor x, Tensor weight, Tensor bias, Tensor mean, Tensor var, "
    "float eps, int activation, float slope) -> (Tensor, Tensor, Tensor)",
    reference=_reference_backward,
    fake=lambda grad, x, weight, bias, *rest: (
        _like(x),
        weight.new_empty(weight.shape),
        weight.new_empty(weight.shape),
    ),
)
_op = native_op(
    "batch_norm_act(Tensor x, Tensor weight, Tensor bias, float eps, int activation, float slope)"
    " -> (Tensor, Tensor, Tensor)",
    reference=reference,
    fake=_fake,
    setup_context=_setup_context,
    backward=_backward,
)


def batch_norm_act(
    x_NCHW: Tensor,
    weight_C: Tensor,
    bias_C: Tensor,
    *,
    eps: float = 1e-5,
    activation: str = "identity",
    slope: float = 0.01,
) -> NormResult:
    """``activation(batch_norm(x))`` by the batch's own statistics, as a norm in training computes it.

    Args:
        x_NCHW: a map, channels first or channels last in memory; the output has its order.
        weight_C, bias_C: the affine part.
        eps: added to the (biased) variance.
        activation: "identity", "relu", "silu", "leaky_relu" or "hardswish".
        slope: of leaky_relu.

    Statistics and affine part are float32, of a float64 map float64. The variance that is returned is the
    unbiased one; running statistics are the caller's to move. Differentiable in x, weight and bias. On CUDA
    it is torch's own batch norm and activation.

    Raises:
        ValueError: shapes that do not fit, an unknown activation, or one value a channel, of which there is
            no variance.
    """
    if x_NCHW.dim() != 4 or weight_C.shape != (x_NCHW.shape[1],) or bias_C.shape != weight_C.shape:
        shapes = ", ".join(str(tuple(t.shape)) for t in (x_NCHW, weight_C, bias_C))
        raise ValueError(f"x is [N, C, H, W], weight and bias [C]: {shapes}")
    if activation not in _INDEX:
        raise ValueError(f"activation is one of {', '.join(ACTIVATIONS)}, not {activation!r}")
    if x_NCHW.shape[0] * x_NCHW.shape[2] * x_NCHW.shape[3] == 1:
        raise ValueError(f"one value a channel has no variance: {tuple(x_NCHW.shape)}")
    wide = torch.float64 if x_NCHW.dtype == torch.float64 else torch.float32
    return NormResult(*_op(x_NCHW, cast(weight_C, wide), cast(bias_C, wide), eps, _INDEX[activation], slope))
