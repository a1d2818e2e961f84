"""Key tables of the DETR line: every weight of a small model is found under the names of other toolboxes."""

from __future__ import annotations

import re

import pytest
import torch
from torch import Tensor

from detc.runtime.weights.keys import map_keys
from tests.models.test_detr import small

RESNET = [
    (r"^backbone\.stem\.conv\.", "backbone.conv1."),
    (r"^backbone\.stem\.norm\.", "backbone.bn1."),
    (r"^backbone\.stage\.(\d)\.block\.", lambda m: f"backbone.layer{int(m[1]) - 1}."),
    (r"(backbone\.layer.*)\.norm(\d)\.", r"\1.bn\2."),
    (r"\.down\.conv\.", ".downsample.0."),
    (r"\.down\.norm\.", ".downsample.1."),
]
MMDET = [
    *RESNET,
    (r"^encoder\.(?:layer\.)?(\d)\.", r"encoder.layers.\1."),
    (r"^decoder\.(\d)\.", r"decoder.layers.\1."),
    (r"^(encoder.*)\.attn\.", r"\1.self_attn."),
    (r"\.norm1\.", ".norms.0."),
    (r"\.norm2\.", ".norms.1."),
    (r"\.norm3\.", ".norms.2."),
    (r"\.ffn\.fc1\.", ".ffn.layers.0.0."),
    (r"\.ffn\.fc2\.", ".ffn.layers.1."),
    (r"\.offsets\.", ".sampling_offsets."),
    (r"_attn\.weights\.", "_attn.attention_weights."),
    (r"_attn\.value\.", "_attn.value_proj."),
    (r"^query\.value$", "query_embedding.weight"),
    (r"^encoder\.level\.value$", "level_embed"),
]
MMDET_DETR = [
    *MMDET,
    (r"_attn\.(q|k|v|in_proj_\w+|out)(\.|$)", r"_attn.attn.\1\2"),
    (r"\.out\.", ".out_proj."),
    (r"^neck\.conv\.0\.", "neck.convs.0.conv."),
    (r"^norm\.", "decoder.post_norm."),
    (r"^cls\.", "bbox_head.fc_cls."),
    (r"^reg\.fc\.0\.", "bbox_head.reg_ffn.layers.0.0."),
    (r"^reg\.fc\.1\.", "bbox_head.reg_ffn.layers.1."),
    (r"^reg\.fc\.2\.", "bbox_head.fc_reg."),
]
MMDET_DINO = [
    *MMDET,
    (r"self_attn\.(in_proj_\w+)$", r"self_attn.attn.\1"),
    (r"^(decoder.*self_attn)\.out\.", r"\1.attn.out_proj."),
    (r"\.out\.", ".output_proj."),
    (r"^neck\.conv\.3\.", "neck.extra_convs.0.conv."),
    (r"^neck\.norm\.3\.", "neck.extra_convs.0.gn."),
    (r"^neck\.conv\.(\d)\.", r"neck.convs.\1.conv."),
    (r"^neck\.norm\.(\d)\.", r"neck.convs.\1.gn."),
    (r"^propose\.", "memory_trans_fc."),
    (r"^propose_norm\.", "memory_trans_norm."),
    (r"^place\.fc\.", "decoder.ref_point_head.layers."),
    (r"^norm\.", "decoder.norm."),
    (r"^label\.", "dn_query_generator.label_embedding."),
    (r"^cls\.", "bbox_head.cls_branches."),
    (r"^reg\.(\d)\.fc\.(\d)\.", lambda m: f"bbox_head.reg_branches.{m[1]}.{2 * int(m[2])}."),
]
FACEBOOK = [
    *RESNET,
    (r"^backbone\.", "backbone.0.body."),
    (r"^encoder\.(\d)\.attn\.", r"transformer.encoder.layers.\1.self_attn."),
    (r"^encoder\.(\d)\.", r"transformer.encoder.layers.\1."),
    (r"^decoder\.(\d)\.cross_attn\.", r"transformer.decoder.layers.\1.multihead_attn."),
    (r"^decoder\.(\d)\.", r"transformer.decoder.layers.\1."),
    (r"^norm\.", "transformer.decoder.norm."),
    (r"\.ffn\.fc(\d)\.", r".linear\1."),
    (r"\.out\.", ".out_proj."),
    (r"^neck\.conv\.0\.", "input_proj."),
    (r"^query\.value$", "query_embed.weight"),
    (r"^cls\.", "class_embed."),
    (r"^reg\.fc\.", "bbox_embed.layers."),
]


def foreign(state: dict[str, Tensor], rules: list) -> dict[str, Tensor]:  # type: ignore[type-arg]
    """`state` under another toolbox's names, with query, key and value in one matrix."""
    joined: dict[str, Tensor] = {}
    for name, value in state.items():
        found = re.search(r"^(.*attn)\.([qkv])\.(weight|bias)$", name)
        if found is None:
            joined[name] = value
        elif found[2] == "q":
            parts = [state[f"{found[1]}.{x}.{found[3]}"] for x in "qkv"]
            joined[f"{found[1]}.in_proj_{found[3]}"] = torch.cat(parts)
    renamed = {}
    for name, value in joined.items():
        for pattern, replacement in rules:
            name = re.sub(pattern, replacement, name)
        renamed[name] = value
    return renamed


@pytest.mark.parametrize(
    ("variant", "rules", "table"),
    [
        ("DETR", MMDET_DETR, "mmdet_detr"),
        ("DETR", FACEBOOK, "facebook_detr"),
        ("DINO", MMDET_DINO, "mmdet_deformable_detr"),
    ],
)
def test_every_weight_has_its_place(variant: str, rules: list, table: str) -> None:  # type: ignore[type-arg]
    mine = small(variant).model.state_dict()
    other = foreign(mine, rules)
    assert not set(other) & {n for n in mine if not n.startswith("backbone")}
    mapped = map_keys(other, mine)
    assert mapped.table == table
    assert set(mapped.state) == set(mine)
    assert all(torch.equal(mapped.state[n], v) for n, v in mine.items())
