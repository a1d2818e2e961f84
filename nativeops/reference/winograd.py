"""Dense 3x3 convolution of stride 1 in plain torch, and the layout that Winograd's minimal filtering takes filters in.

Shape legend: B images, C and O channels, h w output sides.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn import functional

CHANNELS, FILTERS = 16, 32  # to which the packed layout rounds C and O up
P, Q = 5 / 8, 3 / 2  # the kernel says why
# G of F(4x4, 3x3): a filter's values at the points 0, P, -P, Q, -Q and infinity, as factors of its three taps
AT_P, AT_Q = 1 / (2 * P**2 * (P**2 - Q**2)), 1 / (2 * Q**2 * (Q**2 - P**2))
POINTS = (
    (1 / (P * Q) ** 2, 0.0, 0.0),
    (AT_P, P * AT_P, P**2 * AT_P),
    (AT_P, -P * AT_P, P**2 * AT_P),
    (AT_Q, Q * AT_Q, Q**2 * AT_Q),
    (AT_Q, -Q * AT_Q, Q**2 * AT_Q),
    (0.0, 0.0, 1.0),
)


def winograd_pack(weight: torch.Tensor) -> torch.Tensor:
    """``G g G^T`` of every filter, ``[ceil(O / 32), 36, C rounded up to 16, 32]``, zeros where there is no filter.

    Args:
        weight: ``[O, C, 3, 3]``. Filters of 16-bit floats are packed in float32.
    """
    O, C = weight.shape[:2]
    g = torch.tensor(POINTS, dtype=torch.float64, device=weight.device)
    points = (g @ weight.double() @ g.T).permute(2, 3, 1, 0).reshape(36, C, O)
    points = functional.pad(points, (0, -O % FILTERS, 0, -C % CHANNELS))
    packed = points.unflatten(2, (points.shape[2] // FILTERS, FILTERS)).permute(2, 0, 1, 3)
    return packed.to(torch.promote_types(weight.dtype, torch.float32)).contiguous()


def winograd_conv2d(
    x_BHWC: torch.Tensor,
    weight: torch.Tensor,
    packed: torch.Tensor,
    bias: torch.Tensor | None,
    other_BhwO: torch.Tensor | None,
    padding: Sequence[int],
    activation: int,
) -> torch.Tensor:
    """``activation(conv2d(x, weight, bias) + other)`` by the convolution of the device: ``[B, h, w, O]``.

    Args:
        x_BHWC: input.
        weight: ``[O, C, 3, 3]``.
        packed: what :func:`winograd_pack` made of it; not read here.
        bias: ``[O]`` or None.
        other_BhwO: added in front of the activation; or None.
        padding: zeros on each side (vertical, horizontal).
        activation: 0 none, 1 ReLU, 2 SiLU.
    """
    y = functional.conv2d(x_BHWC.permute(0, 3, 1, 2), weight, bias, padding=list(padding)).permute(0, 2, 3, 1)
    if other_BhwO is not None:
        y = y + other_BhwO
    if activation == 1:
        y = functional.relu(y)
    elif activation == 2:
        y = functional.silu(y)
    return y.contiguous()
