"""Batch norm by the batch's own statistics, and the activation behind it, in plain torch (Ioffe & Szegedy, 2015).

On CUDA this is what runs: torch's own batch norm.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

ACTIVATIONS = ("identity", "relu", "silu", "leaky_relu", "hardswish")


def batch_norm_act(
    x: Tensor, weight: Tensor, bias: Tensor, eps: float, activation: int, slope: float
) -> tuple[Tensor, Tensor, Tensor]:
    """See ``detc.nativeops.ops.batch_norm_act``; ``activation`` is an index into ``ACTIVATIONS``."""
    mean, var = weight.detach().new_zeros(weight.shape), weight.detach().new_zeros(weight.shape)
    if x.numel() == 0:
        return x.clone(), mean, var
    # With a momentum of 1 the running statistics are the batch's.
    out = functional.batch_norm(x, mean, var, weight, bias, training=True, momentum=1.0, eps=eps)
    return activate(out, ACTIVATIONS[activation], slope), mean, var


def activate(x: Tensor, name: str, slope: float = 0.0) -> Tensor:
    """One of ``ACTIVATIONS`` by name; ``slope`` is leaky_relu's."""
    if name == "identity":
        return x
    if name == "leaky_relu":
        return functional.leaky_relu(x, slope)
    function = {"relu": functional.relu, "silu": functional.silu, "hardswish": functional.hardswish}[name]
    return function(x)
