"""The optimiser of a run: parameter groups, the rate for the batch in use, fused kernels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from detc.compiler.spec import Rate, TrainSpec
from detc.dsl.diagnostics import error
from detc.runtime.train.groups import parameter_groups
from detc.runtime.train.schema import Optimizer

if TYPE_CHECKING:
    from torch import nn, optim


def base_rate(optimizer: Optimizer, batch: int) -> float:
    """The learning rate for a step over `batch` images (all processes and accumulation steps together).

    Raises:
        DetError: DET0703 if the rate is given per something other than images.
    """
    lr = optimizer.lr
    if not isinstance(lr, Rate):
        return float(lr)
    if lr.per is not None and lr.per.unit != "img":
        raise error(
            "DET0703", f"a learning rate is given per images, not per {lr.per.unit}", help="write `per 16img`"
        )
    return lr.at(batch)


def build_optimizer(spec: TrainSpec, model: nn.Module, device: torch.device) -> optim.Optimizer:
    """The torch optimiser of `spec` over the trainable parameters of `model`, which lie on `device`.

    Raises:
        DetError: DET0702 if a group matches nothing, DET0703 if nothing is left to train.
    """
    groups = parameter_groups(model, spec.groups)
    if not groups:
        raise error("DET0703", "nothing to train: every parameter of the model is frozen")
    assert isinstance(spec.optim, Optimizer)
    torch_groups = [{k: _value(k, v) for k, v in group.items() if k != "names"} for group in groups]
    fused = device.type in ("cpu", "cuda") and all(p.is_floating_point() for g in groups for p in g["params"])
    return spec.optim.build(torch_groups, base_rate(spec.optim, spec.batch), fused)


def _value(key: str, value: Any) -> Any:
    if key == "betas":
        return tuple(value)
    return float(value) if key in ("lr_scale", "weight_decay", "momentum") else value
