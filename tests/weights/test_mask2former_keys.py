"""MMDetection's names of Mask2Former's weights lead to ours, and tables cut tensors that are several here."""

from __future__ import annotations

import pytest
import torch

from detc.runtime.weights.keys import map_keys, parse_table, tables

NAMES = {
    "backbone.layer4.2.bn3.running_var": "backbone.stage.5.block.2.norm3.running_var",
    "panoptic_head.pixel_decoder.input_convs.2.gn.bias": "pixels.project.2.norm.bias",
    "panoptic_head.pixel_decoder.level_encoding.weight": "pixels.encoder.level.value",
    "panoptic_head.pixel_decoder.encoder.layers.5.self_attn.sampling_offsets.weight": (
        "pixels.encoder.layer.5.attn.offsets.weight"
    ),
    "panoptic_head.pixel_decoder.encoder.layers.0.ffn.layers.0.0.bias": "pixels.encoder.layer.0.ffn.fc1.bias",
    "panoptic_head.pixel_decoder.encoder.layers.0.norms.1.weight": "pixels.encoder.layer.0.norm2.weight",
    "panoptic_head.pixel_decoder.mask_feature.weight": "pixels.out.weight",
    "panoptic_head.transformer_decoder.layers.8.cross_attn.attn.out_proj.weight": (
        "decoder.layer.8.cross_attn.out.weight"
    ),
    "panoptic_head.transformer_decoder.layers.8.norms.2.bias": "decoder.layer.8.norm3.bias",
    "panoptic_head.transformer_decoder.post_norm.weight": "decoder.norm.weight",
    "panoptic_head.query_feat.weight": "decoder.query.value",
    "panoptic_head.query_embed.weight": "decoder.place.value",
    "panoptic_head.mask_embed.4.weight": "decoder.embed.fc.2.weight",
    "panoptic_head.cls_embed.bias": "decoder.cls.bias",
}


@pytest.mark.parametrize("name", NAMES)
def test_names(name: str) -> None:
    (table,) = (t for t in tables() if t.name == "mmdet_mask2former")
    assert table.rename(name) == NAMES[name]


def test_query_key_and_value_come_out_of_one_tensor() -> None:
    whole = torch.arange(12.0).view(6, 2)
    target = {f"decoder.layer.0.self_attn.{x}.weight": torch.zeros(2, 2) for x in "qkv"}
    mapped = map_keys(
        {"panoptic_head.transformer_decoder.layers.0.self_attn.attn.in_proj_weight": whole}, target
    )
    assert mapped.table == "mmdet_mask2former" and mapped.fits == 3
    assert torch.equal(torch.cat([mapped.state[k] for k in target]), whole)
    table = parse_table("x", '{"splits": {"pair$": ["one", "two"]}}')
    assert [n for n, _ in table.parts("a.pair", torch.zeros(3))] == ["a.pair"], "odd sizes are left alone"
