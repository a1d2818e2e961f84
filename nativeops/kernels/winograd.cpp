// A block of tiles at a time: their 6x6 patches are transformed to 36 points, which are 36 products [tiles, C] x [C, O], and the sums are
// transformed back to 4x4 outputs. What a sum is made of, and in what order, does not depend on the block: threads change nothing.
#include "winograd.h"

#include <algorithm>
#include <cmath>
#include <new>

#include "pages.h"
#include "parallel.h"
#include "simd.h"

namespace detc {
namespace {

constexpr int64_t kSide = 4, kPatch = 6, kPoints = kWinogradPoints;
constexpr int64_t kChannels = kWinogradChannels, kFilters = kWinogradFilters;
constexpr int64_t kBlock = 36;  // tiles at a time: their points stay in the cache, while filters stream by
constexpr int64_t kRun = 2;     // blocks of channels that are summed on their own
constexpr int64_t kLine = 16;   // elements: planes begin in different sets of the cache
#if defined(__AVX512F__)
constexpr int kRows = 12;  // 24 of the 32 registers hold sums
#else
constexpr int kRows = 6;  // 12 of 16
#endif

// Aligned memory that a thread keeps for its next call.
template <class T>
class Workspace {
 public:
  ~Workspace() { operator delete[](data_, kAlign); }
  T* get(int64_t n) {
    if (n > size_) {
      operator delete[](data_, kAlign);
      const auto bytes = static_cast<size_t>(round_up(n * static_cast<int64_t>(sizeof(T)), int64_t{1} << 21));
      data_ = static_cast<T*>(operator new[](bytes, kAlign));
      prefer_huge_pages(data_, static_cast<int64_t>(bytes));
      size_ = n;
    }
    return data_;
  }

