"""The public functions of the native ops. Importing this registers all of them as ``torch.ops.detc.<name>``; nothing is built yet."""

from detc.nativeops.ops.nms import NmsResult, batched_nms, nms

__all__ = [
    "NmsResult",
    "batched_nms",
    "nms",
]
