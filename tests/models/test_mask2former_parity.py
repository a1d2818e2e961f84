"""Mask2Former equals the transformers package's with the same random weights and the same random points."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, fx, nn

from detc.compiler.check import check
from detc.compiler.program import Program, build
from detc.runtime.weights.keys import map_keys
from tests.models.torchvision_peers import settle

transformers = pytest.importorskip("transformers")

CLASSES, POINTS = 7, 200
MEAN = torch.tensor([123.675, 116.28, 103.53])[:, None, None]
STD = torch.tensor([58.395, 57.12, 57.375])[:, None, None]


class Peer:
    """transformers' model: ResNet-50, `layers` in the pixel decoder and `outputs` of the decoder."""

    def __init__(self, layers: int, outputs: int) -> None:
        torch.manual_seed(0)
        backbone = transformers.ResNetConfig(out_features=["stage1", "stage2", "stage3", "stage4"])
        config = transformers.Mask2FormerConfig(
            backbone_config=backbone,
            num_labels=CLASSES,
            encoder_layers=layers,
            decoder_layers=outputs,
            train_num_points=POINTS,
        )
        self.model = transformers.Mask2FormerForUniversalSegmentation(config).eval()
        for name, parameter in self.model.named_parameters():
            if "queries" in name or "level_embed" in name:
                nn.init.normal_(parameter)
        self.pixels = torch.rand(2, 3, 96, 128) * 255
        settle(self.model.model.pixel_level_module.encoder, (self.pixels - MEAN) / STD)
        self.model.eval()

    def truth(self, counts: tuple[int, int] = (3, 1)) -> tuple[list[Tensor], list[Tensor], dict[str, Tensor]]:
        """Rectangles with classes: as transformers takes them, and padded as detc's graphs do."""
        generator = torch.Generator().manual_seed(5)
        masks = torch.zeros(2, 4, 96, 128, dtype=torch.bool)
        labels = torch.randint(0, CLASSES, (2, 4), generator=generator)
        for b in range(2):
            for g in range(4):
                x, y, w, h = (int(v) for v in torch.randint(8, 60, (4,), generator=generator))
                masks[b, g, y : y + h, x : x + w] = True
        valid = torch.arange(4) < torch.tensor(counts)[:, None]
        padded = {
            "boxes": torch.zeros(2, 4, 4),
            "labels": labels * valid,
            "valid": valid,
            "masks": masks & valid[..., None, None],
        }
        lists = [masks[b, :n].float() for b, n in enumerate(counts)]
        return lists, [labels[b, :n] for b, n in enumerate(counts)], padded


def same_points(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every draw of n points give the same n points, on both sides."""

    def rand(*shape: Any, device: Any = None, **kwargs: Any) -> Tensor:
        shape = tuple(shape[0]) if len(shape) == 1 and not isinstance(shape[0], int) else shape
        generator = torch.Generator().manual_seed(int(shape[-2]))
        return torch.empty(shape[-2:]).uniform_(generator=generator).expand(shape).contiguous()

    monkeypatch.setattr(torch, "rand", rand)


def program(layers: int, outputs: int) -> Program:
    names = ", ".join(f'"c{i}"' for i in range(CLASSES))
    run = f"""det 1
import std.models {{ Mask2Former }}
model Same(classes: labels) extends Mask2Former(classes, points = {POINTS}, keep = 10) {{
  set pixels.layers = {layers}
  set decoder.layers = {outputs - 1}
}}
run {{ model = Same(classes = [{names}]) }}
"""
    result = check(run)
    assert not result.report.errors, result.report
    return build(result.run())


def load(mine: Program, peer: Peer) -> None:
    """Every tensor of the peer, through the key table, onto every one here."""
    mapped = map_keys(peer.model.state_dict(), mine.model.state_dict())
    assert mapped.table == "transformers_mask2former"
    mine.model.load_state_dict(mapped.state, strict=True)


class Grab(fx.Interpreter):
    """Runs a graph and keeps what class predictor and mask products gave."""

    def __init__(self, graph: fx.GraphModule) -> None:
        super().__init__(graph)
        self.logits: list[Tensor] = []
        self.masks: list[Tensor] = []

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        if n.target == "decoder.cls":
            self.logits.append(value)
        elif getattr(n.target, "__name__", "") == "query_masks":
            self.masks.append(value)
        return value


def image(peer: Peer) -> dict[str, Tensor]:
    return {"pixels": peer.pixels, "size": torch.tensor([[96.0, 128.0]] * 2)}


@pytest.mark.slow
def test_logits_losses_and_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    same_points(monkeypatch)
    peer = Peer(layers=6, outputs=10)
    mine = program(layers=6, outputs=10)
    load(mine, peer)
    normal = (peer.pixels - MEAN) / STD
    masks, labels, truth = peer.truth()
    theirs = peer.model(normal, mask_labels=masks, class_labels=labels, output_auxiliary_logits=True)

    mine.model.train()
    grab = Grab(mine.train_graph)
    losses = grab.run(image(peer), truth)
    every = [*theirs.auxiliary_logits, theirs.__dict__]
    assert len(grab.logits) == len(grab.masks) == len(every) == 10
    for k, other in enumerate(every):
        torch.testing.assert_close(grab.logits[k], other["class_queries_logits"], atol=1e-4, rtol=1e-5)
        torch.testing.assert_close(grab.masks[k], other["masks_queries_logits"], atol=1e-4, rtol=1e-5)
    mine.model.eval()
    last = Grab(mine.infer_graph)
    with torch.no_grad():
        last.run(image(peer))
    torch.testing.assert_close(last.logits[-1], theirs.class_queries_logits, atol=1e-4, rtol=1e-5)
    torch.testing.assert_close(last.masks[-1], theirs.masks_queries_logits, atol=1e-4, rtol=1e-5)

    expected = peer.model.get_loss_dict(
        theirs.masks_queries_logits, theirs.class_queries_logits, masks, labels, theirs.auxiliary_logits
    )
    names = {"cls": "loss_cross_entropy", "mask": "loss_mask", "dice": "loss_dice"}
    assert len(losses) == len(expected) == 30
    for k in range(10):
        for name, other in names.items():
            key = other if k == 9 else f"{other}_{k}"
            torch.testing.assert_close(
                losses[f"criterion[{k}].{name}"], expected[key], rtol=1e-3, atol=1e-6, msg=key
            )
    sum(losses.values()).backward()  # type: ignore[union-attr]
    theirs.loss.backward()
    pairs = {
        "backbone.stem.conv.weight": "model.pixel_level_module.encoder.embedder.embedder.convolution.weight",
        "pixels.project.0.conv.weight": "model.pixel_level_module.decoder.input_projections.0.0.weight",
        "decoder.query.value": "model.transformer_module.queries_features.weight",
        "decoder.embed.fc.2.weight": "model.transformer_module.decoder.mask_predictor.mask_embedder.2.0.weight",
        "decoder.cls.weight": "class_predictor.weight",
    }
    for here, there in pairs.items():
        a, b = (dict(m.named_parameters())[n].grad for m, n in ((mine.model, here), (peer.model, there)))
        assert a is not None and b is not None
        assert float((a - b).norm() / b.norm()) < 1e-3, here