 private:
  static constexpr std::align_val_t kAlign{1 << 21};
  T* data_ = nullptr;
  int64_t size_ = 0;
};

// B^T d, G g and A^T m of the paper for the points 0, p, -p, q, -q and infinity. The paper's 1 and 2 make twice the rounding error of
// these (Barabasz et al., arXiv:1803.10986, on the choice of points), which also are exact, as are their products.
constexpr double kP = 5.0 / 8, kQ = 3.0 / 2, kP2 = kP * kP, kQ2 = kQ * kQ;

template <class T, class V>
inline void to_points(const V (&d)[6], V (&y)[6]) {
  constexpr T p = kP, q = kQ, p2 = kP2, q2 = kQ2, sum = kP2 + kQ2, product = kP2 * kQ2;
  const V even_p = d[4] - q2 * d[2], odd_p = d[3] - q2 * d[1];
  const V even_q = d[4] - p2 * d[2], odd_q = d[3] - p2 * d[1];
  y[0] = d[4] - sum * d[2] + product * d[0];
  y[1] = even_p + p * odd_p;
  y[2] = even_p - p * odd_p;
  y[3] = even_q + q * odd_q;
  y[4] = even_q - q * odd_q;
  y[5] = d[5] - sum * d[3] + product * d[1];
}

inline void filter_to_points(const double (&g)[3], double (&y)[6]) {
  constexpr double at_p = 1 / (2 * kP2 * (kP2 - kQ2)), at_q = 1 / (2 * kQ2 * (kQ2 - kP2));
  y[0] = g[0] / (kP2 * kQ2);
  y[1] = (g[0] + kP * g[1] + kP2 * g[2]) * at_p;
  y[2] = (g[0] - kP * g[1] + kP2 * g[2]) * at_p;
  y[3] = (g[0] + kQ * g[1] + kQ2 * g[2]) * at_q;
  y[4] = (g[0] - kQ * g[1] + kQ2 * g[2]) * at_q;
  y[5] = g[2];
}

template <class T, class V>
inline void from_points(const V (&m)[6], V (&y)[4]) {
  constexpr T p = kP, q = kQ, p2 = kP2, q2 = kQ2, p3 = kP2 * kP, q3 = kQ2 * kQ;
  const V even_p = m[1] + m[2], odd_p = m[1] - m[2], even_q = m[3] + m[4], odd_q = m[3] - m[4];
  y[0] = m[0] + even_p + even_q;
  y[1] = p * odd_p + q * odd_q;
  y[2] = p2 * even_p + q2 * even_q;
  y[3] = p3 * odd_p + q3 * odd_q + m[5];
}

// One patch, L channels of it: 36 points, `plane` apart. `at[i]` is pixel i of the patch.
template <class T, class Load>
inline void transform_patch(const Load& load_pixel, T* to, int64_t plane) {
  vec<T> half[6][6], in[6], out[6];
  for (int j = 0; j < 6; ++j) {
#pragma GCC unroll 6
    for (int i = 0; i < 6; ++i) in[i] = load_pixel(i * 6 + j);
    to_points<T>(in, out);
#pragma GCC unroll 6
    for (int i = 0; i < 6; ++i) half[i][j] = out[i];
  }
  for (int i = 0; i < 6; ++i) {
    to_points<T>(half[i], out);
#pragma GCC unroll 6
    for (int j = 0; j < 6; ++j) vstore(to + (i * 6 + j) * plane, out[j]);
  }
}

// C[ROWS, VECTORS vectors] = A B. A is [block of channels][tile][kChannels], so its rows are one line apart; B [channels, kFilters].
// Runs of channels are summed on their own, and then their sums: in one long sum rounding would be most of the error.
template <class T, int VECTORS, int ROWS>
void multiply_tile(int64_t blocks, const T* a, int64_t a_block, const T* b, T* c) {
  constexpr int L = kLanes<T>;
  for (int64_t begin = 0; begin < blocks; begin += kRun) {
    vec<T> sum[ROWS][VECTORS] = {};
    for (int64_t block = begin; block < std::min(blocks, begin + kRun); ++block, a += a_block)
      for (int k = 0; k < kChannels; ++k, b += kFilters) {
        vec<T> filters[VECTORS];
#pragma GCC unroll 2
        for (int v = 0; v < VECTORS; ++v) filters[v] = vload(b + v * L);
#pragma GCC unroll 12
        for (int m = 0; m < ROWS; ++m) {
          const T x = a[m * kChannels + k];
#pragma GCC unroll 2
          for (int v = 0; v < VECTORS; ++v) sum[m][v] += x * filters[v];
        }
      }
#pragma GCC unroll 12
    for (int m = 0; m < ROWS; ++m)
#pragma GCC unroll 2
      for (int v = 0; v < VECTORS; ++v) {
        T* to = c + m * kFilters + v * L;
        vstore(to, begin == 0 ? sum[m][v] : vload(to) + sum[m][v]);
      }
  }
}

template <class T, int VECTORS, int ROWS = kRows>
inline void multiply_rows(int64_t rows, int64_t blocks, const T* a, int64_t a_block, const T* b, T* c) {
  if constexpr (ROWS >= 1) {
    if (rows == ROWS) multiply_tile<T, VECTORS, ROWS>(blocks, a, a_block, b, c);
    else multiply_rows<T, VECTORS, ROWS - 1>(rows, blocks, a, a_block, b, c);
  }
}

// C[tiles, kFilters] = A[tiles, C] B[C, kFilters], of which only the first `filters` columns are wanted.
template <class T>
void multiply(int64_t tiles, int64_t blocks, const T* a, int64_t a_block, const T* b, T* c, int64_t filters) {
  constexpr int L = kLanes<T>;
  const int64_t groups = (tiles + kRows - 1) / kRows;  // of about equal height
  for (int64_t column = 0; column < filters; column += 2 * L)
    for (int64_t g = 0; g < groups; ++g) {
      const int64_t first = g * tiles / groups, rows = (g + 1) * tiles / groups - first;
      const T* from = a + first * kChannels;
      T* to = c + first * kFilters + column;
      if (filters - column > L)
        multiply_rows<T, 2>(rows, blocks, from, a_block, b + column, to);
      else
        multiply_rows<T, 1>(rows, blocks, from, a_block, b + column, to);
    }
}

// exp to 2 units in the last place: 2^n times a polynomial on [-ln 2 / 2, ln 2 / 2] (coefficients of Cephes).
inline vec<float> vexp(vec<float> x) {
  typedef uint32_t bits __attribute__((vector_size(kVectorBytes)));
  x = x < vset(-87.0f) ? vset(-87.0f) : x;
  x = x > vset(88.0f) ? vset(88.0f) : x;
  const vec<float> shift = vset(12582912.0f);  // 1.5 * 2^23: a sum with it ends in the rounded number
  const vec<float> shifted = x * 1.44269504f + shift, n = shifted - shift;
  const vec<float> r = x - n * 0.693359375f + n * 2.12194440e-4f;
  vec<float> p = r * 1.9875691500e-4f + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1;
  bits power;
  std::memcpy(&power, &shifted, sizeof(power));
  power = (power + 127) << 23;
  vec<float> scale;
  std::memcpy(&scale, &power, sizeof(scale));
  return p * scale;
}

inline vec<double> vexp(vec<double> x) {
  for (int i = 0; i < kLanes<double>; ++i) x[i] = std::exp(x[i]);
  return x;
}

template <class T>
inline vec<T> activated(vec<T> y, WinogradActivation activation) {
  if (activation == WinogradActivation::relu) return y < vset(T(0)) ? vset(T(0)) : y;  // NaN stays
  if (activation == WinogradActivation::silu) return y / (1 + vexp(-y));
  return y;
}

// The first n lanes; zeros behind them.
template <class T>
inline vec<T> load_some(const T* p, int64_t n) {
  if (n >= kLanes<T>) return vload(p);
  vec<T> v = {};
  for (int64_t i = 0; i < n; ++i) v[i] = p[i];
  return v;
}
template <class T>
inline void store_some(T* p, vec<T> v, int64_t n) {
  if (n >= kLanes<T>) return vstore(p, v);
  for (int64_t i = 0; i < n; ++i) p[i] = v[i];
}

template <class T>
class Convolution {
 public:
  Convolution(const WinogradConv& s, const T* x, const T* packed, const T* bias, const T* other, T* out)
      : s_(s), x_(x), packed_(packed), bias_(bias), other_(other), out_(out) {
    down_ = (s.out_height() + kSide - 1) / kSide, across_ = (s.out_width() + kSide - 1) / kSide;
    tiles_ = s.images * down_ * across_;
    wide_ = round_up(s.channels, kChannels);
    panels_ = round_up(s.out_channels, kFilters) / kFilters;
    blocks_ = (tiles_ + kBlock - 1) / kBlock;
    const int64_t longest = (tiles_ + blocks_ - 1) / blocks_;
    in_plane_ = longest * wide_ + kLine, out_plane_ = longest * kFilters + kLine;
  }

