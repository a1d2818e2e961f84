"""How the weights of convolutions and linear layers begin."""

from __future__ import annotations

import math

from torch import nn


def initialise(
    layer: nn.Conv2d | nn.ConvTranspose2d | nn.Linear,
    init: str,
    std: float,
    bias_init: float,
    prior: float | None,
) -> None:
    """Fill `layer` in place, see `compiler.ops.conv`. Draws from torch's global generator.

    Raises:
        ValueError: if `init` is not known.
    """
    weight = layer.weight
    if init == "kaiming":
        nn.init.kaiming_normal_(weight, mode="fan_out", nonlinearity="relu")
    elif init == "caffe2":
        nn.init.kaiming_uniform_(weight, a=1)
    elif init == "xavier":
        nn.init.xavier_uniform_(weight)
    elif init == "normal":
        nn.init.normal_(weight, std=std)
    elif init == "zeros":
        nn.init.zeros_(weight)
    elif init != "default":
        raise ValueError(f"unknown initialisation {init!r}")
    if layer.bias is None:
        return
    if prior is not None:
        nn.init.constant_(layer.bias, -math.log((1 - prior) / prior))
    elif init != "default" or bias_init:
        nn.init.constant_(layer.bias, bias_init)
