"""What several op families share: checks of inputs, gradients of a reference, the common dtype under autocast."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch


def gradients_of(
    function: Callable[..., torch.Tensor], inputs: Sequence[torch.Tensor | None], grad: torch.Tensor
) -> tuple[torch.Tensor, ...]:
    """Vector-Jacobian product of a reference, recomputed under autograd; zeros where it ignores an input.

    Inputs that are None are passed through, and have no gradient in the result.
    """
    with torch.enable_grad():
        leaves = [None if x is None else x.detach().requires_grad_() for x in inputs]
        out = function(*leaves)
        tensors = [leaf for leaf in leaves if leaf is not None]
        if not out.requires_grad:
            return tuple(torch.zeros_like(leaf) for leaf in tensors)
        grads = torch.autograd.grad(out, tensors, grad, allow_unused=True, materialize_grads=True)
    return tuple(g.detach() for g in grads)


def check(op: str, name: str, tensor: torch.Tensor, layout: str) -> None:
    """Refuse a tensor without the axes that ``layout`` (``"[B, C, H, W]"``) names.

    Raises:
        ValueError: it has more or fewer axes.
    """
    if tensor.dim() != layout.count(",") + 1:
        raise ValueError(f"{op}: {name} must be {layout}, got {tuple(tensor.shape)}")


def check_floating(op: str, name: str, tensor: torch.Tensor) -> None:
    """Refuse whole numbers, booleans and complex numbers.

    Raises:
        TypeError: the tensor holds no real floating-point numbers.
    """
    if not tensor.is_floating_point():
        raise TypeError(f"{op}: {name} must be floating point, got {tensor.dtype}")


def check_bool(op: str, name: str, tensor: torch.Tensor) -> None:
    """Refuse masks that are not boolean.

    Raises:
        TypeError: another dtype.
    """
    if tensor.dtype != torch.bool:
        raise TypeError(f"{op}: {name} must be bool, got {tensor.dtype}")


def check_device(op: str, *tensors: torch.Tensor | None) -> None:
    """Refuse tensors of several devices: a kernel trusts that it may read all of its inputs.

    Raises:
        ValueError: they are not all on one.
    """
    device = None
    for tensor in tensors:
        if tensor is None:
            continue
        if device is None:
            device = tensor.device
        elif tensor.device != device:
            raise ValueError(f"{op}: inputs are on {device} and on {tensor.device}, not on one device")


def widest(*tensors: torch.Tensor | None) -> torch.dtype:
    """The dtype that holds all of them (an op's kernels take one dtype).

    Raises:
        TypeError: there is no floating-point tensor among them.
    """
    present = [t.dtype for t in tensors if t is not None]
    dtype = present[0]
    for other in present[1:]:
        # Guarded because torch.export records promote_types as a node of the graph.
        dtype = dtype if dtype == other else torch.promote_types(dtype, other)
    if not dtype.is_floating_point:
        raise TypeError(f"expected floating-point tensors, got {', '.join(map(str, present))}")
    return dtype


def constant(tensor: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """The tensor in this dtype, without gradient; as it is where it already is so, to leave no nodes in
    exported graphs."""
    tensor = tensor.detach() if tensor.requires_grad else tensor
    return tensor if tensor.dtype == dtype else tensor.to(dtype)


def cast(tensor: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """The tensor in this dtype; itself where it already is, to leave no nodes in exported graphs."""
    return tensor if tensor.dtype == dtype else tensor.to(dtype)


def cast_some(tensor: torch.Tensor | None, dtype: torch.dtype) -> torch.Tensor | None:
    """:func:`cast` of an optional input."""
    return None if tensor is None else cast(tensor, dtype)


def pair(value: int | Sequence[int]) -> list[int]:
    """``[v, v]`` of a number, a list of a pair.

    Raises:
        ValueError: more or fewer than two.
    """
    numbers = [int(value)] * 2 if isinstance(value, int) else [int(n) for n in value]
    if len(numbers) != 2:
        raise ValueError(f"expected one number or a pair, got {value!r}")
    return numbers
