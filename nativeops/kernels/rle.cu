#include "launch.h"
#include "rle.h"

namespace detc {
namespace {

// Does the pixel differ from the one before it in column order?
__device__ bool changes(const Rle& s, const uint8_t* bits, int64_t x, int64_t y) {
  const uint8_t before = y > 0 ? bits[(y - 1) * s.width + x] : (x > 0 ? bits[(s.height - 1) * s.width + x - 1] : 0);
  return bits[y * s.width + x] != before;
}

// One thread a column: neighbouring threads read neighbouring bytes of a row.
__global__ void count_kernel(Rle s, const uint8_t* bits, int64_t* counts) {
  DETC_GRID_STRIDE(i, s.masks * s.width) {
    const uint8_t* mask = bits + i / s.width * s.height * s.width;
    int64_t count = 0;
    for (int64_t y = 0; y < s.height; ++y) count += changes(s, mask, i % s.width, y);
    counts[i] = count;
  }
}

// One block a row of `n` values: exclusive prefix sums in place, the total at the end.
__global__ void scan_kernel(int64_t* values, int64_t rows, int64_t n, int64_t* totals) {
  __shared__ int64_t sums[kThreads + 1];
  for (int64_t row = blockIdx.x; row < rows; row += gridDim.x) {
    int64_t* at = values + row * n;
    const int64_t each = (n + blockDim.x - 1) / blockDim.x, begin = threadIdx.x * each, end = begin + each < n ? begin + each : n;
    int64_t sum = 0;
    for (int64_t i = begin; i < end; ++i) sum += at[i];
    sums[threadIdx.x + 1] = sum;
    __syncthreads();
    if (threadIdx.x == 0) {
      sums[0] = 0;
      for (unsigned i = 0; i < blockDim.x; ++i) sums[i + 1] += sums[i];
      if (totals) totals[row] = sums[blockDim.x];
    }
    __syncthreads();
    sum = sums[threadIdx.x];
    for (int64_t i = begin; i < end; ++i) {
      const int64_t value = at[i];
      at[i] = sum;
      sum += value;
    }
    __syncthreads();
  }
}

// Writes the position of every change to its place among the mask's runs.
__global__ void place_kernel(Rle s, const uint8_t* bits, const int64_t* starts, int32_t* runs) {
  DETC_GRID_STRIDE(i, s.masks * s.width) {
    const int64_t n = i / s.width, x = i % s.width;
    const uint8_t* mask = bits + n * s.height * s.width;
    int64_t slot = starts[i];
    for (int64_t y = 0; y < s.height; ++y)
      if (changes(s, mask, x, y)) {
        if (slot < s.capacity) runs[n * s.capacity + slot] = static_cast<int32_t>(x * s.height + y);
        ++slot;
      }
  }
}

// Positions of changes to lengths of runs, from the last to the first: one thread a mask.
__global__ void difference_kernel(Rle s, int32_t* runs, int64_t* lengths) {
  DETC_GRID_STRIDE(n, s.masks) {
    int32_t* at = runs + n * s.capacity;
    const int64_t total = lengths[n];
    if (total < s.capacity) at[total] = static_cast<int32_t>(s.height * s.width);
    for (int64_t i = (total < s.capacity ? total : s.capacity - 1); i > 0; --i) at[i] -= at[i - 1];
    lengths[n] = total + 1;
  }
}

__global__ void run_starts_kernel(Rle s, const int32_t* runs, const int64_t* lengths, int64_t* starts) {
  DETC_GRID_STRIDE(i, s.masks * s.capacity) {
    const int64_t run = runs[i];
    starts[i] = i % s.capacity < lengths[i / s.capacity] && run > 0 ? run : 0;
  }
}

// The run of a pixel is the last one that starts at or before it (empty runs start where the next one does).
__global__ void fill_kernel(Rle s, const int64_t* starts, const int64_t* totals, const int64_t* lengths, uint8_t* bits) {
  DETC_GRID_STRIDE(i, s.masks * s.height * s.width) {
    const int64_t pixels = s.height * s.width, n = i / pixels, x = i % s.width, y = i / s.width % s.height;
    const int64_t position = x * s.height + y;
    int64_t low = 0, high = lengths[n] < s.capacity ? lengths[n] : s.capacity;
    while (low < high) {
      const int64_t middle = (low + high) / 2;
      if (starts[n * s.capacity + middle] <= position) low = middle + 1;
      else high = middle;
    }
    bits[i] = position < totals[n] && low > 0 && (low - 1) % 2 == 1;
  }
}

}  // namespace

int64_t rle_workspace(const Rle& s) {
  const int64_t columns = s.masks * s.width, runs = s.masks * (s.capacity + 1);
  return (columns > runs ? columns : runs) * 8;
}

void rle_encode_cuda(const Rle& s, const uint8_t* bits, int32_t* runs, int64_t* lengths, void* workspace, void* stream) {
  const auto queue = static_cast<cudaStream_t>(stream);
  if (s.masks * s.capacity > 0) cudaMemsetAsync(runs, 0, static_cast<size_t>(s.masks * s.capacity) * 4, queue);
  if (s.masks == 0) return;
  cudaMemsetAsync(lengths, 0, static_cast<size_t>(s.masks) * 8, queue);
  if (s.height * s.width == 0) return;
  int64_t* counts = static_cast<int64_t*>(workspace);
  const int64_t columns = s.masks * s.width;
  DETC_LAUNCH(count_kernel, blocks_for(columns), kThreads, stream, s, bits, counts);
  DETC_LAUNCH(scan_kernel, s.masks < 65535 ? s.masks : 65535, kThreads, stream, counts, s.masks, s.width, lengths);
  DETC_LAUNCH(place_kernel, blocks_for(columns), kThreads, stream, s, bits, counts, runs);
  DETC_LAUNCH(difference_kernel, blocks_for(s.masks), kThreads, stream, s, runs, lengths);
}

void rle_decode_cuda(const Rle& s, const int32_t* runs, const int64_t* lengths, uint8_t* bits, void* workspace, void* stream) {
  const int64_t pixels = s.masks * s.height * s.width;
  if (pixels == 0) return;
  if (s.capacity == 0) {
    cudaMemsetAsync(bits, 0, static_cast<size_t>(pixels), static_cast<cudaStream_t>(stream));
    return;
  }
  int64_t *starts = static_cast<int64_t*>(workspace), *totals = starts + s.masks * s.capacity;
  DETC_LAUNCH(run_starts_kernel, blocks_for(s.masks * s.capacity), kThreads, stream, s, runs, lengths, starts);
  DETC_LAUNCH(scan_kernel, s.masks < 65535 ? s.masks : 65535, kThreads, stream, starts, s.masks, s.capacity, totals);
  DETC_LAUNCH(fill_kernel, blocks_for(pixels), kThreads, stream, s, starts, totals, lengths, bits);
}

}  // namespace detc
