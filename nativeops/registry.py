"""The one door through which an op becomes ``torch.ops.detc.<name>``.

Python owns every schema, so an op exists, with the same signature, whether or not the native library does.
Its reference is registered as the ``CompositeExplicitAutograd`` kernel and so serves every device; the
library registers ``CPU`` and ``CUDA`` kernels, which the dispatcher prefers. The reference's first real call
asks the loader for the library and dispatches again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from detc.nativeops import loader

LIBRARY = torch.library.Library("detc", "FRAGMENT")
_REFERENCES: dict[str, Callable[..., Any]] = {}


def native_op(
    schema: str,
    *,
    reference: Callable[..., Any],
    fake: Callable[..., Any],
    setup_context: Callable[..., None] | None = None,
    backward: Callable[..., Any] | None = None,
) -> torch._ops.OpOverload:
    """Define ``detc::<name>`` and return its overload, which is what public functions call.

    Args:
        schema: ``"name(Tensor a, float b) -> Tensor"``: functional (no aliasing, no mutation).
        reference: the op in pure torch; takes the schema's arguments in order.
        fake: output shapes and dtypes from (fake) inputs; same arguments.
        setup_context, backward: as for ``torch.library.register_autograd``; both or neither.
    """
    name = schema.split("(", 1)[0]
    LIBRARY.define(schema, tags=(torch.Tag.pt2_compliant_tag,))
    _REFERENCES[name] = reference
    overload = getattr(torch.ops.detc, name).default

    def bootstrap(*args: Any, **kwargs: Any) -> Any:
        device = _device_of(args)
        if (
            loader.wants(device.type)
            and loader.ensure_loaded(device.type)
            and has_native_kernel(name, device.type)
        ):
            return overload(*args, **kwargs)
        return reference(*args, **kwargs)

    LIBRARY.impl(name, bootstrap, "CompositeExplicitAutograd")
    torch.library.register_fake(f"detc::{name}", fake, lib=LIBRARY)
    if backward is not None:
        torch.library.register_autograd(f"detc::{name}", backward, setup_context=setup_context, lib=LIBRARY)
    return overload


def op_names() -> list[str]:
    """Every op that was defined here, backward ones included."""
    return sorted(_REFERENCES)


def reference_of(name: str) -> Callable[..., Any]:
    """The op in pure torch: what its kernels are held to, and what runs where there are none."""
    return _REFERENCES[name]


def has_native_kernel(name: str, device_type: str) -> bool:
    """Whether the loaded library implements ``detc::<name>`` for this kind of device."""
    key = {"cpu": "CPU", "cuda": "CUDA"}.get(device_type)
    return key is not None and torch._C._dispatch_has_kernel_for_dispatch_key(f"detc::{name}", key)


def _device_of(args: Sequence[Any]) -> torch.device:
    for arg in args:
        if isinstance(arg, torch.Tensor):
            return arg.device
        if isinstance(arg, (list, tuple)) and arg and isinstance(arg[0], torch.Tensor):
            return arg[0].device
    return torch.device("cpu")
