"""The R-CNN box code against torchvision's BoxCoder, and its behaviour on padding."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st
from torchvision.models.detection._utils import BoxCoder
from torchvision.ops import clip_boxes_to_image, remove_small_boxes

from detc.compiler.functional.boxes import (
    clip_boxes,
    decode_deltas,
    delta_decode,
    delta_encode,
    encode_deltas,
    large_enough,
)


def random_boxes(*shape: int, size: float = 200.0) -> torch.Tensor:
    low = torch.rand(*shape, 2) * size
    return torch.cat((low, low + torch.rand(*shape, 2) * size + 5), -1)  # growth stays below 1000 / 16


@given(seed=st.integers(0, 10_000), std=st.sampled_from([[1.0, 1.0, 1.0, 1.0], [0.1, 0.1, 0.2, 0.2]]))
def test_equals_torchvision(seed: int, std: list[float]) -> None:
    torch.manual_seed(seed)
    coder = BoxCoder(tuple(1 / s for s in std))
    anchors, boxes, deltas = random_boxes(17), random_boxes(17), torch.randn(17, 4) * 3
    assert torch.allclose(encode_deltas(anchors, boxes, std), coder.encode_single(boxes, anchors), atol=1e-5)
    theirs = coder.decode_single(deltas, anchors)
    assert torch.allclose(decode_deltas(anchors, deltas, std), theirs, rtol=1e-5, atol=1e-2)


@given(seed=st.integers(0, 10_000))
def test_decode_inverts_encode(seed: int) -> None:
    torch.manual_seed(seed)
    anchors, boxes = random_boxes(2, 9), random_boxes(2, 9)
    std = [0.1, 0.1, 0.2, 0.2]
    assert torch.allclose(decode_deltas(anchors, encode_deltas(anchors, boxes, std), std), boxes, atol=2e-3)


def test_padding_slots_stay_finite() -> None:
    nothing = torch.zeros(1, 3, 4)
    assert encode_deltas(nothing, random_boxes(1, 3), [0.1, 0.1, 0.2, 0.2]).isfinite().all()
    assert encode_deltas(random_boxes(1, 3), nothing, [0.1, 0.1, 0.2, 0.2]).isfinite().all()


def test_clip_and_size_equal_torchvision() -> None:
    torch.manual_seed(0)
    boxes = random_boxes(2, 40) - 50
    size = torch.tensor([[120.0, 200.0], [90.0, 60.0]])
    clipped = clip_boxes(boxes, size)
    for i in range(2):
        theirs = clip_boxes_to_image(boxes[i], tuple(size[i].tolist()))
        assert torch.equal(clipped[i], theirs)
        assert torch.equal(large_enough(clipped[i], 20.0).nonzero()[:, 0], remove_small_boxes(theirs, 20.0))
    of_classes = clip_boxes(boxes[:, :, None].expand(-1, -1, 3, -1), size)
    assert torch.equal(of_classes, clipped[:, :, None].expand(-1, -1, 3, -1))


def test_decoding_pyramids_equals_decoding_rows() -> None:
    torch.manual_seed(0)
    anchors = random_boxes(2 * (12 + 4))
    maps = [torch.randn(2, 8, 3, 4), torch.randn(2, 8, 2, 2)]
    image = {"size": torch.tensor([[100.0, 100.0], [50.0, 80.0]])}
    boxes = delta_decode(anchors, maps, image, std=[1.0] * 4, clip=True)
    # position (1, 2) of the first level, second anchor
    row = (1 * 4 + 2) * 2 + 1
    alone = clip_boxes(decode_deltas(anchors[row], maps[0][:, 4:, 1, 2], [1.0] * 4)[:, None], image["size"])
    assert torch.allclose(boxes[:, row], alone[:, 0])


def test_proposals_come_out_detached_and_without_given_truth() -> None:
    rois = {
        "boxes": random_boxes(1, 3),
        "scores": torch.ones(1, 3),
        "valid": torch.tensor([[True, True, False]]),
        "given": torch.tensor([[False, True, False]]),
    }
    deltas = torch.zeros(1, 3, 4, requires_grad=True)
    out = delta_decode(rois, deltas, {"size": torch.ones(1, 2)}, std=[1.0] * 4, clip=False)
    assert not out["boxes"].requires_grad
    assert out["valid"].tolist() == [[True, False, False]]
    assert torch.allclose(out["boxes"], rois["boxes"], atol=1e-4)


def test_encoding_matched_truth_carries_the_labels() -> None:
    labels = torch.tensor([[3, -1]])
    boxes = random_boxes(1, 2)
    out = delta_encode({"boxes": boxes}, {"boxes": boxes, "labels": labels}, std=[1.0] * 4)
    assert torch.equal(out["labels"], labels)
    assert torch.equal(out["deltas"]["labels"], labels)
    assert torch.allclose(out["deltas"]["values"], torch.zeros(1, 2, 4), atol=1e-5)
