"""The numbers that a validation is summed up by, in logs, charts and reports."""

from __future__ import annotations

from collections.abc import Mapping

HEADLINE = {
    "ap": "AP 50:95",
    "ap50": "AP 50",
    "ap75": "AP 75",
    "ap_mask": "AP 50:95, masks",
    "ap50_mask": "AP 50, masks",
    "ap75_mask": "AP 75, masks",
    "PQ": "panoptic quality",
    "mIoU": "mean IoU",
}


def headline(metrics: Mapping[str, float]) -> str:
    """`ap 0.4512  ap50 0.6620 …`, those of the numbers that there are."""
    return "  ".join(f"{name} {metrics[name]:.4f}" for name in HEADLINE if name in metrics)
