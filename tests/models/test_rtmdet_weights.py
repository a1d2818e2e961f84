"""Checkpoints of MMDetection's RTMDet fit: each key of theirs has a place here, and each place is filled."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from detc.compiler.check import check
from detc.compiler.program import build
from detc.runtime.weights.keys import map_keys


def conv_module(key: str, cin: int, cout: int, kernel: int, groups: int = 1) -> Iterator[tuple[str, Tensor]]:
    """The tensors of a convolution with batch norm, as MMCV names them."""
    yield f"{key}.conv.weight", torch.randn(cout, cin // groups, kernel, kernel)
    for name in ("weight", "bias", "running_mean", "running_var"):
        yield f"{key}.bn.{name}", torch.rand(cout) + 0.5
    yield f"{key}.bn.num_batches_tracked", torch.tensor(7)


def csp(key: str, cin: int, cout: int, blocks: int, attention: bool) -> Iterator[tuple[str, Tensor]]:
    half = cout // 2
    yield from conv_module(f"{key}.main_conv", cin, half, 1)
    yield from conv_module(f"{key}.short_conv", cin, half, 1)
    yield from conv_module(f"{key}.final_conv", cout, cout, 1)
    for i in range(blocks):
        yield from conv_module(f"{key}.blocks.{i}.conv1", half, half, 3)
        yield from conv_module(f"{key}.blocks.{i}.conv2.depthwise_conv", half, half, 5, groups=half)
        yield from conv_module(f"{key}.blocks.{i}.conv2.pointwise_conv", half, half, 1)
    if attention:
        yield f"{key}.attention.fc.weight", torch.randn(cout, cout, 1, 1)
        yield f"{key}.attention.fc.bias", torch.randn(cout)


def cspnext(key: str, widths: list[int], blocks: list[int]) -> Iterator[tuple[str, Tensor]]:
    stem, *stages = widths
    yield from conv_module(f"{key}stem.0", 3, stem // 2, 3)
    yield from conv_module(f"{key}stem.1", stem // 2, stem // 2, 3)
    yield from conv_module(f"{key}stem.2", stem // 2, stem, 3)
    for i, (cin, cout, n) in enumerate(zip(widths, stages, blocks, strict=False), 1):
        yield from conv_module(f"{key}stage{i}.0", cin, cout, 3)
        if i == 4:
            yield from conv_module(f"{key}stage4.1.conv1", cout, cout // 2, 1)
            yield from conv_module(f"{key}stage4.1.conv2", cout * 2, cout, 1)
        yield from csp(f"{key}stage{i}.{1 + (i == 4)}", cout, cout, n, attention=True)


def rtmdet_tiny(classes: int) -> Iterator[tuple[str, Tensor]]:
    """A whole checkpoint; the convolutions shared by the head's levels are stored once a level."""
    yield from cspnext("backbone.", [24, 48, 96, 192, 384], [1, 1, 1, 1])
    c = [96, 192, 384]
    for i, level in enumerate((2, 1)):
        yield from conv_module(f"neck.reduce_layers.{i}", c[level], c[level - 1], 1)
        yield from csp(f"neck.top_down_blocks.{i}", 2 * c[level - 1], c[level - 1], 1, attention=False)
    for i in range(2):
        yield from conv_module(f"neck.downsamples.{i}", c[i], c[i], 3)
        yield from csp(f"neck.bottom_up_blocks.{i}", 2 * c[i], c[i + 1], 1, attention=False)
    for i in range(3):
        yield from conv_module(f"neck.out_convs.{i}", c[i], 96, 3)
    for tower in ("cls", "reg"):
        shared = [torch.randn(96, 96, 3, 3) for _ in range(2)]
        for level in range(3):
            for k in range(2):
                for key, value in conv_module(f"bbox_head.{tower}_convs.{level}.{k}", 96, 96, 3):
                    yield key, shared[k] if key.endswith("conv.weight") else value
            out = classes if tower == "cls" else 4
            yield f"bbox_head.rtm_{tower}.{level}.weight", torch.randn(out, 96, 1, 1)
            yield f"bbox_head.rtm_{tower}.{level}.bias", torch.randn(out)


@pytest.fixture(scope="module")
def model() -> torch.nn.Module:
    text = 'det 1\nimport std.models { RTMDetTiny }\nrun { model = RTMDetTiny(classes = ["a", "b"]) }\n'
    return build(check(text).run()).model


def test_a_detector_checkpoint_fits_without_a_gap(model: torch.nn.Module) -> None:
    theirs = dict(rtmdet_tiny(classes=2))
    mapped = map_keys(theirs, model.state_dict(), "rtmdet_tiny_8xb32-300e_coco.pth")
    assert mapped.table == "mmdet_rtmdet"
    model.load_state_dict(mapped.state, strict=True)
    state = model.state_dict()
    for here, there in {
        "backbone.stage.3.csp.block.0.separable.depthwise.conv.weight": (
            "backbone.stage2.1.blocks.0.conv2.depthwise_conv.conv.weight"
        ),
        "backbone.stage.5.spp.fuse.norm.bias": "backbone.stage4.1.conv2.bn.bias",
        "neck.reduce.2.conv.weight": "neck.reduce_layers.0.conv.weight",
        "neck.bottom_up.1.last.norm.running_var": "neck.bottom_up_blocks.0.final_conv.bn.running_var",
        "head.reg_conv.1.weight": "bbox_head.reg_convs.2.1.conv.weight",
        "head.cls_norm.2.0.weight": "bbox_head.cls_convs.2.0.bn.weight",
        "head.cls.1.bias": "bbox_head.rtm_cls.1.bias",
    }.items():
        assert torch.equal(state[here], theirs[there]), here
    extra = [k for k in mapped.dropped if ".conv." not in k]
    assert not extra


def test_a_backbone_checkpoint_fits(model: torch.nn.Module) -> None:
    theirs = dict(cspnext("backbone.", [24, 48, 96, 192, 384], [1, 1, 1, 1]))
    theirs["head.fc.weight"] = torch.zeros(1000, 384)
    backbone = model.get_submodule("backbone")
    mapped = map_keys(theirs, backbone.state_dict(), "cspnext-tiny_imagenet.pth")
    backbone.load_state_dict(mapped.state, strict=True)
