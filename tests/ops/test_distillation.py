"""Channel-wise distillation: its value, its gradient, and its complaint about widths."""

from __future__ import annotations

import pytest
import torch

from detc.compiler.ops.losses_distill import ChannelKD
from detc.compiler.types import Mismatch, Pyramid

from .running import run
from .test_elementary import feature_map


def test_equal_maps_cost_nothing() -> None:
    pyramid = Pyramid((feature_map(8), feature_map(8, 2, 12, 20)))
    x = [torch.randn(2, 8, 24, 40), torch.randn(2, 8, 12, 20)]
    assert torch.isclose(
        run(ChannelKD(tau=2.0), pyramid, pyramid, given=[x, x]), torch.tensor(0.0), atol=1e-6
    )


def test_it_is_the_relative_entropy_over_positions() -> None:
    m = feature_map(3, h=4, w=5)
    a, b = torch.randn(2, 3, 4, 5, requires_grad=True), torch.randn(2, 3, 4, 5, requires_grad=True)
    loss = run(ChannelKD(tau=2.0), m, m, given=[a, b])
    wanted = torch.nn.functional.kl_div(
        (a.flatten(2) / 2).log_softmax(-1), (b.flatten(2) / 2).softmax(-1), reduction="sum"
    )
    assert torch.isclose(loss, wanted * 4 / 6, rtol=1e-4)
    loss.backward()
    assert a.grad is not None
    assert b.grad is None


def test_widths_must_agree() -> None:
    with pytest.raises(Mismatch, match=r"distil feature maps with 128 and 256 channels") as caught:
        ChannelKD().infer(Pyramid((feature_map(128),)), Pyramid((feature_map(256),)))
    assert "1x1" in str(caught.value.help)
