"""What a forward pass costs: multiply-adds counted from the inference graph, and parameters."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from detc.compiler.program import Program


def parameters(program: Program) -> int:
    """Parameters of the model as the spec has it, frozen ones included, buffers not."""
    return sum(p.numel() for p in program.model.parameters())


def multiply_adds(program: Program, height: int, width: int) -> int:
    """Multiply-adds (MACs) of one image through the inference graph; nothing is computed.

    Convolutions, linear layers, matrix products and attention count (torch's own counter, halved), and so do
    the products of deformable convolutions. Elementwise work, norms, pooling, sampling and suppression do not.
    FLOPs are twice as many.
    """
    import torch
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.utils.flop_counter import FlopCounterMode

    graph = program.infer_graph
    training = program.model.training
    graph.eval()
    # the counter follows modules by gradient hooks, which a view of a parameter that wants a gradient upsets
    learning = [p for p in program.model.parameters() if p.requires_grad]
    for parameter in learning:
        parameter.requires_grad_(False)
    counter = FlopCounterMode(display=False, custom_mapping=_own_ops())
    try:
        with FakeTensorMode(allow_non_fake_inputs=True), counter, torch.no_grad():
            pixels = torch.empty(1, 3, height, width)
            graph({"pixels": pixels, "size": torch.empty(1, 2)})
    finally:
        program.model.train(training)
        for parameter in learning:
            parameter.requires_grad_(True)
    return int(counter.get_total_flops()) // 2


def _own_ops() -> dict[Any, Any]:
    """Formulas for native ops that are mostly products: two floating-point operations each."""
    import torch

    from detc.nativeops import ops  # noqa: F401  (registers them)

    def deform_conv2d(
        x: Any, offset: Any, weight: Any, *rest: Any, out_shape: Any = None, **options: Any
    ) -> int:
        batch, _, height, width = out_shape
        out, channels, kernel_h, kernel_w = weight
        return int(2 * batch * height * width * out * channels * kernel_h * kernel_w)

    return {torch.ops.detc.deform_conv2d: deform_conv2d}
