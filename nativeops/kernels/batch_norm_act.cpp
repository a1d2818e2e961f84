// The map is cut into groups whose size does not depend on the number of threads. Within a group, sums are taken by position modulo a period that
// holds each channel some whole times, in loops over plain arrays; the sums of the groups are added in order, in double.
#include "batch_norm_act.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <type_traits>
#include <utility>

#include "layout.h"

#ifdef __AVX512BF16__
#include <immintrin.h>
#endif

namespace detc {
namespace {

constexpr int64_t kGroup = 16384;   // elements of a group, about: they are still in the nearest cache when they are read again
constexpr int64_t kLeastRows = 32;  // pixels of a group, at least: the groups' sums are few beside the map
constexpr int64_t kPeriod = 256;    // positions that have a sum of their own, at least: enough to hide an addition's latency

// Rounds a line of results to 16 bits, nearest even. Apart from the arithmetic, because some CPUs do it in one instruction, which no loop is made into.
inline void put(const float* line, int64_t n, half* to) {
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) store(to + i, line[i]);
}
inline void put(const float* line, int64_t n, bfloat16* to) {
#ifdef __AVX512BF16__
  for (int64_t i = 0; i < n; i += 16) {
    const __mmask16 some = n - i < 16 ? static_cast<__mmask16>((1u << (n - i)) - 1u) : static_cast<__mmask16>(0xffffu);
    const __m512 values = _mm512_maskz_loadu_ps(some, line + i);
    _mm256_mask_storeu_epi16(to + i, some, reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(values)));
  }
#else
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) {
    const uint32_t bits = std::bit_cast<uint32_t>(line[i]), rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
    to[i].bits = static_cast<uint16_t>(line[i] == line[i] ? rounded : (bits >> 16) | 0x40u);
  }
#endif
}
template <class A>
void put(const A*, int64_t, A*) {}  // results of 32 and 64 bits were computed in their place

// Where a line of results is computed.
template <class A, class T>
A* line_of(T* to, A* spare) {
  if constexpr (std::is_same_v<A, T>) return to;
  else return spare;
}

// e^x in vectors: 2^n times a polynomial of what is left. Its relative error is below 2^-19 (of 16-bit numbers
// below 2^-14), most where |x| is large; above 88.4 it is infinite.
template <class T>
inline float exponential(float x) {
  // 1.5 * 2^23, and the exponent's bias: once it is added, the low bits hold the exponent of 2^n.
  constexpr float kRound = 12582912.0f + 127.0f, kLog2 = 1.44269504f;
  x = x < -87.0f ? -87.0f : x;
  x = x > 89.0f ? 89.0f : x;
  const float shifted = x * kLog2 + kRound, n = shifted - kRound;
#ifdef __FP_FAST_FMAF
  const float f = std::fma(x, kLog2, -n);  // of the exact product: what it is rounded to may be 127 * 2^-24 away
#else
  const float f = (x - n * 0.693359375f + n * 2.12194440e-4f) * kLog2;  // ln 2 in two parts, the first of 9 bits
#endif
  // ln(2)^k / k!, the series of 2^f for |f| <= 1/2
  float sum = 9.61812911e-3f;
  if constexpr (sizeof(T) > 2) {
    sum = 1.54035304e-4f;
    sum = sum * f + 1.33335581e-3f;
    sum = sum * f + 9.61812911e-3f;
  }
  sum = sum * f + 5.55041087e-2f;
  sum = sum * f + 2.40226507e-1f;
  sum = sum * f + 6.93147181e-1f;
  sum = sum * f + 1.0f;
  return sum * std::bit_cast<float>(std::bit_cast<uint32_t>(shifted) << 23);
}
template <class T>
inline double exponential(double x) { return std::exp(x); }

template <Activation kind, class T>
struct Act {
  using A = acc_t<T>;
  A slope;

  A value(A z) const {
    if constexpr (kind == Activation::relu) return z < A(0) ? A(0) : z;
    if constexpr (kind == Activation::silu) return z / (A(1) + exponential<T>(-z));
    if constexpr (kind == Activation::leaky_relu) return z > A(0) ? z : z * slope;
    if constexpr (kind == Activation::hardswish) {
      const A gate = z + A(3) < A(0) ? A(0) : z + A(3);
      return z * (gate > A(6) ? A(6) : gate) / A(6);
    }
    return z;
  }

