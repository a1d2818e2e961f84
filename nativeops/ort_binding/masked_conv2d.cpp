#include "../kernels/masked_conv2d.h"

#include "common.h"

namespace detc::ort {
namespace {

// Inputs: x [B, C, H, W], mask [B, oH, oW], weight [O, C, kH, kW], bias [O]. Output [B, O, oH, oW].
class MaskedConv2d {
 public:
  explicit MaskedConv2d(const Attributes& attributes) : strides_(attributes.integers("strides")), pads_(attributes.integers("pads")) {
    require(strides_.size() == 2 && strides_[0] > 0 && strides_[1] > 0, "MaskedConv2d: strides must be a positive pair");
    require(pads_.size() == 4 && pads_[0] == pads_[2] && pads_[1] == pads_[3] && pads_[0] >= 0 && pads_[1] >= 0,
            "MaskedConv2d: pads must be four numbers, the same at both ends");
  }

  void compute(Context& context) const {
    const Tensor x = context.input(0), mask = context.input(1), weight = context.input(2), bias = context.input(3);
    require(x.shape.size() == 4 && mask.shape.size() == 3 && weight.shape.size() == 4, "MaskedConv2d: wrong number of dimensions");
    require(weight.size(1) == x.size(1) && weight.size(2) > 0 && weight.size(3) > 0, "MaskedConv2d: weight does not fit x");
    const int64_t rows = (x.size(2) + 2 * pads_[0] - weight.size(2)) / strides_[0] + 1;
    const int64_t cols = (x.size(3) + 2 * pads_[1] - weight.size(3)) / strides_[1] + 1;
    require(mask.shape == Shape({x.size(0), rows, cols}), "MaskedConv2d: mask must have one value an output position");
    require(bias.shape == Shape({weight.size(0)}), "MaskedConv2d: bias does not fit");
    const MaskedConv s{x.size(0),      x.size(1),      x.size(2),   x.size(3),   weight.size(0), rows,    cols,
                       weight.size(2), weight.size(3), strides_[0], strides_[1], pads_[0],       pads_[1]};
    const Shape size{s.images, s.out_channels, rows, cols};
    float* out = context.output<float>(0, size);
    if (size_of(size) == 0) return;
#ifdef DETC_WITH_CUDA
    if (context.on_cuda()) {
      masked_conv2d_cuda(DType::f32, s, x.data, mask.as<bool>(), weight.data, bias.data, out, context.stream());
      return;
    }
#endif
    masked_conv2d_cpu(DType::f32, s, x.data, mask.as<bool>(), weight.data, bias.data, out);
  }

 private:
  std::vector<int64_t> strides_, pads_;
};

const bool added = add<MaskedConv2d>("MaskedConv2d", {kFloat, kBool, kFloat, kFloat}, {kFloat});

}  // namespace
}  // namespace detc::ort
