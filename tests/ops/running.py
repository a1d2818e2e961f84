"""Running an op on example inputs of given types."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import torch
from torch import nn

from detc.compiler.ops.base import Function, Op
from detc.compiler.types import Map, Pyramid, Struct, Tensor


def example(t: Any) -> Any:
    """A random value of type `t`, with two images."""
    if isinstance(t, Pyramid):
        return [example(m) for m in t.maps]
    if isinstance(t, Map):
        return torch.randn(2, t.channels, int(t.height), int(t.width))
    if isinstance(t, Struct):
        return {name: example(f) for name, f in t.fields}
    assert isinstance(t, Tensor)
    return torch.randn([d.evaluate({"B": 2}) for d in t.shape])


def lowered(op: Op, *types: Any) -> Any:
    """What `op.torch` returns, as something to call."""
    made = op.torch(*types)
    if isinstance(made, nn.Module):
        return made
    assert isinstance(made, Function)
    module, _, name = made.path.partition(":")
    fn = getattr(import_module(module), name)
    return lambda *inputs: fn(*inputs, **made.kwargs)


def run(op: Op, *types: Any, given: list[Any] | None = None) -> Any:
    """The op's result on random inputs of `types`, or on `given` ones."""
    return lowered(op, *types)(*(given if given is not None else [example(t) for t in types]))
