"""Pooling."""

from __future__ import annotations

from dataclasses import replace

from pydantic import Field, PositiveInt

from detc.compiler.dims import conv_size, dim
from detc.compiler.ops.base import Function, Op, Port
from detc.compiler.types import Map, Mismatch


class _Pool(Op):
    inputs = (Port("x", Map),)

    def _window(self) -> tuple[int, int, int]:
        raise NotImplementedError

    def infer(self, x: Map) -> Map:
        """[B, C, H, W] to [B, C, H', W']."""
        kernel, stride, padding = self._window()
        if padding > kernel // 2:
            raise Mismatch(
                f"padding {padding} is more than half of a window of {kernel}",
                code="DET0303",
                param="padding",
            )
        height, width = (conv_size(size, kernel, stride, padding) for size in (x.height, x.width))
        return replace(x, stride=x.stride * stride, height=height, width=width)


class MaxPool(_Pool):
    """The largest value of each window. `stride` is the kernel by default."""

    module = "std.ops"
    kernel: PositiveInt
    stride: PositiveInt | None = None
    padding: int = Field(default=0, ge=0)

    def _window(self) -> tuple[int, int, int]:
        return self.kernel, self.stride or self.kernel, self.padding

    def torch(self, x: Map) -> Function:  # type: ignore[override]
        """`max_pool2d`; a window of one pixel is a mere stride."""
        kernel, stride, padding = self._window()
        if kernel == 1:
            return Function("detc.compiler.functional.tensor:subsample", {"stride": stride})
        return Function(
            "torch.nn.functional:max_pool2d", {"kernel_size": kernel, "stride": stride, "padding": padding}
        )


class AvgPool(_Pool):
    """The mean of each window. `stride` is the kernel by default. Padding counts as zeros if `count_pad`."""

    module = "std.ops"
    kernel: PositiveInt
    stride: PositiveInt | None = None
    padding: int = Field(default=0, ge=0)
    count_pad: bool = False
    ceil: bool = False

    def _window(self) -> tuple[int, int, int]:
        return self.kernel, self.stride or self.kernel, self.padding

    def infer(self, x: Map) -> Map:
        """[B, C, H, W] to [B, C, H', W']; with `ceil` a partial window at the end counts."""
        pooled = super().infer(x)
        if not self.ceil:
            return pooled
        kernel, stride, padding = self._window()
        sizes = (conv_size(size + (stride - 1), kernel, stride, padding) for size in (x.height, x.width))
        height, width = sizes
        return replace(pooled, height=height, width=width)

    def torch(self, x: Map) -> Function:  # type: ignore[override]
        """`avg_pool2d`."""
        kernel, stride, padding = self._window()
        return Function(
            "torch.nn.functional:avg_pool2d",
            {
                "kernel_size": kernel,
                "stride": stride,
                "padding": padding,
                "ceil_mode": self.ceil,
                "count_include_pad": self.count_pad,
            },
        )


class GlobalAvgPool(Op):
    """The mean of each channel, as a map of one pixel, which broadcasts in arithmetic."""

    module = "std.ops"
    inputs = (Port("x", Map),)

    def infer(self, x: Map) -> Map:
        """[B, C, H, W] to [B, C, 1, 1]."""
        return replace(x, height=dim(1), width=dim(1))

    def torch(self, x: Map) -> Function:  # type: ignore[override]
        """`adaptive_avg_pool2d` to one pixel."""
        return Function("torch.nn.functional:adaptive_avg_pool2d", {"output_size": 1})
