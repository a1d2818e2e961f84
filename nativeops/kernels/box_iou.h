// Overlap of boxes (IoU, GIoU, DIoU, CIoU), pairwise or aligned, with gradients.
//
// GIoU: Rezatofighi et al. 2019 (arXiv 1902.09630). DIoU, CIoU: Zheng et al. 2020 (arXiv 1911.08287).
#pragma once

#include <math.h>

#include <cstdint>

#include "scalar.h"

namespace detc {

enum class IouKind : int32_t { iou = 0, giou = 1, diou = 2, ciou = 3 };

struct BoxIouArgs {
  DType dtype;  // of everything
  IouKind kind;
  const void* a;  // [B, N, 4] x1 y1 x2 y2
  const void* b;  // [B, M, 4]; aligned: [B, N, 4]
  int64_t batch, n, m;
  bool aligned;
  void* out;         // forward: [B, N, M], aligned [B, N]
  const void* grad;  // backward: the same shape
  void* grad_a;      // backward: [B, N, 4]
  void* grad_b;      // backward: [B, M, 4]
};

void box_iou_cpu(const BoxIouArgs& args);
void box_iou_backward_cpu(const BoxIouArgs& args);

#ifdef DETC_WITH_CUDA
void box_iou_cuda(const BoxIouArgs& args, void* stream);
void box_iou_backward_cuda(const BoxIouArgs& args, void* stream);
#endif

// A number with its derivatives by the four coordinates of one box.
template <class A>
struct Dual {
  A v;
  A d[4];
};

namespace dual {
template <class A>
DETC_HD Dual<A> linear(A v, const Dual<A>& x, A fx, const Dual<A>& y, A fy) {
  Dual<A> r;
  r.v = v;
  for (int i = 0; i < 4; ++i) r.d[i] = x.d[i] * fx + y.d[i] * fy;
  return r;
}
}  // namespace dual

template <class A>
DETC_HD Dual<A> operator+(const Dual<A>& x, const Dual<A>& y) {
  return dual::linear(x.v + y.v, x, A(1), y, A(1));
}
template <class A>
DETC_HD Dual<A> operator-(const Dual<A>& x, const Dual<A>& y) {
  return dual::linear(x.v - y.v, x, A(1), y, A(-1));
}
template <class A>
DETC_HD Dual<A> operator*(const Dual<A>& x, const Dual<A>& y) {
  return dual::linear(x.v * y.v, x, y.v, y, x.v);
}
template <class A>
DETC_HD Dual<A> operator/(const Dual<A>& x, const Dual<A>& y) {
  return dual::linear(x.v / y.v, x, A(1) / y.v, y, -x.v / (y.v * y.v));
}

// The operations below exist for plain numbers and for duals. Where two are equal, each gets half of the derivative (as
// in torch).
template <class A>
DETC_HD A larger(A x, A y) {
  return x < y ? y : x;
}
template <class A>
DETC_HD A smaller(A x, A y) {
  return y < x ? y : x;
}
template <class A>
DETC_HD Dual<A> larger(const Dual<A>& x, const Dual<A>& y) {
  return x.v == y.v ? dual::linear(x.v, x, A(0.5), y, A(0.5)) : (x.v < y.v ? y : x);
}
template <class A>
DETC_HD Dual<A> smaller(const Dual<A>& x, const Dual<A>& y) {
  return x.v == y.v ? dual::linear(x.v, x, A(0.5), y, A(0.5)) : (y.v < x.v ? y : x);
}
DETC_HD float not_negative(float x) { return x < 0.0f ? 0.0f : x; }
DETC_HD double not_negative(double x) { return x < 0.0 ? 0.0 : x; }
template <class A>
DETC_HD Dual<A> not_negative(const Dual<A>& x) {
  return x.v < A(0) ? Dual<A>{} : x;
}
DETC_HD float value_of(float x) { return x; }
DETC_HD double value_of(double x) { return x; }
template <class A>
DETC_HD A value_of(const Dual<A>& x) {
  return x.v;
}
DETC_HD float angle_of(float w, float h) { return atan2f(w, h); }
DETC_HD double angle_of(double w, double h) { return atan2(w, h); }
template <class A>
DETC_HD Dual<A> angle_of(const Dual<A>& w, const Dual<A>& h) {
  const A square = w.v * w.v + h.v * h.v, safe = square > A(0) ? square : A(1);
  return dual::linear(static_cast<A>(angle_of(w.v, h.v)), w, h.v / safe, h, -w.v / safe);
}
DETC_HD float scaled(float x, float f) { return x * f; }
DETC_HD double scaled(double x, double f) { return x * f; }
template <class A>
DETC_HD Dual<A> scaled(const Dual<A>& x, A f) {
  return dual::linear(x.v * f, x, f, x, A(0));
}

// A quotient that is 0 where the denominator is not positive (boxes without area); NaN stays NaN.
template <class S>
DETC_HD S ratio(const S& x, const S& y) {
  return value_of(y) <= 0 ? S{} : x / y;
}

template <class S>
struct OverlapBox {
  S x1, y1, x2, y2, area, angle;
};

template <IouKind kind, class S>
DETC_HD OverlapBox<S> overlap_box(S x1, S y1, S x2, S y2) {
  OverlapBox<S> box{x1, y1, x2, y2, (x2 - x1) * (y2 - y1), S{}};
  if constexpr (kind == IouKind::ciou) box.angle = angle_of(x2 - x1, y2 - y1);
  return box;
}

template <IouKind kind, class S>
DETC_HD S box_overlap(const OverlapBox<S>& a, const OverlapBox<S>& b) {
  const S w = not_negative(smaller(a.x2, b.x2) - larger(a.x1, b.x1));
  const S h = not_negative(smaller(a.y2, b.y2) - larger(a.y1, b.y1));
  const S inter = w * h, area = a.area + b.area - inter;
  const S iou = ratio(inter, area);
  if constexpr (kind == IouKind::iou) return iou;
  const S outer_w = larger(a.x2, b.x2) - smaller(a.x1, b.x1), outer_h = larger(a.y2, b.y2) - smaller(a.y1, b.y1);
  if constexpr (kind == IouKind::giou) {
    const S outer = outer_w * outer_h;
    return iou - ratio(outer - area, outer);
  } else {
    const S dx = a.x1 + a.x2 - b.x1 - b.x2, dy = a.y1 + a.y2 - b.y1 - b.y2;  // twice the distance of the centres
    const S diou =
        iou - ratio(dx * dx + dy * dy, scaled(outer_w * outer_w + outer_h * outer_h, decltype(value_of(w))(4)));
    if constexpr (kind == IouKind::diou) return diou;
    using A = decltype(value_of(w));
    const S difference = b.angle - a.angle;
    const S shape = scaled(difference * difference, A(0.40528473456935109));  // 4 / pi^2
    const A room = A(1) - value_of(iou) + value_of(shape);
    return diou -
           scaled(shape, room > A(0) ? value_of(shape) / room : A(0));  // the trade-off is a constant to the gradient
  }
}

// Derivatives of the overlap of two boxes by the coordinates of the first, added to grad[4].
template <IouKind kind, class T>
DETC_HD void add_overlap_gradient(const T* first, const T* second, acc_t<T> upstream, acc_t<T>* grad) {
  using A = acc_t<T>;
  Dual<A> x[4], y[4];
  for (int i = 0; i < 4; ++i) {
    x[i] = Dual<A>{};
    y[i] = Dual<A>{};
    x[i].v = load(first + i);
    y[i].v = load(second + i);
    x[i].d[i] = A(1);
  }
  const auto a = overlap_box<kind>(x[0], x[1], x[2], x[3]), b = overlap_box<kind>(y[0], y[1], y[2], y[3]);
  const Dual<A> overlap = box_overlap<kind>(a, b);
  for (int i = 0; i < 4; ++i) grad[i] += upstream * overlap.d[i];
}

}  // namespace detc

#define DETC_DISPATCH_IOU_KIND(kind, kKind, ...)    \
  switch (kind) {                                   \
    case ::detc::IouKind::iou: {                    \
      constexpr auto kKind = ::detc::IouKind::iou;  \
      __VA_ARGS__                                   \
    } break;                                        \
    case ::detc::IouKind::giou: {                   \
      constexpr auto kKind = ::detc::IouKind::giou; \
      __VA_ARGS__                                   \
    } break;                                        \
    case ::detc::IouKind::diou: {                   \
      constexpr auto kKind = ::detc::IouKind::diou; \
      __VA_ARGS__                                   \
    } break;                                        \
    case ::detc::IouKind::ciou: {                   \
      constexpr auto kKind = ::detc::IouKind::ciou; \
      __VA_ARGS__                                   \
    } break;                                        \
  }
