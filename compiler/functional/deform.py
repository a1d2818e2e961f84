"""Deformable convolution as a layer: the convolution that makes the offsets, and the native op that obeys them.

Shape legend: B images, C and O channels, G groups of offsets, T taps of the kernel.
"""

from __future__ import annotations

from torch import Tensor, nn

from detc.nativeops import ops


class DeformConv2d(nn.Conv2d):
    """See `compiler.ops.conv.DeformConv2d`; `offset` makes 2 G T channels (dy, dx), and G T more if modulated."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int,
        stride: int,
        padding: int,
        dilation: int,
        groups: int,
        bias: bool,
        *,
        modulated: bool,
        offset_groups: int,
    ) -> None:
        super().__init__(in_channels, out_channels, kernel, stride, padding, dilation, groups, bias)
        self.kernel, self.modulated, self.offset_groups = kernel, modulated, offset_groups
        self.taps = offset_groups * kernel * kernel
        self.offset = nn.Conv2d(
            in_channels, (3 if modulated else 2) * self.taps, kernel, stride, padding, dilation
        )
        nn.init.zeros_(self.offset.weight)
        assert self.offset.bias is not None
        nn.init.zeros_(self.offset.bias)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """[B, C, H, W] to [B, O, H', W']."""
        made = self.offset(x_BCHW)
        mask = made[:, 2 * self.taps :].sigmoid() if self.modulated else None
        return ops.deform_conv2d(
            x_BCHW,
            made[:, : 2 * self.taps],
            self.weight,
            self.bias,
            stride=(self.stride[0], self.stride[1]),
            padding=(int(self.padding[0]), int(self.padding[1])),
            dilation=(self.dilation[0], self.dilation[1]),
            mask=mask,
        )