  A derivative(A z) const {
    if constexpr (kind == Activation::relu) return z > A(0) ? A(1) : A(0);
    if constexpr (kind == Activation::silu) {
      const A s = A(1) / (A(1) + exponential<T>(-z));
      return s * (A(1) + z * (A(1) - s));
    }
    if constexpr (kind == Activation::leaky_relu) return z > A(0) ? A(1) : slope;
    if constexpr (kind == Activation::hardswish) {
      const A inside = z <= A(3) ? z / A(3) + A(0.5) : A(1);
      return z < A(-3) ? A(0) : inside;
    }
    return A(1);
  }
};

// How a map is cut. Channels last, a group is some whole pixels: one run of memory. Channels first, it is the same part of every plane of an image:
// a run for each channel.
struct Cut {
  const BatchNormAct& norm;
  int64_t rows;    // pixels of a group
  int64_t parts;   // groups of an image (channels first)
  int64_t groups, runs;
  int64_t period;  // of the tables

  explicit Cut(const BatchNormAct& n) : norm(n) {
    if (n.channels_last) {
      int64_t step = 1;
      while (step * n.channels < kPeriod || (n.channels < kPeriod && step * n.channels % 16 != 0)) ++step;
      period = step * n.channels;
      rows = (std::max(kGroup / n.channels, kLeastRows) + step - 1) / step * step;
      parts = 1;
      groups = (pixels() + rows - 1) / rows;
      runs = 1;
    } else {
      period = kPeriod;
      rows = std::min(n.pixels, kGroup);
      parts = (n.pixels + rows - 1) / rows;
      groups = n.images * parts;
      runs = n.channels;
    }
  }

  int64_t pixels() const { return norm.images * norm.pixels; }
  int64_t pixels_of(int64_t group) const {
    return norm.channels_last ? std::min(rows, pixels() - group * rows) : std::min(rows, norm.pixels - group % parts * rows);
  }
  int64_t first_of(int64_t group, int64_t channel) const {
    if (norm.channels_last) return group * rows * norm.channels;
    return (group / parts * norm.channels + channel) * norm.pixels + group % parts * rows;
  }
  int64_t elements_of(int64_t group) const { return pixels_of(group) * (norm.channels_last ? norm.channels : 1); }

  // The channels' values, in a table that runs beside the elements.
  template <class A>
  void spread(const A* values, int64_t channel, A* table) const {
    if (!norm.channels_last) {
      std::fill(table, table + std::min(period, norm.pixels), values[channel]);
      return;
    }
    for (int64_t i = 0; i < period; i += norm.channels) std::copy(values, values + norm.channels, table + i);
  }
  // The other way: the sums of a table by channel.
  template <class A>
  void fold(const A* table, int64_t channel, A* sums) const {
    if (!norm.channels_last) {
      A sum = 0;
      for (int64_t i = 0; i < std::min(period, norm.pixels); ++i) sum += table[i];
      sums[channel] = sum;
      return;
    }
    std::copy(table, table + norm.channels, sums);
    for (int64_t i = norm.channels; i < period; i += norm.channels)
      for (int64_t c = 0; c < norm.channels; ++c) sums[c] += table[i + c];
  }

  // f(group, channel) for all runs; `make()` makes what a thread keeps between them.
  template <class Make, class F>
  void for_runs(const Make& make, const F& f) const {
    const int64_t size = rows * (norm.channels_last ? norm.channels : 1);
    parallel_for(groups * runs, std::max<int64_t>(1, 2 * kGroup / std::max<int64_t>(size, 1)), [&](int64_t begin, int64_t end) {
      auto tables = make();
      for (int64_t i = begin; i < end; ++i) f(tables, i / runs, i % runs);
    });
  }
};

// Tables of one thread: some that are spread from the channels' values, and three of sums or results.
template <class A, int count>
class Tables {
 public:
  Tables(const Cut& cut, const A* const (&values)[count]) : cut_(cut), data_(scratch<A>((count + 3) * cut.period)) {
    std::copy(values, values + count, values_);
    if (cut.norm.channels_last) fill(0);
  }
  // For the runs of a channel.
  void at(int64_t channel) {
    if (!cut_.norm.channels_last) fill(channel);
  }
  A* operator[](int i) { return data_.get() + i * cut_.period; }
  A* sums(int i) { return (*this)[count + i]; }
  A* cleared(int i) {
    std::fill(sums(i), sums(i) + cut_.period, A(0));
    return sums(i);
  }

 private:
  void fill(int64_t channel) {
    for (int i = 0; i < count; ++i)
      if (values_[i] != nullptr) cut_.spread(values_[i], channel, (*this)[i]);
  }
  const Cut& cut_;
  std::unique_ptr<A[]> data_;
  const A* values_[count];
};

