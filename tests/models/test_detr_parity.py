"""DETR and the Deformable DETR variants against the transformers package, with the same random weights."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from detc.compiler.check import check
from detc.compiler.program import build
from detc.runtime.weights.keys import map_keys

transformers = pytest.importorskip("transformers")

HEIGHT, WIDTH, QUERIES, CLASSES, LAYERS = 96, 128, 7, 3, 2
SIZES = [[96.0, 128.0], [70.0, 90.0]]
BOXES = [[[0.4, 0.5, 0.3, 0.2], [0.7, 0.3, 0.2, 0.5], [0.2, 0.2, 0.1, 0.3]], [[0.5, 0.5, 0.6, 0.4]]]
LABELS = [[0, 2, 1], [1]]
VARIANTS = {
    "DETR": ("DETR", {"auxiliary_loss": False}, "", ""),
    "DETR, auxiliary losses": ("DETR", {"auxiliary_loss": True}, "renorm = true", ""),
    "Deformable DETR": ("DeformableDETR", {}, "", "set neck.bias = true"),
    "box refinement": ("DeformableDETR", {"with_box_refine": True}, "refine = true", "set neck.bias = true"),
    "two-stage": (
        "DeformableDETR",
        {"with_box_refine": True, "two_stage": True},
        "refine = true, two_stage = true",
        "set neck.bias = true set loss.first_cls.weight = 0.0 set loss.first_l1.weight = 0.0"
        " set loss.first_giou.weight = 0.0",  # the peer does not train its first stage
    ),
}


def peer_of(family: str, options: dict[str, Any]) -> Any:
    """A small model of the package, with weights that make every part matter."""
    torch.manual_seed(0)
    deformable = family == "DeformableDETR"
    backbone = transformers.ResNetConfig(
        layer_type="basic",
        hidden_sizes=[64, 128, 256, 512],
        depths=[2, 2, 2, 2],
        out_features=["stage2", "stage3", "stage4"] if deformable else ["stage4"],
    )
    kind = "DeformableDetr" if deformable else "Detr"
    config = getattr(transformers, f"{kind}Config")(
        backbone_config=backbone,
        d_model=32,
        encoder_layers=LAYERS,
        decoder_layers=LAYERS,
        encoder_ffn_dim=48,
        decoder_ffn_dim=48,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        num_queries=QUERIES,
        num_labels=CLASSES,
        attn_implementation="eager",
        **({"two_stage_num_proposals": QUERIES, "auxiliary_loss": True} if deformable else {}),
        **options,
    )
    peer = getattr(transformers, f"{kind}ForObjectDetection")(config).eval()
    for name, value in [*peer.named_parameters(), *peer.named_buffers()]:
        with torch.no_grad():
            if "running_var" in name:
                value.uniform_(2, 3)
            elif "norm" in name and "running" not in name:
                value.uniform_(0.3, 1.2)
            elif "backbone" not in name and "offsets.bias" not in name and value.dim() > 0:
                value.normal_(std=0.15)
    return peer


def ours(family: str, peer: Any, params: str, body: str) -> Any:
    """Our program with the peer's weights."""
    stages = "3 .. 6" if family == "DeformableDETR" else "5 .. 6"
    weight = "cls_weight = 1.0, " if family == "DeformableDETR" else ""
    text = f"""det 1
import std.backbones {{ ResNet }}
import std.models {{ {family} }}
model M(classes: labels) extends {family}(
  classes, queries = {QUERIES}, width = 32, layers = {LAYERS}, heads = 4, ffn = 48, dropout = 0.0, {weight}
  backbone = ResNet(18, stages = {stages}, freeze = 1, norm = "frozen"), {params}
) {{ {body} }}
run {{ model = M(classes = ["a", "b", "c"]) }}
"""
    result = check(text)
    assert not result.report.errors, result.report.errors
    program = build(result.run())
    mapped = map_keys(peer.state_dict(), program.model.state_dict())
    assert mapped.table == ("transformers_deformable_detr" if "Deform" in family else "transformers_detr")
    missing, _ = program.model.load_state_dict(mapped.state, strict=False)
    assert all(name.endswith("num_batches_tracked") for name in missing)
    program.model.eval()
    return program


