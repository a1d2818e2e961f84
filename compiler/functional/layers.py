"""Modules that torch does not have: frozen batch norm, weight standardisation, learnable scalars and the like.

Shape legend: B images, C channels, H height, W width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class FrozenBatchNorm2d(nn.BatchNorm2d):
    """A batch norm that stays in evaluation mode and does not learn; its checkpoint keys are batch norm's."""

    def __init__(self, num_features: int, eps: float = 1e-5, momentum: float = 0.1) -> None:
        super().__init__(num_features, eps=eps, momentum=momentum)
        self.requires_grad_(False)
        self.training = False

    def train(self, mode: bool = True) -> FrozenBatchNorm2d:
        """Stay in evaluation mode, whatever `mode` asks for."""
        super().train(False)
        return self


class StandardisedConv2d(nn.Conv2d):
    """A convolution by weights of mean 0 and deviation 1 in each output channel (Qiao et al., 2019, section 3)."""

    eps = 1e-5

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """[B, C, H, W] to [B, O, H', W']."""
        w_ON = self.weight.flatten(1)
        deviation_O1, mean_O1 = torch.std_mean(w_ON, 1, keepdim=True)
        w_ON = (w_ON - mean_O1) / (deviation_O1 + self.eps)
        return self._conv_forward(x_BCHW, w_ON.view_as(self.weight), self.bias)


class LayerNorm2d(nn.LayerNorm):
    """Layer norm over the channels of a map [B, C, H, W]."""

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Normalise every position by itself."""
        return super().forward(x_BCHW.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class Scale(nn.Module):
    """`x * scale` with one learnable number (scale: shape [], as published FCOS checkpoints have it)."""

    def __init__(self, init: float = 1.0) -> None:
        super().__init__()
        self.init = init
        self.scale = nn.Parameter(torch.tensor(init))

    def forward(self, x: Tensor) -> Tensor:
        """Any shape; it stays."""
        return x * self.scale


class FreeParameter(nn.Module):
    """Returns its `value`, a learnable tensor."""

    def __init__(self, shape: list[int], init: str, std: float) -> None:
        super().__init__()
        self.shape, self.init, self.std = list(shape), init, std
        self.value = nn.Parameter(torch.zeros(shape))
        if init == "normal":
            nn.init.normal_(self.value, std=std)
        elif init == "uniform":
            nn.init.uniform_(self.value, -std, std)
        elif init == "ones":
            nn.init.ones_(self.value)

    def forward(self) -> Tensor:
        """The parameter itself."""
        return self.value
