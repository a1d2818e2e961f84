// Box-sized masks pasted into the image: bilinear (zeros outside of the mask), then a threshold.
#pragma once

#include <cstdint>

#include "scalar.h"

namespace detc {

struct MaskPaste {
  int64_t masks, mask_height, mask_width, height, width;
  double threshold;
};

// masks [N,m,k], boxes [N,4] (x1, y1, x2, y2), out [N,H,W] of 0 and 1. CPU: float32 and float64.
void mask_paste_cpu(DType dtype, const MaskPaste& paste, const void* masks, const void* boxes, uint8_t* out);
// All four dtypes.
void mask_paste_cuda(DType dtype, const MaskPaste& paste, const void* masks, const void* boxes, uint8_t* out, void* stream);

}  // namespace detc
