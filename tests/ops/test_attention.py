"""Attention ops against torch's own layer and against a plain reading of the deformable formula."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from detc.compiler.dims import dim
from detc.compiler.ops.attention import DeformableAttention, Dropout, MultiHeadAttention
from detc.compiler.ops.position import BoxPosition, FromRows, LevelEmbedding, LevelGrid, SinePosition
from detc.compiler.ops.set_prediction import Embedding
from detc.compiler.types import Image, Map, Mismatch, Pyramid, struct, tensor
from tests.ops.running import lowered, run

B, N, K, C, HEADS = 2, 5, 7, 16, 4
ROWS = tensor("B", N, C)


def pair() -> tuple[nn.Module, nn.MultiheadAttention]:
    """The op's module and torch's, with the same weights."""
    torch.manual_seed(0)
    mine = lowered(MultiHeadAttention(heads=HEADS), ROWS, tensor("B", K, C), tensor("B", K, C))
    theirs = nn.MultiheadAttention(C, HEADS, batch_first=True)
    with torch.no_grad():
        for layer in (mine.q, mine.k, mine.v, mine.out):
            nn.init.normal_(layer.bias)
        theirs.in_proj_weight.copy_(torch.cat([mine.q.weight, mine.k.weight, mine.v.weight]))
        theirs.in_proj_bias.copy_(torch.cat([mine.q.bias, mine.k.bias, mine.v.bias]))
        theirs.out_proj.weight.copy_(mine.out.weight)
        theirs.out_proj.bias.copy_(mine.out.bias)
    return mine, theirs


def test_attention_equals_torch_with_both_masks() -> None:
    mine, theirs = pair()
    query, key, value = torch.randn(B, N, C), torch.randn(B, K, C), torch.randn(B, K, C)
    valid = torch.arange(K) < torch.tensor([[4], [7]])
    mask = torch.rand(B, N, K) > 0.3
    mask[..., 0] = True
    torch.testing.assert_close(mine(query, key, value), theirs(query, key, value)[0])
    expected = theirs(query, key, value, key_padding_mask=~valid)[0]
    torch.testing.assert_close(mine(query, key, value, valid), expected)
    each_head = mask.repeat_interleave(HEADS, 0)
    expected = theirs(query, key, value, key_padding_mask=~valid, attn_mask=~each_head)[0]
    torch.testing.assert_close(mine(query, key, value, valid, mask), expected)
    torch.testing.assert_close(
        mine(query, key, value, valid, mask[:, None].expand(-1, HEADS, -1, -1)), expected
    )
    shared = theirs(query, key, value, attn_mask=~mask[0])[0]
    torch.testing.assert_close(mine(query, key, value, None, mask[0]), shared)


def test_a_query_that_sees_nothing_is_finite() -> None:
    mine, _ = pair()
    query, key = torch.randn(B, N, C), torch.randn(B, K, C)
    nothing = torch.zeros(B, K, dtype=torch.bool)
    out = mine(query, key, key, nothing)
    torch.testing.assert_close(out, mine.out(mine.v(key).mean(1, keepdim=True)).expand_as(out))
    out.sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in mine.parameters() if p.grad is not None)


def test_attention_is_told_what_does_not_fit() -> None:
    keys = tensor("B", K, C)
    with pytest.raises(Mismatch, match="3 heads do not divide"):
        MultiHeadAttention(heads=3).infer(ROWS, keys, keys)
    with pytest.raises(Mismatch, match="each key has one value"):
        MultiHeadAttention().infer(ROWS, keys, ROWS)
    with pytest.raises(Mismatch, match="must be bool"):
        MultiHeadAttention().infer(ROWS, keys, keys, tensor("B", K))
    with pytest.raises(Mismatch, match="one row for each query"):
        MultiHeadAttention().infer(ROWS, keys, keys, None, tensor(N + 1, K, dtype="bool"))


LEVELS = Pyramid(tuple(Map(C, s, dim(h), dim(w)) for s, h, w in ((8, 4, 6), (16, 2, 3))))  # type: ignore[arg-type]
S = 4 * 6 + 2 * 3
SIZES = [(4, 6), (2, 3)]


def content() -> dict[str, Tensor]:
    """Images of 32 x 48 pixels; the second one's content is 20 x 30."""
    return {"pixels": torch.zeros(B, 3, 32, 48), "size": torch.tensor([[32.0, 48.0], [20.0, 30.0]])}


def grid_of(levels: list[Tensor]) -> dict[str, Tensor]:
    return run(LevelGrid(), LEVELS, Image(dim(32), dim(48)), given=[levels, content()])


def test_the_grid_knows_padding() -> None:
    levels = [torch.zeros(B, C, h, w) for h, w in SIZES]
    grid = grid_of(levels)
    assert grid["valid"][0].all()
    mask = torch.zeros(1, 1, 32, 48)
    mask[..., :20, :30] = 1
    expected = torch.cat([F.interpolate(mask, size).flatten() for size in SIZES]).bool()
    assert torch.equal(grid["valid"][1], expected)
    torch.testing.assert_close(grid["ratio"][1], torch.tensor([[4 / 6, 3 / 4], [2 / 3, 2 / 2]]))
    torch.testing.assert_close(grid["points"][1, 0], torch.tensor([0.5 / 4, 0.5 / 3]))
    whole = run(LevelGrid(padded=False), LEVELS, Image(dim(32), dim(48)), given=[levels, content()])
    assert whole["valid"].all()
    assert (whole["ratio"] == 1).all()


