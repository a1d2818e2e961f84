// Sigmoid focal loss and its relatives, forward and backward, one pass each.
//
// focal: Lin et al. 2017 (arXiv 1708.02002). quality: Li et al. 2020 (arXiv 2006.04388), |t - p|^g * BCE. varifocal:
// Zhang et al. 2021 (arXiv 2008.13367), weight q where the target q is positive and a * p^g where it is not, times BCE.
#pragma once

#include <math.h>

#include <cstdint>

#include "scalar.h"

namespace detc {

enum class FocalKind : int32_t { focal = 0, quality = 1, varifocal = 2, varifocal_detached = 3 };

struct FocalArgs {
  DType dtype;  // of logits, targets, weights, gradients
  FocalKind kind;
  const void* logits;     // [rows, classes]
  const void* targets;    // [rows, classes], or null
  const int64_t* labels;  // [rows] when targets is null: the class whose target is 1; outside 0..classes-1: background
  const void* weights;    // [rows] or null
  int64_t rows, classes;
  double alpha;  // negative: no weighting
  double gamma;
  // Forward: one of them.
  void* loss;   // [rows, classes]
  double* sum;  // one number
  // Backward.
  const void* grad;  // [rows, classes]; or, when grad_is_one, one number of the type computed in
  bool grad_is_one;
  void* grad_logits;  // [rows, classes]
};

void focal_loss_cpu(const FocalArgs& args);
void focal_loss_backward_cpu(const FocalArgs& args);

#ifdef DETC_WITH_CUDA
int64_t focal_loss_cuda_workspace();  // for the sum
void focal_loss_cuda(const FocalArgs& args, void* workspace, void* stream);
void focal_loss_backward_cuda(const FocalArgs& args, void* stream);
#endif

// exp(-a) for a >= 0 in float, to 1 ulp or so; written without branches so that loops over it vectorise.
DETC_HD float exp_negative(float a) {
  a = a > 87.0f ? 87.0f : a;
  const float k = -a * 1.44269504f;
  const float shifted = k + 12582912.0f;  // 1.5 * 2^23: rounds to a whole number, which is then in the low bits
  const float n = shifted - 12582912.0f;
  float r = -a - n * 0.693359375f;
  r = r - n * -2.12194440e-4f;
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  int32_t bits;
  memcpy(&bits, &shifted, 4);
  bits = (bits + 127) << 23;
  float scale;
  memcpy(&scale, &bits, 4);
  return p * scale;
}
DETC_HD double exp_negative(double a) { return exp(-a); }

// log(1 + e) for 0 <= e <= 1: 2 atanh(s), s = e / (2 + e).
DETC_HD float log1p_unit(float, float s) {
  const float z = s * s;
  float p = 1.0f / 15.0f;
  p = p * z + 1.0f / 13.0f;
  p = p * z + 1.0f / 11.0f;
  p = p * z + 1.0f / 9.0f;
  p = p * z + 1.0f / 7.0f;
  p = p * z + 1.0f / 5.0f;
  p = p * z + 1.0f / 3.0f;
  return 2.0f * s * (p * z + 1.0f);
}
DETC_HD double log1p_unit(double e, double) { return log1p(e); }

// m^gamma and gamma * m^(gamma - 1), for m >= 0.
struct Square {};
template <class A>
DETC_HD void power(A m, Square, A* value, A* slope) {
  *value = m * m;
  *slope = m + m;
}
template <class A>
struct Exponent {
  A gamma;
};
template <class A>
DETC_HD void power(A m, Exponent<A> e, A* value, A* slope) {
  // At m = 0 the slope of a gamma below 1 is infinite; it multiplies a loss and a p(1-p) that vanish with it.
  const A floor = m > A(1e-12) ? m : A(1e-12);
  *value = e.gamma == A(0) ? A(1) : static_cast<A>(pow(m, e.gamma));
  *slope = e.gamma == A(0) ? A(0) : e.gamma * static_cast<A>(pow(floor, e.gamma - A(1)));
}

// Loss and its derivative for one logit x and target t.
template <FocalKind kind, class A, class Power>
DETC_HD void focal_element(A x, A t, A alpha, Power gamma, A* loss, A* slope) {
  const A magnitude = x < A(0) ? -x : x;
  const A e = exp_negative(magnitude), both = A(1) / ((A(1) + e) * (A(2) + e));  // one division for two quotients
  const A inverse = both * (A(2) + e);
  const A p = x < A(0) ? e * inverse : inverse;
  const A ce = (x > A(0) ? x : A(0)) - x * t + log1p_unit(e, e * both * (A(1) + e));
  const A dce = p - t, dp = e * inverse * inverse;
  A value, rate;
  if constexpr (kind == FocalKind::focal) {
    const A miss = p + t - A(2) * p * t;  // 1 - p_t
    power(miss, gamma, &value, &rate);
    const A a = alpha < A(0) ? A(1) : alpha * t + (A(1) - alpha) * (A(1) - t);
    *loss = a * ce * value;
    *slope = a * (dce * value + ce * rate * (A(1) - A(2) * t) * dp);
  } else if constexpr (kind == FocalKind::quality) {
    const A off = dce < A(0) ? -dce : dce;
    power(off, gamma, &value, &rate);
    *loss = ce * value;
    *slope = dce * value + ce * rate * (dce < A(0) ? -dp : dp);
  } else {
    power(p, gamma, &value, &rate);
    const A weight = t > A(0) ? t : alpha * value;
    const A drift = kind == FocalKind::varifocal_detached || t > A(0) ? A(0) : alpha * rate * dp;
    *loss = weight * ce;
    *slope = weight * dce + drift * ce;
  }
}

}  // namespace detc

// Runs the block with `kKind` (a constant) and `power_of` (Square or Exponent<A>) for these arguments.
#define DETC_DISPATCH_FOCAL_POWER(args, A, ...)                       \
  if ((args).gamma == 2.0) {                                          \
    const ::detc::Square power_of{};                                  \
    __VA_ARGS__                                                       \
  } else {                                                            \
    const ::detc::Exponent<A> power_of{static_cast<A>((args).gamma)}; \
    __VA_ARGS__                                                       \
  }
#define DETC_DISPATCH_FOCAL(args, A, ...)                           \
  switch ((args).kind) {                                            \
    case ::detc::FocalKind::focal: {                                \
      constexpr auto kKind = ::detc::FocalKind::focal;              \
      DETC_DISPATCH_FOCAL_POWER(args, A, __VA_ARGS__)               \
    } break;                                                        \
    case ::detc::FocalKind::quality: {                              \
      constexpr auto kKind = ::detc::FocalKind::quality;            \
      DETC_DISPATCH_FOCAL_POWER(args, A, __VA_ARGS__)               \
    } break;                                                        \
    case ::detc::FocalKind::varifocal: {                            \
      constexpr auto kKind = ::detc::FocalKind::varifocal;          \
      DETC_DISPATCH_FOCAL_POWER(args, A, __VA_ARGS__)               \
    } break;                                                        \
    case ::detc::FocalKind::varifocal_detached: {                   \
      constexpr auto kKind = ::detc::FocalKind::varifocal_detached; \
      DETC_DISPATCH_FOCAL_POWER(args, A, __VA_ARGS__)               \
    } break;                                                        \
  }
