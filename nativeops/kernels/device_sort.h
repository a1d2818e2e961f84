// A stable device-wide sort of (key, index) pairs: the one place that uses CUB.
#pragma once

#include <cstdint>

#include "launch.h"

#ifndef DETC_EMULATE_CUDA
#include <cub/device/device_radix_sort.cuh>

namespace detc {

template <class Key>
size_t sort_pairs_bytes(int64_t n) {
  size_t bytes = 0;
  cub::DeviceRadixSort::SortPairs(nullptr, bytes, static_cast<const Key*>(nullptr), static_cast<Key*>(nullptr),
                                  static_cast<const uint32_t*>(nullptr), static_cast<uint32_t*>(nullptr), n);
  return bytes;
}

// Ascending by key, equal keys in the order they came.
template <class Key>
void sort_pairs(void* temporary, size_t bytes, const Key* keys, Key* sorted_keys, const uint32_t* values,
                uint32_t* sorted_values, int64_t n, void* stream) {
  cub::DeviceRadixSort::SortPairs(temporary, bytes, keys, sorted_keys, values, sorted_values, n, 0,
                                  static_cast<int>(sizeof(Key) * 8), static_cast<cudaStream_t>(stream));
}

}  // namespace detc
#endif