// f(first element, number of elements) for the stretches of a run that the tables run beside.
template <class F>
void stretches(int64_t n, int64_t period, const F& f) {
  for (int64_t i = 0; i < n; i += period) f(i, std::min(period, n - i));
}

// Mean of each channel in each group, and sum of the squared deviations from it: [groups, 2, C].
template <class T, class A>
void moments_of_groups(const Cut& cut, const T* x, A* moments) {
  const int64_t C = cut.norm.channels;
  cut.for_runs([&] { return Tables<A, 1>(cut, {nullptr}); }, [&](auto& tables, int64_t group, int64_t channel) {
    const T* from = x + cut.first_of(group, channel);
    const int64_t n = cut.elements_of(group), pixels = cut.pixels_of(group);
    A *means = moments + group * 2 * C, *squares = means + C, *centre = tables[0];
    A* sums = tables.cleared(0);
    const int64_t period = cut.period, fours = n / (4 * period) * 4 * period;
    for (int64_t first = 0; first < fours; first += 4 * period) {
      const T *p = from + first, *q = p + period, *r = q + period, *s = r + period;
#pragma omp simd
      for (int64_t i = 0; i < period; ++i) sums[i] += (load(p + i) + load(q + i)) + (load(r + i) + load(s + i));
    }
    stretches(n - fours, period, [=](int64_t first, int64_t m) {
      const T* p = from + fours + first;
#pragma omp simd
      for (int64_t i = 0; i < m; ++i) sums[i] += load(p + i);
    });
    cut.fold(sums, channel, means);
    if (cut.norm.channels_last)
      for (int64_t c = 0; c < C; ++c) means[c] /= static_cast<A>(pixels);
    else
      means[channel] /= static_cast<A>(pixels);
    cut.spread(means, channel, centre);
    sums = tables.cleared(0);
    for (int64_t first = 0; first < fours; first += 4 * period) {
      const T *p = from + first, *q = p + period, *r = q + period, *s = r + period;
#pragma omp simd
      for (int64_t i = 0; i < period; ++i) {
        const A a = load(p + i) - centre[i], b = load(q + i) - centre[i], c = load(r + i) - centre[i], d = load(s + i) - centre[i];
        sums[i] += (a * a + b * b) + (c * c + d * d);
      }
    }
    stretches(n - fours, period, [=](int64_t first, int64_t m) {
      const T* p = from + fours + first;
#pragma omp simd
      for (int64_t i = 0; i < m; ++i) {
        const A d = load(p + i) - centre[i];
        sums[i] += d * d;
      }
    });
    cut.fold(sums, channel, squares);
  });
}

// Chan, Golub & LeVeque (1979), all groups at once.
template <class A>
void merge_moments(const Cut& cut, const A* moments, A* mean, A* var) {
  const int64_t C = cut.norm.channels;
  const double n = static_cast<double>(cut.pixels());
  parallel_for(C, grain_for(cut.groups * 4), [&](int64_t begin, int64_t end) {
    const int64_t width = end - begin;
    const auto sums = scratch<double>(2 * width);
    double *centre = sums.get(), *squares = centre + width;
    std::fill(centre, centre + 2 * width, 0.0);
    for (int64_t g = 0; g < cut.groups; ++g) {
      const A* means = moments + g * 2 * C + begin;
      const double share = static_cast<double>(cut.pixels_of(g)) / n;
      for (int64_t c = 0; c < width; ++c) centre[c] += share * static_cast<double>(means[c]);
    }
    for (int64_t g = 0; g < cut.groups; ++g) {
      const A *means = moments + g * 2 * C + begin, *own = means + C;
      const double count = static_cast<double>(cut.pixels_of(g));
      for (int64_t c = 0; c < width; ++c) {
        const double d = static_cast<double>(means[c]) - centre[c];
        squares[c] += static_cast<double>(own[c]) + count * d * d;
      }
    }
    for (int64_t c = 0; c < width; ++c) {
      mean[begin + c] = static_cast<A>(centre[c]);
      var[begin + c] = static_cast<A>(squares[c] / std::max(n - 1.0, 1.0));
    }
  });
}

// The norm as `scale * x + shift`, and one over the standard deviation. Forward and backward take both from the same rounded statistics.
template <class A>
struct Line {
  std::unique_ptr<A[]> data;
  A *scale, *shift, *inverse;

