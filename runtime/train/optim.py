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
        DetError: DET0710 if the rate is given per something other than images.
    """
    return rate_at(optimizer.lr, batch)


def rate_at(lr: Rate | float, batch: int) -> float:
    """A rate as a spec writes it, for a step over `batch` images; errors as `base_rate`."""
    if not isinstance(lr, Rate):
        return float(lr)
    if lr.per is not None and lr.per.unit != "img":
        raise error(
            "DET0710", f"a learning rate is given per images, not per {lr.per.unit}", help="write `per 16img`"
        )
    return lr.at(batch)


def build_optimizer(spec: TrainSpec, model: nn.Module, device: torch.device) -> optim.Optimizer:
    """The torch optimiser of `spec` over the trainable parameters of `model`, which lie on `device`.

    Raises:
        DetError: DET0702 if a group matches nothing, DET0710 if nothing is left to train.
    """
    groups = parameter_groups(model, spec.groups)
    if not groups:
        raise error("DET0710", "nothing to train: every parameter of the model is frozen")
    assert isinstance(spec.optim, Optimizer)
    base = base_rate(spec.optim, spec.batch)
    torch_groups = [_options(group, base, spec.batch) for group in groups]
    fused = device.type in ("cpu", "cuda") and all(p.is_floating_point() for g in groups for p in g["params"])
    return spec.optim.build(torch_groups, base, fused)


def _options(group: dict[str, Any], base: float, batch: int) -> dict[str, Any]:
    options = {k: v for k, v in group.items() if k not in ("names", "lr")}
    if "betas" in options:
        options["betas"] = tuple(options["betas"])
    if "lr" in group:
        # The schedule multiplies every group's rate alike, so an own rate is a scale of the base rate.
        options["lr_scale"] = options.get("lr_scale", 1.0) * rate_at(group["lr"], batch) / base
    return options
