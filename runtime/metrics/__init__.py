"""Metrics: schemas that specs can name are in `schema` (torch-free), what they compute lies beside it."""

from detc.runtime.metrics.schema import CocoBox, CocoMask, Metric, PanopticPQ, SemanticIoU, VocBox

__all__ = ["CocoBox", "CocoMask", "Metric", "PanopticPQ", "SemanticIoU", "VocBox"]