  void run() const {
    // A thread's items are one run, so it transforms a block's patches once and multiplies them by several panels of filters.
    parallel_for(blocks_ * panels_, 1, [this](int64_t begin, int64_t end) {
      static thread_local Workspace<T> kept;
      T* points = kept.get(kPoints * (in_plane_ + out_plane_));
      T* sums = points + kPoints * in_plane_;
      for (int64_t item = begin; item < end; ++item) {
        const int64_t block = item / panels_, panel = item % panels_;
        const int64_t first = block * tiles_ / blocks_, count = (block + 1) * tiles_ / blocks_ - first;
        if (item == begin || panel == 0) to_points_of(first, count, points);
        products(panel, count, points, sums);
        from_sums(panel, first, count, sums);
      }
    });
  }

 private:
  struct Place {
    int64_t image, y, x;  // of the tile's first output
  };
  Place place(int64_t tile) const {
    const int64_t in_image = tile % (down_ * across_);
    return {tile / (down_ * across_), in_image / across_ * kSide, in_image % across_ * kSide};
  }

  // Where the pixels of a tile's patch are; outside of the image are zeros.
  struct Patch {
    const T* at[kPoints];
    int64_t step[kPoints];  // from one channel to the next
  };
  void find(int64_t tile, Patch& patch) const {
    alignas(64) static constexpr T zeros[kChannels] = {};
    const Place p = place(tile);
    for (int64_t i = 0; i < kPoints; ++i) {
      const int64_t y = p.y - s_.pad_h + i / kPatch, x = p.x - s_.pad_w + i % kPatch;
      const bool inside = y >= 0 && y < s_.height && x >= 0 && x < s_.width;
      patch.at[i] = inside ? x_ + ((p.image * s_.height + y) * s_.width + x) * s_.channels : zeros;
      patch.step[i] = inside ? 1 : 0;
    }
  }

  void to_points_of(int64_t first, int64_t count, T* points) const {
    constexpr int L = kLanes<T>;
    Patch patch, next;
    find(first, next);
    for (int64_t t = 0; t < count; ++t) {
      patch = next;
      if (t + 1 < count) find(first + t + 1, next);
      for (int64_t c = 0; c < wide_; c += kChannels) {
        for (int64_t i = 0; i < kPoints; ++i)  // what the next patch does not share with this one
          if (i % kPatch >= kPatch - kSide) __builtin_prefetch(next.at[i] + next.step[i] * c, 0, 2);
        T* to = points + (c * count + t * kChannels);
        const int64_t left = s_.channels - c;
        for (int64_t v = 0; v < kChannels; v += L) {
          const auto whole = [&](int i) { return vload(patch.at[i] + patch.step[i] * c + v); };
          const auto part = [&](int i) { return load_some(patch.at[i] + patch.step[i] * c + v, left - v); };
          if (left >= kChannels) transform_patch<T>(whole, to + v, in_plane_);
          else transform_patch<T>(part, to + v, in_plane_);
        }
      }
    }
  }

  void products(int64_t panel, int64_t count, const T* points, T* sums) const {
    const int64_t filters = std::min(kFilters, s_.out_channels - panel * kFilters);
    for (int64_t point = 0; point < kPoints; ++point)
      multiply<T>(
          count, wide_ / kChannels, points + point * in_plane_, count * kChannels,
          packed_ + (panel * kPoints + point) * wide_ * kFilters, sums + point * out_plane_, filters);
  }