@pytest.mark.parametrize("numbers", [2, 4])
def test_deformable_attention_reads_where_the_formula_says(numbers: int) -> None:
    torch.manual_seed(1)
    kind = struct(
        "grid", valid=tensor("B", S, dtype="bool"), ratio=tensor("B", 2, 2), points=tensor("B", S, 2)
    )
    types = (ROWS, tensor("B", N, numbers), tensor("B", S, C), LEVELS, kind)
    op = DeformableAttention(heads=HEADS, points=3)
    assert op.infer(*types) == ROWS
    layer = lowered(op, *types)
    nn.init.normal_(layer.offsets.weight, std=0.1)
    nn.init.normal_(layer.weights.weight)
    levels = [torch.zeros(B, C, h, w) for h, w in SIZES]
    grid = grid_of(levels)
    query, value, reference = torch.randn(B, N, C), torch.randn(B, S, C), torch.rand(B, N, numbers)
    out = layer(query, reference, value, levels, grid)

    rows = layer.value(value) * grid["valid"][..., None]
    offsets = layer.offsets(query).view(B, N, HEADS, 2, 3, 2)
    weights = layer.weights(query).view(B, N, HEADS, 6).softmax(-1).view(B, N, HEADS, 2, 3)
    total = torch.zeros(B, N, HEADS, C // HEADS)
    start = 0
    for level, (h, w) in enumerate(SIZES):
        maps = rows[:, start : start + h * w].transpose(1, 2).reshape(B * HEADS, C // HEADS, h, w)
        ratio = grid["ratio"][:, level].view(B, 1, 1, 1, 2)
        place = reference[:, :, None, None, :2] * ratio
        step = torch.tensor([1 / w, 1 / h]) if numbers == 2 else reference[:, :, None, None, 2:] * ratio / 6
        where = (place + offsets[:, :, :, level] * step) * 2 - 1
        seen = F.grid_sample(maps, where.transpose(1, 2).flatten(0, 1), align_corners=False)
        seen = seen.view(B, HEADS, C // HEADS, N, 3).permute(0, 3, 1, 4, 2)
        total += (seen * weights[:, :, :, level, :, None]).sum(3)
        start += h * w
    torch.testing.assert_close(out, layer.out(total.flatten(2)), atol=1e-5, rtol=1e-4)


def test_deformable_attention_begins_one_cell_apart() -> None:
    layer = DeformableAttention(heads=4, points=2).torch(
        ROWS, tensor("B", N, 2), tensor("B", S, C), LEVELS, struct("grid")
    )
    start = layer.offsets.bias.view(4, 2, 2, 2)
    torch.testing.assert_close(start[0, 1, 1], torch.tensor([2.0, 0.0]))
    torch.testing.assert_close(start[1, 0, 0], torch.tensor([0.0, 1.0]), atol=1e-6, rtol=0)


def test_sine_codes() -> None:
    levels = [torch.zeros(B, C, h, w) for h, w in SIZES]
    kind = struct("grid")
    code = run(SinePosition(offset=-0.5), LEVELS, kind, given=[levels, grid_of(levels)])
    assert code.shape == (B, S, C)
    # row 1 of 3 rows of content, column 2 of 4: y before x, sine and cosine in turn, powers of 10000 ** (1/4)
    y, x = (2 * math.pi * p for p in (1.5 / 3, 2.5 / 4))
    expected = [f(v / 10000 ** (i / 4)) for v in (y, x) for i in range(4) for f in (math.sin, math.cos)]
    torch.testing.assert_close(code[1, 1 * 6 + 2], torch.tensor(expected), atol=1e-4, rtol=0)
    boxes = torch.rand(B, N, 4)
    by_x = run(BoxPosition(width=8), tensor("B", N, 4), given=[boxes])
    by_y = run(BoxPosition(width=8, order="yxwh"), tensor("B", N, 4), given=[boxes])
    assert by_x.shape == (B, N, 32)
    assert torch.equal(by_x[..., :8], by_y[..., 8:16])
    torch.testing.assert_close(by_x[..., 24], (boxes[..., 3] * 2 * math.pi).sin())


def test_rows_become_maps_again_and_levels_have_codes() -> None:
    levels = [torch.randn(B, C, h, w) for h, w in SIZES]
    rows = torch.cat([x.flatten(2).transpose(1, 2) for x in levels], 1)
    back = run(FromRows(), tensor("B", S, C), LEVELS, given=[rows, levels])
    assert all(torch.equal(a, b) for a, b in zip(back, levels, strict=True))
    embedding = lowered(LevelEmbedding(), LEVELS)
    code = embedding(levels)
    assert code.shape == (S, C)
    assert torch.equal(code[23], embedding.value[0])
    assert torch.equal(code[24], embedding.value[1])


def test_parameters_are_known_without_torch() -> None:
    kind = struct(
        "grid", valid=tensor("B", S, dtype="bool"), ratio=tensor("B", 2, 2), points=tensor("B", S, 2)
    )
    keys = tensor("B", K, 2 * C)
    cases = [
        (MultiHeadAttention(heads=HEADS), (ROWS, keys, keys)),
        (DeformableAttention(heads=HEADS), (ROWS, tensor("B", N, 2), tensor("B", S, 2 * C), LEVELS, kind)),
        (LevelEmbedding(), (LEVELS,)),
        (Embedding(count=3, width=8), (tensor("B", N, dtype="int64"),)),
        (Dropout(), (ROWS,)),
    ]
    for op, types in cases:
        made = {name: tuple(p.shape) for name, p in lowered(op, *types).named_parameters()}
        assert op.parameter_shapes(*types) == made


def test_dropout_only_in_training() -> None:
    layer = lowered(Dropout(p=0.5), ROWS)
    x = torch.ones(B, 200, C)
    assert (layer(x) == 0).any()
    assert torch.equal(layer.eval()(x), x)
