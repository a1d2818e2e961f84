"""rle_encode and rle_decode: pycocotools' runs, both ways, and what does not fit."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco
from torch import Tensor

from detc.nativeops import ops
from detc.nativeops.reference.rle import rle_decode as decode_reference
from detc.nativeops.reference.rle import rle_encode as encode_reference
from tests.nativeops.checks import strided
from tests.nativeops.op_checks import assert_same, check_graph, check_op, require_native


def bitmaps(seed: int, masks: int, height: int, width: int) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    share = torch.tensor([0.0, 1.0, 0.5, 0.05, 0.95])[torch.arange(masks) % 5]
    return torch.rand(masks, height, width, generator=g) < share[:, None, None]


def by_pycocotools(masks: Tensor) -> list[dict]:
    return [coco.encode(np.asfortranarray(m.numpy().astype(np.uint8))) for m in masks]


def test_the_native_kernel_is_tested() -> None:
    require_native("rle_encode", "rle_decode")


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    masks=st.integers(0, 6),
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    capacity=st.sampled_from([0, 1, 2, 7, 2000]),
)
def test_equals_the_reference_and_comes_back(
    seed: int, masks: int, height: int, width: int, capacity: int
) -> None:
    bits = bitmaps(seed, masks, height, width)
    runs, lengths = ops.rle_encode(bits, capacity=capacity)
    assert_same((runs, lengths), encode_reference(bits, capacity))
    back = ops.rle_decode(runs, lengths, height=height, width=width)
    assert torch.equal(back, decode_reference(runs, lengths, height, width))
    fits = lengths <= capacity
    assert torch.equal(back[fits], bits[fits])


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), height=st.integers(1, 60), width=st.integers(1, 60))
def test_equals_pycocotools(seed: int, height: int, width: int) -> None:
    bits = bitmaps(seed, 5, height, width)
    ours = ops.masks_to_coco(bits)
    assert ours == by_pycocotools(bits)
    assert torch.equal(ops.coco_to_masks(ours), bits)
    as_text = [{**rle, "counts": rle["counts"].decode()} for rle in ours]
    assert torch.equal(ops.coco_to_masks(as_text), bits)


def test_long_runs_and_big_masks() -> None:
    bits = torch.zeros(2, 700, 900, dtype=torch.bool)
    bits[0, 100:600, 50:800] = True
    bits[1, ::2] = True  # more runs than the first guess of the capacity
    assert ops.masks_to_coco(bits) == by_pycocotools(bits)
    assert torch.equal(ops.coco_to_masks(by_pycocotools(bits)), bits)


def test_uncompressed_counts() -> None:
    (mask,) = ops.coco_to_masks([{"size": [2, 3], "counts": [1, 3, 2]}])
    assert mask.tolist() == [[False, True, False], [True, True, False]]


def test_broken_runs_stay_in_bounds() -> None:
    runs = torch.tensor([[2, 100, 5], [-4, 3, 0], [1, 2, 2**31 - 1], [0, 0, 0]], dtype=torch.int32)
    lengths = torch.tensor([3, 99, -5, 3])
    got = ops.rle_decode(runs, lengths, height=3, width=3)
    assert torch.equal(got, decode_reference(runs, lengths, 3, 3))
    assert got[0].sum() == 7
    assert not got[2].any()


@pytest.mark.parametrize("shape", [(0, 3, 4), (2, 0, 4), (2, 3, 0)])
def test_empty(shape: tuple[int, int, int]) -> None:
    bits = torch.zeros(shape, dtype=torch.bool)
    runs, lengths = ops.rle_encode(bits, capacity=4)
    assert_same((runs, lengths), encode_reference(bits, 4))
    assert ops.rle_decode(runs, lengths, height=shape[1], width=shape[2]).shape == shape
    assert len(ops.masks_to_coco(bits)) == shape[0]


def test_not_contiguous_and_other_dtypes() -> None:
    bits = bitmaps(0, 4, 9, 11)
    wanted = ops.rle_encode(bits, capacity=99)
    assert_same(ops.rle_encode(bits.transpose(1, 2).contiguous().transpose(1, 2), capacity=99), wanted)
    assert_same(ops.rle_encode(bits.to(torch.uint8) * 255, capacity=99), wanted)
    runs, lengths = wanted
    assert torch.equal(ops.rle_decode(strided(runs), strided(lengths), height=9, width=11), bits)


def test_opcheck_and_graphs() -> None:
    bits = bitmaps(1, 5, 6, 7)
    runs, lengths = ops.rle_encode(bits, capacity=50)
    check_op(torch.ops.detc.rle_encode.default, (bits, 50), (bits[:0], 50))
    check_op(torch.ops.detc.rle_decode.default, (runs, lengths, 6, 7), (runs[:0], lengths[:0], 6, 7))
    check_graph(lambda m: ops.rle_encode(m, capacity=50), (bits,), "rle_encode")
    check_graph(lambda r, n: ops.rle_decode(r, n, height=6, width=7), (runs, lengths), "rle_decode")


def test_masks_of_two_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="one size"):
        ops.coco_to_masks([{"size": [2, 3], "counts": [6]}, {"size": [3, 2], "counts": [6]}])
    with pytest.raises(RuntimeError, match="bool"):
        torch.ops.detc.rle_encode(torch.zeros(1, 2, 2), 4)
