"""``detc::ms_deform_attn`` and its gradient."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from detc.nativeops.ops._common import cast, check, check_device, gradients_of, widest
from detc.nativeops.reference.ms_deform_attn import level_sizes
from detc.nativeops.reference.ms_deform_attn import ms_deform_attn as reference
from detc.nativeops.registry import native_op

MOST_LEVELS = 16


def _reference_backward(
    grad: torch.Tensor,
    value: torch.Tensor,
    spatial_shapes: Sequence[int],
    locations: torch.Tensor,
    weights: torch.Tensor,
) -> tuple[torch.Tensor, ...]:
    return gradients_of(lambda v, p, w: reference(v, spatial_shapes, p, w), (value, locations, weights), grad)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
    value, ctx.spatial_shapes, locations, weights = inputs
    ctx.save_for_backward(value, locations, weights)


def _backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
    value, locations, weights = ctx.saved_tensors
    grads = _grad_op(grad, value, ctx.spatial_shapes, locations, weights)
    return grads[0], None, grads[1], grads[2]


_grad_op = native_op(
    "ms_deform_attn_backward(Tensor grad, Tensor value, SymInt[] spatial_shapes, Tensor locations,"
    " Tensor weights) -> (Tensor, Tensor, Tensor)",
    reference=_reference_backward,
    fake=lambda grad, value, spatial_shapes, locations, weights: (
        value.new_empty(value.shape),
        value.new_empty(locations.shape),
        value.new_empty(weights.shape),
    ),
)

_op = native_op(
    "ms_deform_attn(Tensor value, SymInt[] spatial_shapes, Tensor locations, Tensor weights) -> Tensor",
    reference=reference,
    fake=lambda value, spatial_shapes, locations, weights: value.new_empty(
        (value.shape[0], weights.shape[1], value.shape[2] * value.shape[3])
    ),
    setup_context=_setup_context,
    backward=_backward,
)


def ms_deform_attn(
    value_BSMD: torch.Tensor,
    spatial_shapes: Sequence[int] | Sequence[tuple[int, int]],
    locations_BQMLP2: torch.Tensor,
    weights_BQMLP: torch.Tensor,
) -> torch.Tensor:
    """Multi-scale deformable attention (Zhu et al., "Deformable DETR", 2021, eq. 3): ``[B, Q, M*D]``.

    Args:
        value_BSMD: projected features of all levels, flattened row-major and concatenated.
        spatial_shapes: ``(H, W)`` of each level, as pairs or flat; at most 16 levels.
        locations_BQMLP2: (x, y) in units of the level's size (0 and 1 are its edges); outside reads zero.
        weights_BQMLP: attention weights.

    Mixed dtypes (autocast) are computed in the widest; the result has ``value``'s dtype. Differentiable in
    the three tensors.

    Raises:
        ValueError: ``spatial_shapes`` does not cover ``S`` positions; shapes or devices that do not fit.
        TypeError: no floating-point numbers.
    """
    check("ms_deform_attn", "value", value_BSMD, "[B, S, M, D]")
    check("ms_deform_attn", "locations", locations_BQMLP2, "[B, Q, M, L, P, 2]")
    check("ms_deform_attn", "weights", weights_BQMLP, "[B, Q, M, L, P]")
    check_device("ms_deform_attn", value_BSMD, locations_BQMLP2, weights_BQMLP)
    flat = [n for item in spatial_shapes for n in (item if isinstance(item, (tuple, list)) else (item,))]
    positions = sum(height * width for height, width in level_sizes(flat))
    if positions != value_BSMD.shape[1]:
        raise ValueError(f"spatial_shapes cover {positions} positions, value has {value_BSMD.shape[1]}")
    B, Q, M, L, P = weights_BQMLP.shape
    if (
        (B, M) != (value_BSMD.shape[0], value_BSMD.shape[2])
        or locations_BQMLP2.shape != (B, Q, M, L, P, 2)
        or 2 * L != len(flat)
    ):
        raise ValueError(
            f"ms_deform_attn: locations {tuple(locations_BQMLP2.shape)} and weights {tuple(weights_BQMLP.shape)} do "
            f"not fit {len(flat) // 2} levels and a value of {tuple(value_BSMD.shape)}"
        )
    if L > MOST_LEVELS:
        raise ValueError(f"ms_deform_attn: at most {MOST_LEVELS} levels, got {L}")
    wide = widest(value_BSMD, locations_BQMLP2, weights_BQMLP)
    out = _op(cast(value_BSMD, wide), flat, cast(locations_BQMLP2, wide), cast(weights_BQMLP, wide))
    return cast(out, value_BSMD.dtype)
