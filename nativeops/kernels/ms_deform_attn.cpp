#include "ms_deform_attn.h"

#include <algorithm>

#include "bilinear.h"
#include "parallel.h"
#include "simd.h"

namespace detc {
namespace {

// D > 0: channels known at compile time, a multiple of the vector; the sums then stay in registers.
template <class T, int D>
void forward_one(const MsDeformAttn& s, const T* value, const T* location, const T* weight, T* out) {
  constexpr int V = D / kLanes<T>;
  const int64_t pixel = s.heads * D;
  vec<T> sum[V] = {};
  for (int64_t level = 0; level < s.levels; ++level) {
    const T* base = value + s.start[level] * pixel;
    const int64_t H = s.height[level], W = s.width[level];
    for (int64_t point = 0; point < s.points; ++point, location += 2, ++weight) {
      const auto tap = bilinear_zeros<T>(location[1] * T(H) - T(0.5), location[0] * T(W) - T(0.5), H, W);
      if (!tap.inside) continue;
      for (int i = 0; i < 4; ++i) {
        const vec<T> w = vset<T>(tap.weight(i) * *weight);
        const T* row = base + tap.index[i] * pixel;
        for (int v = 0; v < V; ++v) sum[v] += w * vload(row + v * kLanes<T>);
      }
    }
  }
  for (int v = 0; v < V; ++v) vstore(out + v * kLanes<T>, sum[v]);
}

template <class T>
void forward_any(const MsDeformAttn& s, const T* value, const T* location, const T* weight, T* out) {
  const int64_t D = s.channels, pixel = s.heads * D;
  std::fill(out, out + D, T(0));
  for (int64_t level = 0; level < s.levels; ++level) {
    const T* base = value + s.start[level] * pixel;
    const int64_t H = s.height[level], W = s.width[level];
    for (int64_t point = 0; point < s.points; ++point, location += 2, ++weight) {
      const auto tap = bilinear_zeros<T>(location[1] * T(H) - T(0.5), location[0] * T(W) - T(0.5), H, W);
      if (!tap.inside) continue;
      const T w0 = tap.weight(0) * *weight, w1 = tap.weight(1) * *weight;
      const T w2 = tap.weight(2) * *weight, w3 = tap.weight(3) * *weight;
      const T *v0 = base + tap.index[0] * pixel, *v1 = base + tap.index[1] * pixel;
      const T *v2 = base + tap.index[2] * pixel, *v3 = base + tap.index[3] * pixel;
      for (int64_t d = 0; d < D; ++d) out[d] += w0 * v0[d] + w1 * v1[d] + w2 * v2[d] + w3 * v3[d];
    }
  }
}

template <class T>
using ForwardOne = void (*)(const MsDeformAttn&, const T*, const T*, const T*, T*);

template <class T>
ForwardOne<T> choose(int64_t channels) {
  constexpr int L = kLanes<T>;
  switch (channels) {
    case 16: if constexpr (16 % L == 0) return forward_one<T, 16>; break;
    case 32: if constexpr (32 % L == 0) return forward_one<T, 32>; break;
    case 64: if constexpr (64 % L == 0) return forward_one<T, 64>; break;
  }
  return forward_any<T>;
}

template <class T>
void forward(const MsDeformAttn& s, const T* value, const T* locations, const T* weights, T* out) {
  const ForwardOne<T> one = choose<T>(s.channels);
  const int64_t samples = s.levels * s.points, per_image = s.queries * s.heads;
  parallel_for(s.images * per_image, 64, [=, &s](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const T* head = value + (i / per_image * s.positions * s.heads + i % s.heads) * s.channels;
      one(s, head, locations + i * samples * 2, weights + i * samples, out + i * s.channels);
    }
  });
}

// One image and one head: its slice of grad_value is written by nobody else, so the sums have one order.
template <class T>
void backward_head(
    const MsDeformAttn& s, int64_t image, int64_t head, const T* grad_out, const T* value, const T* locations, const T* weights,
    T* grad_value, T* grad_locations, T* grad_weights) {
  const int64_t D = s.channels, pixel = s.heads * D, samples = s.levels * s.points;
  const int64_t slice = image * s.positions * pixel + head * D;
  for (int64_t query = 0; query < s.queries; ++query) {
    const int64_t i = (image * s.queries + query) * s.heads + head;
    const T* g = grad_out + i * D;
    for (int64_t level = 0, at = i * samples; level < s.levels; ++level) {
      const T* base = value + slice + s.start[level] * pixel;
      T* grad_base = grad_value + slice + s.start[level] * pixel;
      const int64_t H = s.height[level], W = s.width[level];
      for (int64_t point = 0; point < s.points; ++point, ++at) {
        const auto tap = bilinear_zeros<T>(locations[2 * at + 1] * T(H) - T(0.5), locations[2 * at] * T(W) - T(0.5), H, W);
        T slope_x = 0, slope_y = 0, along_weight = 0;
        if (tap.inside) {
          T v[4];
          for (int t = 0; t < 4; ++t) {
            v[t] = tap.reads(t) ? dot(g, base + tap.index[t] * pixel, D) : T(0);
            const T w = tap.weight(t);
            along_weight += w * v[t];
            const T scale = w * weights[at];
            if (!tap.reads(t)) continue;
            T* row = grad_base + tap.index[t] * pixel;
            for (int64_t d = 0; d < D; ++d) row[d] += scale * g[d];
          }
          slope_y = tap.slope_y(v[0], v[1], v[2], v[3]) * weights[at] * T(H);
          slope_x = tap.slope_x(v[0], v[1], v[2], v[3]) * weights[at] * T(W);
        }
        grad_locations[2 * at] = slope_x;
        grad_locations[2 * at + 1] = slope_y;
        grad_weights[at] = along_weight;
      }
    }
  }
}

template <class T>
void backward(
    const MsDeformAttn& s, const T* grad_out, const T* value, const T* locations, const T* weights, T* grad_value, T* grad_locations,
    T* grad_weights) {
  parallel_for(s.images * s.heads, 1, [=, &s](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i)
      backward_head(s, i / s.heads, i % s.heads, grad_out, value, locations, weights, grad_value, grad_locations, grad_weights);
  });
}

}  // namespace

void ms_deform_attn_cpu(
    DType dtype, const MsDeformAttn& shape, const void* value, const void* locations, const void* weights, void* out) {
  DETC_DISPATCH_WIDE(dtype, T, {
    forward(shape, static_cast<const T*>(value), static_cast<const T*>(locations), static_cast<const T*>(weights), static_cast<T*>(out));
  });
}

void ms_deform_attn_backward_cpu(
    DType dtype, const MsDeformAttn& shape, const void* grad_out, const void* value, const void* locations, const void* weights,
    void* grad_value, void* grad_locations, void* grad_weights) {
  DETC_DISPATCH_WIDE(dtype, T, {
    backward(
        shape, static_cast<const T*>(grad_out), static_cast<const T*>(value), static_cast<const T*>(locations),
        static_cast<const T*>(weights), static_cast<T*>(grad_value), static_cast<T*>(grad_locations), static_cast<T*>(grad_weights));
  });
}

}  // namespace detc
