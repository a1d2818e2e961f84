// Ordering floats as unsigned integers, and a stable descending sort built on it.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

namespace detc {

// Larger score -> smaller key; -0 equals +0; NaN comes before everything (as torch.sort's descending order has it).
inline uint32_t descending_key(float score) {
  if (score != score) return 0;
  score += 0.0f;
  uint32_t bits;
  std::memcpy(&bits, &score, 4);
  bits = (bits & 0x80000000u) ? ~bits : (bits | 0x80000000u);
  return ~bits;
}

inline uint64_t descending_key(double score) {
  if (score != score) return 0;
  score += 0.0;
  uint64_t bits;
  std::memcpy(&bits, &score, 8);
  bits = (bits >> 63) ? ~bits : (bits | (uint64_t{1} << 63));
  return ~bits;
}

template <class Key>
struct Keyed {
  Key key;
  uint32_t index;
};

template <class Key>
inline bool operator<(const Keyed<Key>& a, const Keyed<Key>& b) {
  return a.key != b.key ? a.key < b.key : a.index < b.index;
}

// Sorts by key, then by index. `items` must come in ascending order of index: the radix passes are stable.
inline void sort_keyed(std::vector<Keyed<uint32_t>>& items) {
  if (items.size() < 512) {
    std::sort(items.begin(), items.end());
    return;
  }
  constexpr int kBits = 11, kBuckets = 1 << kBits, kPasses = 3;
  std::vector<Keyed<uint32_t>> other(items.size());
  std::vector<uint32_t> counts(kPasses * kBuckets, 0);
  for (const auto& item : items)
    for (int pass = 0; pass < kPasses; ++pass)
      ++counts[pass * kBuckets + ((item.key >> (pass * kBits)) & (kBuckets - 1))];
  for (int pass = 0; pass < kPasses; ++pass) {
    uint32_t* count = counts.data() + pass * kBuckets;
    uint32_t total = 0;
    for (int b = 0; b < kBuckets; ++b) {
      const uint32_t here = count[b];
      count[b] = total;
      total += here;
    }
    for (const auto& item : items) other[count[(item.key >> (pass * kBits)) & (kBuckets - 1)]++] = item;
    items.swap(other);
  }
}

inline void sort_keyed(std::vector<Keyed<uint64_t>>& items) { std::sort(items.begin(), items.end()); }

// Sorts, keeping only the first `limit` items (0: all).
template <class Key>
void sort_first(std::vector<Keyed<Key>>& items, int64_t limit) {
  if (limit > 0 && static_cast<int64_t>(items.size()) > limit) {
    std::nth_element(items.begin(), items.begin() + limit, items.end());
    items.resize(limit);
    std::sort(items.begin(), items.end());
    return;
  }
  sort_keyed(items);
}

}  // namespace detc
