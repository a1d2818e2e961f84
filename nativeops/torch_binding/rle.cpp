#include "../kernels/rle.h"

#include "wide.h"

namespace detc::binding {
namespace {

Rle rle_of(int64_t masks, int64_t height, int64_t width, int64_t capacity) {
  STD_TORCH_CHECK(height >= 0 && width >= 0 && capacity >= 0, "rle: negative size");
  STD_TORCH_CHECK(height == 0 || width <= (int64_t{1} << 31) / (height + 1), "rle: a mask must have fewer than 2^31 pixels");
  return {masks, height, width, capacity};
}

Rle encoded(const Tensor& masks, int64_t capacity) {
  STD_TORCH_CHECK(masks.dim() == 3 && masks.scalar_type() == ScalarType::Bool, "rle_encode: masks must be bool [N, H, W]");
  return rle_of(masks.size(0), masks.size(1), masks.size(2), capacity);
}

Rle decoded(const Tensor& runs, const Tensor& lengths, int64_t height, int64_t width) {
  STD_TORCH_CHECK(runs.dim() == 2 && runs.scalar_type() == ScalarType::Int, "rle_decode: runs must be int32 [N, R]");
  STD_TORCH_CHECK(
      lengths.dim() == 1 && lengths.size(0) == runs.size(0) && lengths.scalar_type() == ScalarType::Long,
      "rle_decode: lengths must be int64 [N]");
  return rle_of(runs.size(0), height, width, runs.size(1));
}

std::tuple<Tensor, Tensor> encode_on_cpu(Tensor masks, int64_t capacity) {
  const auto s = encoded(masks, capacity);
  masks = dense(masks);
  Tensor runs = empty(masks, {s.masks, capacity}, ScalarType::Int), lengths = empty(masks, {s.masks}, ScalarType::Long);
  rle_encode_cpu(s, static_cast<const uint8_t*>(data(masks)), mutable_as<int32_t>(runs), mutable_as<int64_t>(lengths));
  return {runs, lengths};
}

Tensor decode_on_cpu(Tensor runs, Tensor lengths, int64_t height, int64_t width) {
  const auto s = decoded(runs, lengths, height, width);
  runs = dense(runs), lengths = dense(lengths);
  Tensor bits = empty(runs, {s.masks, height, width}, ScalarType::Bool);
  rle_decode_cpu(s, data_as<int32_t>(runs), data_as<int64_t>(lengths), static_cast<uint8_t*>(mutable_data(bits)));
  return bits;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(detc, CPU, m) {
  m.impl("rle_encode", TORCH_BOX(&encode_on_cpu));
  m.impl("rle_decode", TORCH_BOX(&decode_on_cpu));
}

#ifdef DETC_WITH_CUDA
namespace {

std::tuple<Tensor, Tensor> encode_on_cuda(Tensor masks, int64_t capacity) {
  const auto s = encoded(masks, capacity);
  const CudaScope scope(masks);
  masks = dense(masks);
  Tensor runs = empty(masks, {s.masks, capacity}, ScalarType::Int), lengths = empty(masks, {s.masks}, ScalarType::Long);
  Tensor workspace = empty_bytes(masks, rle_workspace(s));
  rle_encode_cuda(
      s, static_cast<const uint8_t*>(data(masks)), mutable_as<int32_t>(runs), mutable_as<int64_t>(lengths), mutable_data(workspace),
      scope.stream());
  return {runs, lengths};
}

Tensor decode_on_cuda(Tensor runs, Tensor lengths, int64_t height, int64_t width) {
  const auto s = decoded(runs, lengths, height, width);
  const CudaScope scope(runs);
  runs = dense(runs), lengths = dense(lengths);
  Tensor bits = empty(runs, {s.masks, height, width}, ScalarType::Bool);
  Tensor workspace = empty_bytes(runs, rle_workspace(s));
  rle_decode_cuda(
      s, data_as<int32_t>(runs), data_as<int64_t>(lengths), static_cast<uint8_t*>(mutable_data(bits)), mutable_data(workspace),
      scope.stream());
  return bits;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(detc, CUDA, m) {
  m.impl("rle_encode", TORCH_BOX(&encode_on_cuda));
  m.impl("rle_decode", TORCH_BOX(&decode_on_cuda));
}
#endif

}  // namespace detc::binding
