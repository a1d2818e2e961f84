"""Distillation losses.

Shape legend: B images, C channels, H height, W width, P positions.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def channel_kd(student: Tensor | list[Tensor], teacher: Tensor | list[Tensor], *, tau: float) -> Tensor:
    """Relative entropy of the teacher's channels to the student's; maps [B, C, H, W] or lists of them.

    Computed in float32; a scalar.
    """
    students = student if isinstance(student, list) else [student]
    teachers = teacher if isinstance(teacher, list) else [teacher]
    losses = []
    for ours_BCHW, theirs_BCHW in zip(students, teachers, strict=True):
        ours_BCP = F.log_softmax(ours_BCHW.float().flatten(2) / tau, -1)
        theirs_BCP = F.log_softmax(theirs_BCHW.detach().float().flatten(2) / tau, -1)
        entropy_BC = (theirs_BCP.exp() * (theirs_BCP - ours_BCP)).sum(-1)
        losses.append(entropy_BC.mean() * tau**2)
    return torch.stack(losses).sum()
