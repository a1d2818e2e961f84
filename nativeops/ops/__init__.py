"""The public functions of the native ops. Importing this registers all of them as ``torch.ops.detc.<name>``; nothing is built yet."""

from detc.nativeops.ops.batch_norm_act import NormResult, batch_norm_act
from detc.nativeops.ops.box_iou import box_iou, max_iou_assign
from detc.nativeops.ops.carafe import carafe
from detc.nativeops.ops.corner_pool import corner_pool
from detc.nativeops.ops.deform_conv2d import deform_conv2d
from detc.nativeops.ops.deform_roi_pool import deform_roi_pool
from detc.nativeops.ops.depthwise_weight_grad import depthwise_weight_grad
from detc.nativeops.ops.dynamic_soft_label import dynamic_soft_label
from detc.nativeops.ops.focal_loss import quality_focal_loss, sigmoid_focal_loss, varifocal_loss
from detc.nativeops.ops.linear_assignment import Assignment, linear_assignment
from detc.nativeops.ops.mask_paste import mask_paste
from detc.nativeops.ops.masked_conv2d import masked_conv2d
from detc.nativeops.ops.ms_deform_attn import ms_deform_attn
from detc.nativeops.ops.nms import NmsResult, batched_nms, nms
from detc.nativeops.ops.point_sample import point_sample
from detc.nativeops.ops.rle import coco_to_masks, masks_to_coco, rle_decode, rle_encode
from detc.nativeops.ops.roi_align import multilevel_roi_align, roi_align
from detc.nativeops.ops.roi_pool import roi_pool
from detc.nativeops.ops.rotated_box import rotated_iou, rotated_nms
from detc.nativeops.ops.winograd import winograd_conv2d, winograd_pack

__all__ = [
    "Assignment",
    "NmsResult",
    "NormResult",
    "batch_norm_act",
    "batched_nms",
    "box_iou",
    "carafe",
    "coco_to_masks",
    "corner_pool",
    "deform_conv2d",
    "deform_roi_pool",
    "depthwise_weight_grad",
    "dynamic_soft_label",
    "linear_assignment",
    "mask_paste",
    "masked_conv2d",
    "masks_to_coco",
    "max_iou_assign",
    "ms_deform_attn",
    "multilevel_roi_align",
    "nms",
    "point_sample",
    "quality_focal_loss",
    "rle_decode",
    "rle_encode",
    "roi_align",
    "roi_pool",
    "rotated_iou",
    "rotated_nms",
    "sigmoid_focal_loss",
    "varifocal_loss",
    "winograd_conv2d",
    "winograd_pack",
]
