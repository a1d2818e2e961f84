// COCO run lengths of bitmaps: down the columns, a run of zeros first, at most `capacity` runs a mask.
#pragma once

#include <cstdint>

namespace detc {

struct Rle {
  int64_t masks, height, width, capacity;
};

// bits [N,H,W] of 0 and 1 -> runs [N,capacity] (unused: 0) and lengths [N], the true number of runs.
void rle_encode_cpu(const Rle& rle, const uint8_t* bits, int32_t* runs, int64_t* lengths);
// The reverse; runs behind the last pixel are ignored, pixels behind the last run are 0, negative runs count as 0.
void rle_decode_cpu(const Rle& rle, const int32_t* runs, const int64_t* lengths, uint8_t* bits);

void rle_encode_cuda(const Rle& rle, const uint8_t* bits, int32_t* runs, int64_t* lengths, void* workspace, void* stream);
void rle_decode_cuda(const Rle& rle, const int32_t* runs, const int64_t* lengths, uint8_t* bits, void* workspace, void* stream);
int64_t rle_workspace(const Rle& rle);

}  // namespace detc