  // The lines of a tile's outputs, so that they are there when it is written.
  void prefetch(const Place& p, int64_t begin, int64_t filters) const {
    const int64_t H = s_.out_height(), W = s_.out_width(), O = s_.out_channels;
    for (int64_t y = p.y; y < std::min(H, p.y + kSide); ++y)
      for (int64_t x = p.x; x < std::min(W, p.x + kSide); ++x) {
        const int64_t to = ((p.image * H + y) * W + x) * O + begin;
        for (int64_t o = 0; o < filters; o += kLine) {
          __builtin_prefetch(out_ + to + o, 1);
          if (other_) __builtin_prefetch(other_ + to + o);
        }
      }
  }

  void from_sums(int64_t panel, int64_t first, int64_t count, const T* sums) const {
    constexpr int L = kLanes<T>;
    const int64_t H = s_.out_height(), W = s_.out_width(), O = s_.out_channels;
    const int64_t begin = panel * kFilters, end = std::min(O, begin + kFilters);
    for (int64_t t = 0; t < count; ++t) {
      const Place p = place(first + t);
      const int64_t rows = std::min(kSide, H - p.y), columns = std::min(kSide, W - p.x);
      const int64_t corner = ((p.image * H + p.y) * W + p.x) * O;
      if (t + 1 < count) prefetch(place(first + t + 1), begin, end - begin);
      for (int64_t o = begin; o < end; o += L) {
        const T* from = sums + t * kFilters + (o - begin);
        vec<T> half[4][6], in[6], out[4];
        for (int j = 0; j < 6; ++j) {
#pragma GCC unroll 6
          for (int i = 0; i < 6; ++i) in[i] = vload(from + (i * 6 + j) * out_plane_);
          from_points<T>(in, out);
#pragma GCC unroll 4
          for (int i = 0; i < 4; ++i) half[i][j] = out[i];
        }
        const int64_t left = end - o;
        const vec<T> bias = bias_ ? load_some(bias_ + o, left) : vec<T>{};
        for (int64_t i = 0; i < rows; ++i) {
          from_points<T>(half[i], out);
          for (int64_t j = 0; j < columns; ++j) {
            const int64_t to = corner + (i * W + j) * O + o;
            vec<T> y = out[j] + bias;
            if (other_) y += load_some(other_ + to, left);
            store_some(out_ + to, activated<T>(y, s_.activation), left);
          }
        }
      }
    }
  }

  const WinogradConv s_;
  const T *x_, *packed_, *bias_, *other_;
  T* out_;
  int64_t down_, across_, tiles_, wide_, panels_, blocks_, in_plane_, out_plane_;
};

template <class T>
void pack(int64_t C, int64_t O, const T* weight, T* packed) {
  const int64_t wide = round_up(C, kChannels), panels = round_up(O, kFilters) / kFilters;
  parallel_for(panels, 1, [=](int64_t begin, int64_t end) {
    std::fill(packed + begin * kPoints * wide * kFilters, packed + end * kPoints * wide * kFilters, T(0));
    for (int64_t o = begin * kFilters; o < std::min(O, end * kFilters); ++o)
      for (int64_t c = 0; c < C; ++c) {
        const T* g = weight + (o * C + c) * 9;
        double half[6][3], row[3], points[6];
        for (int j = 0; j < 3; ++j) {
          for (int i = 0; i < 3; ++i) row[i] = g[i * 3 + j];
          filter_to_points(row, points);
          for (int i = 0; i < 6; ++i) half[i][j] = points[i];
        }
        for (int i = 0; i < 6; ++i) {
          filter_to_points(half[i], points);
          for (int j = 0; j < 6; ++j)
            packed[((o / kFilters * kPoints + i * 6 + j) * wide + c) * kFilters + o % kFilters] = static_cast<T>(points[j]);
        }
      }
  });
}

}  // namespace

void winograd_pack_cpu(DType dtype, int64_t channels, int64_t out_channels, const void* weight, void* packed) {
  DETC_DISPATCH_WIDE(dtype, T, { pack(channels, out_channels, static_cast<const T*>(weight), static_cast<T*>(packed)); });
}

void winograd_conv2d_cpu(
    DType dtype, const WinogradConv& conv, const void* x, const void* packed, const void* bias, const void* other, void* out) {
  DETC_DISPATCH_WIDE(dtype, T, {
    Convolution<T>(
        conv, static_cast<const T*>(x), static_cast<const T*>(packed), static_cast<const T*>(bias), static_cast<const T*>(other),
        static_cast<T*>(out))
        .run();
  });
}

}  // namespace detc
