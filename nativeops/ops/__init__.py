"""The public functions of the native ops. Importing this registers all of them as ``torch.ops.detc.<name>``; nothing is built yet."""

from detc.nativeops.ops.dynamic_soft_label import dynamic_soft_label
from detc.nativeops.ops.box_iou import box_iou, max_iou_assign
from detc.nativeops.ops.focal_loss import quality_focal_loss, sigmoid_focal_loss, varifocal_loss
from detc.nativeops.ops.nms import NmsResult, batched_nms, nms
from detc.nativeops.ops.roi_align import multilevel_roi_align, roi_align

__all__ = [
    "NmsResult",
    "batched_nms",
    "box_iou",
    "dynamic_soft_label",
    "max_iou_assign",
    "multilevel_roi_align",
    "nms",
    "quality_focal_loss",
    "roi_align",
    "sigmoid_focal_loss",
    "varifocal_loss",
]