  Line(const Cut& cut, const A* weight, const A* bias, const A* mean, const A* var) : data(scratch<A>(3 * cut.norm.channels)) {
    const int64_t C = cut.norm.channels;
    const double n = static_cast<double>(cut.pixels());
    scale = data.get(), shift = scale + C, inverse = shift + C;
    for (int64_t c = 0; c < C; ++c) {
      inverse[c] = static_cast<A>(1.0 / std::sqrt(static_cast<double>(var[c]) * ((n - 1.0) / n) + cut.norm.eps));
      scale[c] = weight[c] * inverse[c];
      shift[c] = static_cast<A>(static_cast<double>(bias[c]) - static_cast<double>(mean[c]) * static_cast<double>(scale[c]));
    }
  }
};

template <class T, class A, Activation kind>
void apply(const Cut& cut, const T* x, const Line<A>& line, T* out) {
  const Act<kind, T> act{static_cast<A>(cut.norm.slope)};
  cut.for_runs([&] { return Tables<A, 2>(cut, {line.scale, line.shift}); }, [&](auto& tables, int64_t group, int64_t channel) {
    tables.at(channel);
    const A *scale = tables[0], *shift = tables[1];
    A* spare = tables.sums(0);
    const int64_t at = cut.first_of(group, channel);
    stretches(cut.elements_of(group), cut.period, [=](int64_t first, int64_t m) {
      const T* p = x + at + first;
      A* line = line_of(out + at + first, spare);
#pragma omp simd
      for (int64_t i = 0; i < m; ++i) line[i] = act.value(load(p + i) * scale[i] + shift[i]);
      put(line, m, out + at + first);
    });
  });
}

// Of each group and channel, the sum of the gradient before the norm's affine part and of its product with x - mean: [groups, 2, C].
template <class T, class A, Activation kind>
void gradient_sums(const Cut& cut, const T* grad, const T* x, const Line<A>& line, const A* mean, A* sums, T* before) {
  const Act<kind, T> act{static_cast<A>(cut.norm.slope)};
  const int64_t C = cut.norm.channels;
  cut.for_runs([&] { return Tables<A, 3>(cut, {line.scale, line.shift, mean}); }, [&](auto& tables, int64_t group, int64_t channel) {
    tables.at(channel);
    const A *scale = tables[0], *shift = tables[1], *centre = tables[2];
    A *plain = tables.cleared(0), *product = tables.cleared(1), *spare = tables.sums(2);
    const int64_t at = cut.first_of(group, channel);
    stretches(cut.elements_of(group), cut.period, [=](int64_t first, int64_t m) {
      const T *p = x + at + first, *q = grad + at + first;
      A* line = line_of(before + at + first, spare);
#pragma omp simd
      for (int64_t i = 0; i < m; ++i) {
        const A v = load(p + i), g = load(q + i) * act.derivative(v * scale[i] + shift[i]);
        line[i] = g;
        plain[i] += g;
        product[i] += g * (v - centre[i]);
      }
      put(line, m, before + at + first);
    });
    A* to = sums + group * 2 * C;
    cut.fold(plain, channel, to);
    cut.fold(product, channel, to + C);
  });
}

template <class T, class A>
void gradient(const Cut& cut, const T* x, const Line<A>& line, const A* of_x, const A* constant, T* grad_x) {
  cut.for_runs([&] { return Tables<A, 3>(cut, {line.scale, of_x, constant}); }, [&](auto& tables, int64_t group, int64_t channel) {
    tables.at(channel);
    const A *scale = tables[0], *slope = tables[1], *offset = tables[2];
    A* spare = tables.sums(0);
    const int64_t at = cut.first_of(group, channel);
    stretches(cut.elements_of(group), cut.period, [=](int64_t first, int64_t m) {
      const T* p = x + at + first;
      T* to = grad_x + at + first;
      A* line = line_of(to, spare);
#pragma omp simd
      for (int64_t i = 0; i < m; ++i) line[i] = scale[i] * load(to + i) + (slope[i] * load(p + i) + offset[i]);
      put(line, m, to);
    });
  });
}

template <class T, Activation kind>
void forward(const BatchNormAct& norm, const T* x, const acc_t<T>* weight, const acc_t<T>* bias, T* out, acc_t<T>* mean, acc_t<T>* var) {
  using A = acc_t<T>;
  const Cut cut(norm);
  {
    const auto moments = scratch<A>(cut.groups * 2 * norm.channels);
    moments_of_groups(cut, x, moments.get());
    merge_moments(cut, moments.get(), mean, var);
  }
  apply<T, A, kind>(cut, x, Line<A>(cut, weight, bias, mean, var), out);
}

