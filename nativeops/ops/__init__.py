"""The public functions of the native ops. Importing this registers all of them as ``torch.ops.detc.<name>``; nothing is built yet."""

from detc.nativeops.ops.nms import NmsResult, batched_nms, nms
from detc.nativeops.ops.roi_align import multilevel_roi_align, roi_align

__all__ = [
    "NmsResult",
    "batched_nms",
    "multilevel_roi_align",
    "nms",
    "roi_align",
]
