"""Kalman filters with constant velocity for boxes.

In both filters of the field every coordinate moves by itself and all noise is independent, so the 8 x 8
covariance of (position, velocity) never leaves its four 2 x 2 blocks. Each block is kept as three numbers:
(position variance, covariance, velocity variance). No matrix has to be inverted.

========  ============================  ======================================================================
motion    coordinates                   noise
========  ============================  ======================================================================
`xyah`    centre, width/height, height  grows with the box's height (DeepSORT, Wojke et al., ICIP 2017;
                                        ByteTrack, Zhang et al., ECCV 2022)
`xysr`    centre, area, width/height    constant; the ratio has no velocity (SORT, Bewley et al., ICIP 2016)
========  ============================  ======================================================================

Shapes: mean, velocity [..., 4]; covariance [..., 4, 3]; boxes [..., 4] xyxy in pixels.
"""

from __future__ import annotations

import torch
from torch import Tensor

POSITION, VELOCITY = 1.0 / 20, 1.0 / 160  # xyah: deviations as shares of the height
SMALL = 1e-6


def boxes_to_mean(boxes: Tensor, motion: str) -> Tensor:
    """The coordinates of boxes."""
    x1, y1, x2, y2 = boxes.unbind(-1)
    width, height = (x2 - x1).clamp(min=SMALL), (y2 - y1).clamp(min=SMALL)
    centre = ((x1 + x2) / 2, (y1 + y2) / 2)
    rest = (width / height, height) if motion == "xyah" else (width * height, width / height)
    return torch.stack((*centre, *rest), -1)


def mean_to_boxes(mean: Tensor, motion: str) -> Tensor:
    """The boxes of coordinates; sides are not negative."""
    x, y, a, b = mean.unbind(-1)
    if motion == "xyah":
        width, height = (a * b).clamp(min=0), b.clamp(min=0)
    else:
        width = (a * b).clamp(min=0).sqrt()
        height = a.clamp(min=0) / width.clamp(min=SMALL)
    return torch.stack((x - width / 2, y - height / 2, x + width / 2, y + height / 2), -1)


def kalman_begin(boxes: Tensor, motion: str) -> tuple[Tensor, Tensor]:
    """Mean and covariance of tracks that begin at `boxes`; their velocity is zero, and hardly known."""
    mean = boxes_to_mean(boxes, motion)
    if motion == "xyah":
        height = mean[..., 3:]
        position = _shares(height, 2 * POSITION, 1e-2)
        velocity = _shares(height, 10 * VELOCITY, 1e-5)
    else:
        position = torch.full_like(mean, 10.0)
        velocity = _constant(mean, [1e4, 1e4, 1e4, 0.0])
    return mean, torch.stack((position, torch.zeros_like(position), velocity), -1)


def kalman_predict(
    mean: Tensor, velocity: Tensor, covariance: Tensor, lost: Tensor, motion: str
) -> tuple[Tensor, Tensor, Tensor]:
    """One frame on. `lost` [...] bool: tracks without a match in the last frame, whose height stays (xyah).

    An area that would become negative stops shrinking (xysr), as in SORT.
    """
    if motion == "xyah":
        height = mean[..., 3:]
        noise, drift = _shares(height, POSITION, 1e-2), _shares(height, VELOCITY, 1e-5)
        still = torch.stack((*[torch.zeros_like(lost)] * 3, lost), -1)
    else:
        noise, drift = torch.ones_like(mean), _constant(mean, [1e-2, 1e-2, 1e-4, 0.0])
        area = mean[..., 2] + velocity[..., 2] <= 0
        still = torch.stack((*[torch.zeros_like(area)] * 2, area, torch.zeros_like(area)), -1)
    velocity = torch.where(still, torch.zeros_like(velocity), velocity)
    p, c, v = covariance.unbind(-1)
    covariance = torch.stack((p + 2 * c + v + noise, c + v, v + drift), -1)
    return mean + velocity, velocity, covariance


def kalman_correct(
    mean: Tensor, velocity: Tensor, covariance: Tensor, boxes: Tensor, motion: str
) -> tuple[Tensor, Tensor, Tensor]:
    """The filter after having seen `boxes`."""
    if motion == "xyah":
        noise = _shares(mean[..., 3:], POSITION, 1e-1)
    else:
        noise = _constant(mean, [1.0, 1.0, 10.0, 10.0])
    p, c, v = covariance.unbind(-1)
    total = (p + noise).clamp(min=SMALL**2)
    gain_p, gain_v = p / total, c / total
    wrong = boxes_to_mean(boxes, motion) - mean
    covariance = torch.stack((p - gain_p * p, c - gain_p * c, v - gain_v * c), -1)
    return mean + gain_p * wrong, velocity + gain_v * wrong, covariance


def _shares(height: Tensor, share: float, ratio: float) -> Tensor:
    """Variances [..., 4] of xyah: `share` of the height, and `ratio` for width/height."""
    wide = (share * height).expand(*height.shape[:-1], 4)
    third = torch.arange(4, device=height.device) == 2
    return torch.where(third, ratio, wide) ** 2


def _constant(like: Tensor, values: list[float]) -> Tensor:
    return like.new_tensor(values).expand_as(like)
