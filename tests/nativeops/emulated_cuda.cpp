// Runs the CUDA kernels through emulated_cuda.h on random inputs and compares them with the CPU kernels. Prints one line a case.
#include <cstdio>
#include <random>
#include <string>
#include <vector>

#include "carafe.h"
#include "corner_pool.h"
#include "deform_conv2d.h"
#include "deform_roi_pool.h"
#include "emulated_checks.h"
#include "fixed_point.h"
#include "linear_assignment.h"
#include "mask_paste.h"
#include "masked_conv2d.h"
#include "ms_deform_attn.h"
#include "point_sample.h"
#include "rle.h"

using namespace detc;

namespace {

template <class T>
void attention() {
  MsDeformAttn s{};
  s.images = 2, s.heads = 3, s.channels = 5, s.levels = 2, s.queries = 7, s.points = 3;
  s.height[0] = 6, s.width[0] = 4, s.height[1] = 2, s.width[1] = 3, s.start[1] = 24, s.positions = 30;
  const int64_t values = s.images * s.positions * s.heads * s.channels, samples = s.images * s.queries * s.heads * s.levels * s.points;
  const int64_t outputs = s.images * s.queries * s.heads * s.channels;
  const auto value = randn<T>(values), weights = randn<T>(samples), grad = randn<T>(outputs);
  auto locations = uniform<T>(samples * 2, -0.3, 1.3);
  locations[3] = static_cast<T>(NAN), locations[10] = static_cast<T>(INFINITY);
  auto out = unset<T>(outputs), wanted = unset<T>(outputs);
  ms_deform_attn_cuda(dtype_of<T>(), s, value.data(), locations.data(), weights.data(), out.data(), nullptr);
  ms_deform_attn_cpu(dtype_of<T>(), s, value.data(), locations.data(), weights.data(), wanted.data());
  compare("ms_deform_attn", out, wanted);
  auto gv = unset<T>(values), gl = unset<T>(samples * 2), gw = unset<T>(samples), hl = gl, hw = gw;
  std::vector<T> hv(static_cast<size_t>(values));
  std::vector<char> work(static_cast<size_t>(ms_deform_attn_backward_workspace(s)));
  ms_deform_attn_backward_cuda(
      dtype_of<T>(), s, grad.data(), value.data(), locations.data(), weights.data(), gv.data(), gl.data(), gw.data(), work.data(), nullptr);
  ms_deform_attn_backward_cpu(
      dtype_of<T>(), s, grad.data(), value.data(), locations.data(), weights.data(), hv.data(), hl.data(), hw.data());
  compare("ms_deform_attn grad value", gv, hv);
  compare("ms_deform_attn grad locations", gl, hl);
  compare("ms_deform_attn grad weights", gw, hw);
}

template <class T>
void convolution(bool modulated) {
  DeformConv s{};
  s.images = 2, s.channels = 12, s.height = 7, s.width = 9, s.out_channels = 70 * 2, s.kernel_h = 3, s.kernel_w = 2;
  s.stride_h = 2, s.stride_w = 1, s.pad_h = 1, s.pad_w = 0, s.dilation_h = 1, s.dilation_w = 2, s.groups = 2, s.offset_groups = 3;
  s.out_height = (7 + 2 - 3) / 2 + 1, s.out_width = 9 - 3 + 1;
  const int64_t K = s.taps(), P = s.outputs(), G = s.offset_groups, B = s.images;
  const auto x = randn<T>(B * s.channels * s.height * s.width), weight = randn<T>(s.out_channels * s.channels / s.groups * K);
  auto offset = randn<T>(B * 2 * G * K * P, 2);
  offset[1] = static_cast<T>(NAN), offset[200] = static_cast<T>(-INFINITY), offset[300] = static_cast<T>(1e30);
  const auto mask_held = uniform<T>(B * G * K * P, 0, 1), bias = randn<T>(s.out_channels);
  const T* mask = modulated ? mask_held.data() : nullptr;
  auto out = unset<T>(B * s.out_channels * P), wanted = out;
  std::vector<char> work(static_cast<size_t>(deform_conv2d_workspace(dtype_of<T>(), s)));
  deform_conv2d_cuda(
      dtype_of<T>(), s, x.data(), offset.data(), mask, weight.data(), bias.data(), out.data(), work.data(), nullptr);
  deform_conv2d_cpu(dtype_of<T>(), s, x.data(), offset.data(), mask, weight.data(), bias.data(), wanted.data());
  compare("deform_conv2d", out, wanted);

  // The columns' gradients, which torch's matrix product would give: weight^T grad_out.
  const auto grad = randn<T>(B * s.out_channels * P);
  const int64_t depth = s.channels / s.groups * K, filters = s.out_channels / s.groups;
  std::vector<T> grad_columns(static_cast<size_t>(B * s.groups * depth * P));
  for (int64_t b = 0; b < B; ++b)
    for (int64_t g = 0; g < s.groups; ++g)
      for (int64_t o = 0; o < filters; ++o)
        for (int64_t d = 0; d < depth; ++d)
          for (int64_t p = 0; p < P; ++p)
            grad_columns[((b * s.groups + g) * depth + d) * P + p] +=
                weight[(g * filters + o) * depth + d] * grad[((b * s.groups + g) * filters + o) * P + p];
  auto gx = unset<T>(static_cast<int64_t>(x.size())), go = unset<T>(static_cast<int64_t>(offset.size()));
  auto gm = unset<T>(modulated ? B * G * K * P : 0), gw = unset<T>(static_cast<int64_t>(weight.size())), hx = gx, ho = go, hm = gm;
  work.resize(static_cast<size_t>(deform_columns_backward_workspace(s)));
  deform_columns_backward_cuda(
      dtype_of<T>(), s, grad_columns.data(), x.data(), offset.data(), mask, gx.data(), go.data(), modulated ? gm.data() : nullptr,
      work.data(), nullptr);
  deform_conv2d_backward_cpu(
      dtype_of<T>(), s, grad.data(), x.data(), offset.data(), mask, weight.data(), hx.data(), ho.data(), modulated ? hm.data() : nullptr,
      gw.data());
  compare("deform_conv2d grad x", gx, hx);
  compare("deform_conv2d grad offset", go, ho);
  if (modulated) compare("deform_conv2d grad mask", gm, hm);
}

template <class T>
void assignment(int64_t rows, int64_t cols, bool whole) {
  const Assignment s{3, rows, cols};
  auto cost = whole ? uniform<T>(3 * rows * cols, 0, 4) : randn<T>(3 * rows * cols);
  if (whole)
    for (auto& c : cost) c = std::floor(c);
  for (size_t i = 0; i < cost.size(); i += 5) cost[i] = static_cast<T>(i % 2 ? NAN : INFINITY);
  // not std::vector<bool>: the kernels read bytes
  std::vector<unsigned char> row_held(static_cast<size_t>(3 * rows), 1), col_held(static_cast<size_t>(3 * cols), 1);
  row_held[0] = 0, col_held[1] = 0;
  const auto *row_valid = reinterpret_cast<const bool*>(row_held.data()), *col_valid = reinterpret_cast<const bool*>(col_held.data());
  std::vector<int64_t> a(static_cast<size_t>(3 * rows), -7), b(static_cast<size_t>(3 * cols), -7), c = a, d = b;
  std::vector<int64_t> work(static_cast<size_t>(linear_assignment_workspace(s) / 8));
  linear_assignment_cuda(dtype_of<T>(), s, cost.data(), row_valid, col_valid, a.data(), b.data(), work.data(), nullptr);
  linear_assignment_cpu(dtype_of<T>(), s, cost.data(), row_valid, col_valid, c.data(), d.data());
  compare("linear_assignment columns", a, c);
  compare("linear_assignment rows", b, d);
}

template <class T>
void masks() {
  const MaskPaste s{6, 5, 4, 33, 41, 0.5};
  auto values = uniform<T>(6 * 20, 0, 1), boxes = uniform<T>(24, -5, 30);
  for (size_t i = 0; i < 24; i += 4) boxes[i + 2] += boxes[i] + 3, boxes[i + 3] += boxes[i + 1] + 3;
  boxes[0] = static_cast<T>(NAN), boxes[6] = static_cast<T>(INFINITY), boxes[10] = boxes[8];
  values[70] = static_cast<T>(NAN), values[90] = static_cast<T>(INFINITY);
  std::vector<uint8_t> out(6 * 33 * 41, 9), wanted = out;
  mask_paste_cuda(dtype_of<T>(), s, values.data(), boxes.data(), out.data(), nullptr);
  mask_paste_cpu(dtype_of<T>(), s, values.data(), boxes.data(), wanted.data());
  int64_t different = 0;
  for (size_t i = 0; i < out.size(); ++i) different += out[i] != wanted[i];
  failures += different > 2;  // rounding may decide at the threshold
  std::printf("%s mask_paste: %ld pixels\n", different > 2 ? "DIFFERENT" : "same", static_cast<long>(different));
}

void runs(int64_t capacity) {
  const Rle s{4, 19, 23, capacity};
  std::vector<uint8_t> bits(4 * 19 * 23), back(bits.size(), 9), wanted_back(bits.size(), 9);
  for (size_t i = 0; i < bits.size(); ++i) bits[i] = i < 437 ? 1 : (i < 874 ? 0 : generator() % 3 == 0);
  std::vector<int32_t> a(static_cast<size_t>(4 * capacity), -9), b = a;
  std::vector<int64_t> la(4, -9), lb = la;
  std::vector<char> work(static_cast<size_t>(rle_workspace(s)));
  rle_encode_cuda(s, bits.data(), a.data(), la.data(), work.data(), nullptr);
  rle_encode_cpu(s, bits.data(), b.data(), lb.data());
  compare("rle_encode runs", a, b);
  compare("rle_encode lengths", la, lb);
  if (capacity > 3) a[1] = -5, a[static_cast<size_t>(capacity) + 2] = 1 << 30;
  rle_decode_cuda(s, a.data(), la.data(), back.data(), work.data(), nullptr);
  rle_decode_cpu(s, a.data(), la.data(), wanted_back.data());
  compare("rle_decode", back, wanted_back);
}

template <class T>
void upsampling() {
  const Carafe s{2, 6, 4, 5, 3, 2, 2};
  const auto x = randn<T>(2 * 6 * 20), kernels = randn<T>(2 * 18 * 80), grad = randn<T>(2 * 6 * 80);
  auto out = unset<T>(2 * 6 * 80), wanted = out, gx = unset<T>(2 * 6 * 20), hx = gx, gk = unset<T>(2 * 18 * 80), hk = gk;
  carafe_cuda(dtype_of<T>(), s, x.data(), kernels.data(), out.data(), nullptr);
  carafe_cpu(dtype_of<T>(), s, x.data(), kernels.data(), wanted.data());
  compare("carafe", out, wanted);
  carafe_backward_cuda(dtype_of<T>(), s, grad.data(), x.data(), kernels.data(), gx.data(), gk.data(), nullptr);
  carafe_backward_cpu(dtype_of<T>(), s, grad.data(), x.data(), kernels.data(), hx.data(), hk.data());
  compare("carafe grad x", gx, hx);
  compare("carafe grad kernels", gk, hk);
}

template <class T>
void corners(bool vertical, bool reversed) {
  const CornerPool s{5, 6, 7, vertical, reversed};
  auto x = uniform<T>(210, 0, 5);
  for (auto& v : x) v = std::floor(v);
  x[17] = static_cast<T>(NAN);
  const auto grad = randn<T>(210);
  auto out = unset<T>(210), wanted = out, gx = out, hx = out, sums = out;
  corner_pool_cuda(dtype_of<T>(), s, x.data(), out.data(), nullptr);
  corner_pool_cpu(dtype_of<T>(), s, x.data(), wanted.data());
  compare("corner_pool", out, wanted);
  corner_pool_backward_cuda(dtype_of<T>(), s, grad.data(), x.data(), gx.data(), sums.data(), nullptr);
  corner_pool_backward_cpu(dtype_of<T>(), s, grad.data(), x.data(), hx.data());
  compare("corner_pool grad", gx, hx);
}

template <class T>
void points(bool align_corners) {
  const PointSample s{2, 3, 5, 6, 40, align_corners};
  const auto x = randn<T>(180), grad = randn<T>(240);
  auto places = uniform<T>(160, -0.2, 1.2);
  places[2] = static_cast<T>(NAN), places[9] = static_cast<T>(-INFINITY);
  auto out = unset<T>(240), wanted = out, gx = unset<T>(180), hx = gx, gp = unset<T>(160), hp = gp;
  point_sample_cuda(dtype_of<T>(), s, x.data(), places.data(), out.data(), nullptr);
  point_sample_cpu(dtype_of<T>(), s, x.data(), places.data(), wanted.data());
  compare("point_sample", out, wanted);
  std::vector<char> work(static_cast<size_t>(point_sample_backward_workspace(s)));
  point_sample_backward_cuda(dtype_of<T>(), s, grad.data(), x.data(), places.data(), gx.data(), gp.data(), work.data(), nullptr);
  point_sample_backward_cpu(dtype_of<T>(), s, grad.data(), x.data(), places.data(), hx.data(), hp.data());
  compare("point_sample grad x", gx, hx);
  compare("point_sample grad points", gp, hp);
}

template <class T>
void masked() {
  const MaskedConv s{2, 4, 7, 8, 5, 4, 7, 3, 2, 2, 1, 1, 0};
  const auto x = randn<T>(2 * 4 * 56), weight = randn<T>(5 * 4 * 6), bias = randn<T>(5);
  std::vector<unsigned char> held(2 * 28);
  for (auto& m : held) m = generator() % 2;
  auto out = unset<T>(2 * 5 * 28), wanted = out;
  const auto* mask = reinterpret_cast<const bool*>(held.data());
  masked_conv2d_cuda(dtype_of<T>(), s, x.data(), mask, weight.data(), bias.data(), out.data(), nullptr);
  masked_conv2d_cpu(dtype_of<T>(), s, x.data(), mask, weight.data(), bias.data(), wanted.data());
  compare("masked_conv2d", out, wanted);
}

template <class T>
void pooling(bool shifted, int64_t sampling) {
  const DeformRoiPool s{2, 5, 9, 11, 8, 2, 3, sampling, 0.5, 0.1};
  const auto x = randn<T>(2 * 5 * 99), offset_held = randn<T>(8 * 2 * 6), grad = randn<T>(8 * 5 * 6);
  auto rois = uniform<T>(40, 0, 9);
  for (size_t i = 0; i < 40; i += 5) rois[i] = static_cast<T>(i % 2), rois[i + 3] += rois[i + 1], rois[i + 4] += rois[i + 2];
  rois[0] = -1, rois[6] = static_cast<T>(NAN), rois[10] = 5, rois[18] = static_cast<T>(1e9), rois[23] = rois[21];
  const T* offset = shifted ? offset_held.data() : nullptr;
  auto out = unset<T>(8 * 5 * 6), wanted = out, gx = unset<T>(2 * 5 * 99), hx = gx, go = unset<T>(shifted ? 96 : 0), ho = go;
  deform_roi_pool_cuda(dtype_of<T>(), s, x.data(), rois.data(), offset, out.data(), nullptr);
  deform_roi_pool_cpu(dtype_of<T>(), s, x.data(), rois.data(), offset, wanted.data());
  compare("deform_roi_pool", out, wanted);
  std::vector<char> work(static_cast<size_t>(deform_roi_pool_backward_workspace(s)));
  deform_roi_pool_backward_cuda(
      dtype_of<T>(), s, grad.data(), x.data(), rois.data(), offset, gx.data(), shifted ? go.data() : nullptr, work.data(), nullptr);
  deform_roi_pool_backward_cpu(dtype_of<T>(), s, grad.data(), x.data(), rois.data(), offset, hx.data(), shifted ? ho.data() : nullptr);
  compare("deform_roi_pool grad x", gx, hx);
  if (shifted) compare("deform_roi_pool grad offset", go, ho);
}

template <class T>
void everything() {
  attention<T>();
  convolution<T>(false);
  convolution<T>(true);
  for (const bool whole : {false, true}) {
    assignment<T>(4, 9, whole);
    assignment<T>(300, 6, whole);
    assignment<T>(7, 7, whole);
  }
  masks<T>();
  upsampling<T>();
  for (const bool vertical : {false, true})
    for (const bool reversed : {false, true}) corners<T>(vertical, reversed);
  points<T>(false);
  points<T>(true);
  masked<T>();
  for (const bool shifted : {false, true})
    for (const int64_t sampling : {0, 2}) pooling<T>(shifted, sampling);
}

}  // namespace

int main() {
  everything<float>();
  everything<double>();
  for (const int64_t capacity : {0, 1, 5, 600}) runs(capacity);
  std::printf("%d failures\n", failures);
  return failures != 0;
}
