// Bilinear taps with zeros outside of the image: what every sampling kernel shares, on the host and on the device.
#pragma once

#include <cmath>

#include "scalar.h"

namespace detc {

// Four taps at pixel-centre coordinates (y, x). Pixels outside of the image have weight 0 and the index of a pixel inside, so that every
// index may be read. `inside` is false when no tap is in the image (NaN and infinite coordinates included): then nothing else is set.
template <class A>
struct Bilinear {
  bool inside;
  bool top, bottom, left, right;  // which rows and columns of taps lie in the image
  int64_t index[4];               // top left, top right, bottom left, bottom right, in pixels
  A dy, dx;                       // distance from the top left tap

  DETC_HD A weight(int tap) const {
    const A wy = tap < 2 ? (top ? 1 - dy : A(0)) : (bottom ? dy : A(0));
    const A wx = tap % 2 == 0 ? (left ? 1 - dx : A(0)) : (right ? dx : A(0));
    return wy * wx;
  }
  // d sample / d y and d sample / d x, given the four pixels (0 outside).
  DETC_HD A slope_y(A v0, A v1, A v2, A v3) const { return (v2 - v0) * (1 - dx) + (v3 - v1) * dx; }
  DETC_HD A slope_x(A v0, A v1, A v2, A v3) const { return (v1 - v0) * (1 - dy) + (v3 - v2) * dy; }
  DETC_HD bool reads(int tap) const { return (tap < 2 ? top : bottom) && (tap % 2 == 0 ? left : right); }
};

template <class A>
DETC_HD Bilinear<A> bilinear_zeros(A y, A x, int64_t height, int64_t width) {
  Bilinear<A> s;
  s.inside = y > A(-1) && y < A(height) && x > A(-1) && x < A(width) && height > 0 && width > 0;
  if (!s.inside) return s;
  const A fy = floor(y), fx = floor(x);
  const int64_t y0 = static_cast<int64_t>(fy), x0 = static_cast<int64_t>(fx);
  s.dy = y - fy;
  s.dx = x - fx;
  s.top = y0 >= 0;
  s.left = x0 >= 0;
  s.bottom = y0 + 1 < height;
  s.right = x0 + 1 < width;
  const int64_t row0 = (s.top ? y0 : 0) * width, row1 = (s.bottom ? y0 + 1 : height - 1) * width;
  const int64_t col0 = s.left ? x0 : 0, col1 = s.right ? x0 + 1 : width - 1;
  s.index[0] = row0 + col0;
  s.index[1] = row0 + col1;
  s.index[2] = row1 + col0;
  s.index[3] = row1 + col1;
  return s;
}

}  // namespace detc