def inputs() -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Any]]:
    """Two images, the second one padded, and its truth, as we and as the package take them."""
    image = {"pixels": torch.rand(2, 3, HEIGHT, WIDTH) * 255, "size": torch.tensor(SIZES)}
    mask = torch.zeros(2, HEIGHT, WIDTH, dtype=torch.long)
    truth = {
        "boxes": torch.zeros(2, 5, 4),
        "labels": torch.zeros(2, 5, dtype=torch.int64),
        "valid": torch.zeros(2, 5, dtype=torch.bool),
    }
    targets = []
    for i, (size, boxes, labels) in enumerate(zip(SIZES, BOXES, LABELS, strict=True)):
        mask[i, : int(size[0]), : int(size[1])] = 1
        center, extent = torch.tensor(boxes).split(2, -1)
        scale = torch.tensor([size[1], size[0]] * 2)
        truth["boxes"][i, : len(boxes)] = torch.cat((center - extent / 2, center + extent / 2), -1) * scale
        truth["labels"][i, : len(boxes)] = torch.tensor(labels)
        truth["valid"][i, : len(boxes)] = True
        targets.append({"class_labels": torch.tensor(labels), "boxes": torch.tensor(boxes)})
    mean = torch.tensor([123.675, 116.28, 103.53])[:, None, None]
    std = torch.tensor([58.395, 57.12, 57.375])[:, None, None]
    pixels = (image["pixels"] - mean) / std * mask[:, None]
    return image, truth, {"pixel_values": pixels, "pixel_mask": mask, "labels": targets}


def heads(program: Any, image: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Logits and boxes (center x, center y, width, height, in fractions) of the last decoder layer."""
    seen: dict[str, Tensor] = {}

    class Watch(torch.fx.Interpreter):
        def run_node(self, n: torch.fx.Node) -> Any:
            value = super().run_node(n)
            if "top_k" in str(n.target):
                seen["logits"] = self.env[n.args[0]]
            if "to_pixels" in str(n.target):
                seen["boxes"] = self.env[n.args[0]]
            return value

    with torch.no_grad():
        Watch(program.infer_graph).run(image)
    return seen["logits"], seen["boxes"]


@pytest.mark.parametrize("variant", VARIANTS)
def test_equals_transformers(variant: str) -> None:
    family, options, params, body = VARIANTS[variant]
    peer = peer_of(family, options)
    program = ours(family, peer, params, body)
    image, truth, theirs = inputs()
    expected = peer(**theirs)
    logits, boxes = heads(program, image)
    torch.testing.assert_close(logits, expected.logits, atol=1e-4, rtol=0)
    torch.testing.assert_close(boxes, expected.pred_boxes, atol=1e-4, rtol=0)

    losses = program.train_graph(image, truth)
    names = {"cls": ("loss_ce", 1.0), "l1": ("loss_bbox", 5.0), "giou": ("loss_giou", 2.0)}
    layers = range(LAYERS) if peer.config.auxiliary_loss else [LAYERS - 1]
    for layer in layers:
        suffix = "" if layer == LAYERS - 1 else f"_{layer}"
        for name, (other, weight) in names.items():
            want = expected.loss_dict[other + suffix] * weight
            torch.testing.assert_close(losses[f"{name}[{layer}]"], want.reshape(()), rtol=1e-3, atol=1e-5)
    expected.loss.backward()
    sum(losses[f"{name}[{layer}]"] for layer in layers for name in names).backward()
    gradients_agree(peer, program.model, "encoder.layer" if family == "DeformableDETR" else "encoder")


def gradients_agree(peer: nn.Module, mine: nn.Module, encoder: str) -> None:
    """Of the first and the last layer: the neck's convolution, and both ends of encoder and decoder."""
    pairs = {
        "model.encoder.layers.0.mlp.fc1": f"{encoder}.0.ffn.fc1",
        "model.decoder.layers.0.mlp.fc1": "decoder.0.ffn.fc1",
        f"model.decoder.layers.{LAYERS - 1}.mlp.fc2": f"decoder.{LAYERS - 1}.ffn.fc2",
    }
    if encoder == "encoder":
        pairs |= {"model.input_projection": "neck.conv.0", "class_labels_classifier": "cls"}
    else:
        pairs |= {"model.input_proj.0.0": "neck.conv.0"}
    for theirs, ours_ in pairs.items():
        want, have = peer.get_submodule(theirs).weight.grad, mine.get_submodule(ours_).weight.grad
        assert want.norm() > 0, theirs
        assert (want - have).norm() <= 1e-3 * want.norm(), theirs
