// Overlap of rotated boxes (cx, cy, w, h, angle in radians, counter-clockwise where y points up), on the host and on
// the device.
//
// The corners of one box are clipped in the frame of the other (Sutherland and Hodgman 1974), in double whatever the
// boxes' type.
#pragma once

#include <math.h>

#include <cstdint>

#include "scalar.h"

namespace detc {

struct RotatedBox {
  double x, y, w, h, angle;
};

template <class T>
DETC_HD RotatedBox rotated_box_at(const T* p) {
  return RotatedBox{static_cast<double>(load(p)), static_cast<double>(load(p + 1)), static_cast<double>(load(p + 2)),
                    static_cast<double>(load(p + 3)), static_cast<double>(load(p + 4))};
}

namespace rotated {

struct Polygon {
  double x[8], y[8];  // a quadrilateral cut by four lines has at most eight corners
  int count;
};

// What of the polygon lies where sign * coordinate <= limit; `vertical` chooses x or y as the coordinate.
DETC_HD Polygon clip(const Polygon& in, bool along_x, double sign, double limit) {
  Polygon out;
  out.count = 0;
  for (int i = 0; i < in.count; ++i) {
    const int next = i + 1 == in.count ? 0 : i + 1;
    const double here = sign * (along_x ? in.x[i] : in.y[i]) - limit,
                 there = sign * (along_x ? in.x[next] : in.y[next]) - limit;
    if (here <= 0 && out.count < 8) {
      out.x[out.count] = in.x[i];
      out.y[out.count++] = in.y[i];
    }
    if ((here < 0) != (there < 0) && here != 0 && there != 0 && out.count < 8) {
      const double t = here / (here - there);
      out.x[out.count] = in.x[i] + t * (in.x[next] - in.x[i]);
      out.y[out.count++] = in.y[i] + t * (in.y[next] - in.y[i]);
    }
  }
  return out;
}

}  // namespace rotated

DETC_HD double rotated_intersection(const RotatedBox& a, const RotatedBox& b) {
  const double dx = a.x - b.x, dy = a.y - b.y;
  const double reach = 0.5 * (sqrt(a.w * a.w + a.h * a.h) + sqrt(b.w * b.w + b.h * b.h));
  if (!(dx * dx + dy * dy <= reach * reach)) return 0;
  // a's centre and axes in the frame of b.
  const double cb = cos(b.angle), sb = sin(b.angle), c = cos(a.angle - b.angle), s = sin(a.angle - b.angle);
  const double x = dx * cb + dy * sb, y = dy * cb - dx * sb;
  const double ux = 0.5 * a.w * c, uy = 0.5 * a.w * s, vx = -0.5 * a.h * s, vy = 0.5 * a.h * c;
  rotated::Polygon p;
  p.count = 4;
  const double su[4] = {1, -1, -1, 1}, sv[4] = {1, 1, -1, -1};
  for (int i = 0; i < 4; ++i) {
    p.x[i] = x + su[i] * ux + sv[i] * vx;
    p.y[i] = y + su[i] * uy + sv[i] * vy;
  }
  p = rotated::clip(p, true, 1, 0.5 * b.w);
  p = rotated::clip(p, true, -1, 0.5 * b.w);
  p = rotated::clip(p, false, 1, 0.5 * b.h);
  p = rotated::clip(p, false, -1, 0.5 * b.h);
  double twice = 0;
  for (int i = 0; i < p.count; ++i) {
    const int next = i + 1 == p.count ? 0 : i + 1;
    twice += p.x[i] * p.y[next] - p.x[next] * p.y[i];
  }
  return twice > 0 ? 0.5 * twice : 0;
}

// 0 when a box has no area or a side that is negative, or a number is not finite.
DETC_HD double rotated_iou(const RotatedBox& a, const RotatedBox& b) {
  const double area_a = a.w * a.h, area_b = b.w * b.h;
  if (!(a.w > 0 && a.h > 0 && b.w > 0 && b.h > 0) || !(area_a < 1e300 && area_b < 1e300) ||
      !(fabs(a.angle) < 1e15 && fabs(b.angle) < 1e15))
    return 0;
  // In an order that does not depend on which box is which, so that the overlap is symmetric to the last bit.
  const bool swap =
      a.x != b.x ? a.x > b.x
                 : (a.y != b.y ? a.y > b.y : (a.w != b.w ? a.w > b.w : (a.h != b.h ? a.h > b.h : a.angle > b.angle)));
  const double inter = swap ? rotated_intersection(b, a) : rotated_intersection(a, b);
  const double iou = inter / (area_a + area_b - inter);
  return iou > 0 ? (iou < 1 ? iou : 1) : 0;
}

struct RotatedIouArgs {
  DType dtype;    // of everything
  const void* a;  // [N, 5]
  const void* b;  // [M, 5]; aligned: [N, 5]
  int64_t n, m;
  bool aligned;
  void* out;  // [N, M]; aligned: [N]
};

void rotated_iou_cpu(const RotatedIouArgs& args);
#ifdef DETC_WITH_CUDA
void rotated_iou_cuda(const RotatedIouArgs& args, void* stream);
#endif

}  // namespace detc