template <class T, Activation kind>
void backward(
    const BatchNormAct& norm, const T* grad, const T* x, const acc_t<T>* weight, const acc_t<T>* bias, const acc_t<T>* mean, const acc_t<T>* var,
    T* grad_x, acc_t<T>* grad_weight, acc_t<T>* grad_bias) {
  using A = acc_t<T>;
  const Cut cut(norm);
  const Line<A> line(cut, weight, bias, mean, var);
  const int64_t C = norm.channels;
  const auto sums = scratch<A>(cut.groups * 2 * C), terms = scratch<A>(2 * C);
  A *of_x = terms.get(), *constant = of_x + C;
  gradient_sums<T, A, kind>(cut, grad, x, line, mean, sums.get(), grad_x);
  parallel_for(C, grain_for(cut.groups * 2), [&](int64_t begin, int64_t end) {
    const int64_t width = end - begin;
    const auto totals = scratch<double>(2 * width);
    double *plain = totals.get(), *product = plain + width;
    std::fill(plain, plain + 2 * width, 0.0);
    for (int64_t g = 0; g < cut.groups; ++g) {
      const A* from = sums.get() + g * 2 * C + begin;
      for (int64_t c = 0; c < width; ++c) plain[c] += static_cast<double>(from[c]);
      for (int64_t c = 0; c < width; ++c) product[c] += static_cast<double>(from[C + c]);
    }
    const double n = static_cast<double>(cut.pixels());
    for (int64_t c = begin; c < end; ++c) {
      const double inverse = line.inverse[c], scale = line.scale[c];
      grad_bias[c] = static_cast<A>(plain[c - begin]);
      grad_weight[c] = static_cast<A>(product[c - begin] * inverse);
      const double per_x = -scale * inverse * inverse * product[c - begin] / n;
      of_x[c] = static_cast<A>(per_x);
      constant[c] = static_cast<A>(-scale * plain[c - begin] / n - per_x * static_cast<double>(mean[c]));
    }
  });
  gradient(cut, x, line, of_x, constant, grad_x);
}

}  // namespace

// Runs the block with `kind` as a constant.
#define DETC_DISPATCH_ACTIVATION(activation, kind, ...)                                      \
  switch (activation) {                                                                      \
    case Activation::identity: { constexpr auto kind = Activation::identity; __VA_ARGS__ } break;     \
    case Activation::relu: { constexpr auto kind = Activation::relu; __VA_ARGS__ } break;             \
    case Activation::silu: { constexpr auto kind = Activation::silu; __VA_ARGS__ } break;             \
    case Activation::leaky_relu: { constexpr auto kind = Activation::leaky_relu; __VA_ARGS__ } break; \
    case Activation::hardswish: { constexpr auto kind = Activation::hardswish; __VA_ARGS__ } break;   \
  }

void batch_norm_act_cpu(DType dtype, const BatchNormAct& norm, const void* x, const void* weight, const void* bias, void* out, void* mean, void* var) {
  if (norm.images == 0 || norm.channels == 0 || norm.pixels == 0) return;
  DETC_DISPATCH_FLOATING(dtype, T, {
    using A = acc_t<T>;
    DETC_DISPATCH_ACTIVATION(norm.activation, kind, {
      forward<T, kind>(
          norm, static_cast<const T*>(x), static_cast<const A*>(weight), static_cast<const A*>(bias), static_cast<T*>(out), static_cast<A*>(mean),
          static_cast<A*>(var));
    })
  })
}

void batch_norm_act_backward_cpu(
    DType dtype, const BatchNormAct& norm, const void* grad, const void* x, const void* weight, const void* bias, const void* mean, const void* var,
    void* grad_x, void* grad_weight, void* grad_bias) {
  if (norm.images == 0 || norm.channels == 0 || norm.pixels == 0) return;
  DETC_DISPATCH_FLOATING(dtype, T, {
    using A = acc_t<T>;
    DETC_DISPATCH_ACTIVATION(norm.activation, kind, {
      backward<T, kind>(
          norm, static_cast<const T*>(grad), static_cast<const T*>(x), static_cast<const A*>(weight), static_cast<const A*>(bias),
          static_cast<const A*>(mean), static_cast<const A*>(var), static_cast<T*>(grad_x), static_cast<A*>(grad_weight), static_cast<A*>(grad_bias));
    })
  })
}

}  // namespace detc
