"""ResNets against torchvision's: parameters, and features with torchvision's (random) weights."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn

from detc.compiler.check import check
from detc.compiler.program import Program, build
from detc.runtime.weights.keys import map_keys

SPEC = """det 1
import std.backbones {{ {name} }}
import std.ops {{ Conv2d }}
model Features(classes: labels) {{
  input image: image
  node backbone: Backbone = {call}
  feats = image -> backbone
  infer {{ output feats: pyramid = feats }}
}}
run {{ model = Features(classes = ["a"]) }}
"""


def backbone(call: str, meta: bool = False) -> Program:
    """A model that returns the features of `call`."""
    result = check(SPEC.format(name=call.partition("(")[0], call=call))
    assert not result.report.errors, result.report.errors
    with torch.device("meta" if meta else "cpu"):
        return build(result.run())


def without_classifier(name: str) -> nn.Module:
    net = getattr(torchvision.models, name)(weights=None)
    net.fc = nn.Identity()
    return net


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize(
    ("call", "name"),
    [
        ("ResNet(18)", "resnet18"),
        ("ResNet(34)", "resnet34"),
        ("ResNet(50)", "resnet50"),
        ("ResNet(101)", "resnet101"),
        ("ResNet(152)", "resnet152"),
        ("ResNeXt(50)", "resnext50_32x4d"),
        ("ResNeXt(101, group_width = 8)", "resnext101_32x8d"),
    ],
)
def test_parameters_and_keys_are_torchvisions(call: str, name: str) -> None:
    with torch.device("meta"):
        peer = without_classifier(name)
    mine = backbone(call, meta=True).model
    assert count(mine) == count(peer)
    mapped = map_keys(peer.state_dict(), mine.backbone.state_dict(), f"torchvision/{name}")
    assert mapped.table == "torchvision_resnet"
    shapes = {k: v.shape for k, v in mine.backbone.state_dict().items()}
    assert {k: v.shape for k, v in mapped.state.items()} == shapes


@pytest.mark.parametrize(("call", "name"), [("ResNet(18)", "resnet18"), ("ResNeXt(50)", "resnext50_32x4d")])
def test_features_are_torchvisions(call: str, name: str) -> None:
    torch.manual_seed(0)
    peer = without_classifier(name)
    image = {"pixels": torch.rand(1, 3, 64, 96) * 255, "size": torch.tensor([[64.0, 96.0]])}
    mean = torch.tensor([123.675, 116.28, 103.53])[:, None, None]
    normal = (image["pixels"] - mean) / torch.tensor([58.395, 57.12, 57.375])[:, None, None]
    for m in peer.modules():
        if isinstance(m, nn.BatchNorm2d):
            m.momentum = 1.0
    with torch.no_grad():
        peer(normal)
        peer.eval()
        theirs = stages_of(peer, normal)
    mine = backbone(call)
    mapped = map_keys(peer.state_dict(), mine.model.backbone.state_dict(), f"torchvision/{name}")
    mine.model.backbone.load_state_dict(mapped.state, strict=True)
    mine.model.eval()
    with torch.no_grad():
        feats = mine.infer_graph(image)["feats"]
    for a, b in zip(feats, theirs, strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)


def stages_of(net: Any, x: Tensor) -> list[Tensor]:
    x = net.maxpool(net.relu(net.bn1(net.conv1(x))))
    maps = []
    for layer in (net.layer1, net.layer2, net.layer3, net.layer4):
        x = layer(x)
        maps.append(x)
    return maps


def test_deep_stem_and_averaging_shortcuts() -> None:
    mine = backbone("ResNetD(50)", meta=True).model
    plain = backbone("ResNet(50)", meta=True).model
    stem = 3 * 32 * 9 + 32 * 32 * 9 + 32 * 64 * 9 + 2 * (32 + 32 + 64)
    assert count(mine) == count(plain) - (3 * 64 * 49 + 2 * 64) + stem
    assert mine.get_submodule("backbone.stage.3.block.0.down.conv").stride == (1, 1)


def test_freezing() -> None:
    mine = backbone('ResNet(18, freeze = 1, norm = "frozen")').model
    mine.train()
    net = mine.backbone
    learning = {name for name, p in net.named_parameters() if p.requires_grad}
    assert not any(".norm" in n or n.startswith(("stem.", "stage.2.")) for n in learning)
    assert "stage.3.block.0.conv1.weight" in learning
    assert not any(m.training for m in net.modules() if isinstance(m, nn.BatchNorm2d))
    free = backbone("ResNet(18)").model
    assert all(p.requires_grad for p in free.parameters())


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ("ResNet(51)", "there is no ResNet"),
        ("ResNet(18, groups = 32)", "no bottlenecks"),
        ("ResNet(50, freeze = 5)", "four stages"),
    ],
)
def test_impossible_nets_are_refused(call: str, message: str) -> None:
    report = check(SPEC.format(name="ResNet", call=call)).report
    assert any(message in d.message for d in report.errors)
