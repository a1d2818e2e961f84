#include "../kernels/deform_conv2d.h"

#include "common.h"

namespace detc::ort {
namespace {

// Inputs: x [B, C, H, W], offset [B, 2*G*K, oH, oW], weight [O, C/groups, kH, kW], bias [O], and the modulated form mask [B, G*K, oH, oW].
template <bool modulated>
class DeformConv2d {
 public:
  explicit DeformConv2d(const Attributes& attributes) {
    const auto strides = attributes.integers("strides"), pads = attributes.integers("pads"), dilations = attributes.integers("dilations");
    require(strides.size() == 2 && pads.size() == 2 && dilations.size() == 2, "DeformConv2d: strides, pads and dilations are pairs");
    conv_.stride_h = strides[0], conv_.stride_w = strides[1];
    conv_.pad_h = pads[0], conv_.pad_w = pads[1];
    conv_.dilation_h = dilations[0], conv_.dilation_w = dilations[1];
  }

  void compute(Context& context) const {
    const Tensor x = context.input(0), offset = context.input(1), weight = context.input(2), bias = context.input(3);
    require(x.shape.size() == 4 && offset.shape.size() == 4 && weight.shape.size() == 4, "DeformConv2d: wrong number of dimensions");
    DeformConv s = conv_;
    s.images = x.size(0), s.channels = x.size(1), s.height = x.size(2), s.width = x.size(3);
    s.out_channels = weight.size(0), s.kernel_h = weight.size(2), s.kernel_w = weight.size(3);
    s.out_height = offset.size(2), s.out_width = offset.size(3);
    require(s.taps() > 0 && weight.size(1) > 0 && s.channels % weight.size(1) == 0, "DeformConv2d: weight does not fit x");
    s.groups = s.channels / weight.size(1);
    s.offset_groups = offset.size(1) / (2 * s.taps());
    require(s.groups > 0 && s.out_channels % s.groups == 0, "DeformConv2d: weight does not fit the groups");
    require(s.offset_groups > 0 && s.channels % s.offset_groups == 0, "DeformConv2d: offset does not fit x");
    require(offset.shape == Shape({s.images, s.offset_groups * 2 * s.taps(), s.out_height, s.out_width}), "DeformConv2d: offset does not fit");
    require(bias.shape == Shape({s.out_channels}), "DeformConv2d: bias does not fit");
    const void* mask = nullptr;
    if (modulated) {
      const Tensor given = context.input(4);
      require(given.shape == Shape({s.images, s.offset_groups * s.taps(), s.out_height, s.out_width}), "DeformConv2d: mask does not fit");
      mask = given.data;
    }
    const Shape size{s.images, s.out_channels, s.out_height, s.out_width};
    float* out = context.output<float>(0, size);
    if (size_of(size) == 0) return;
#ifdef DETC_WITH_CUDA
    if (context.on_cuda()) {
      void* columns = context.workspace(deform_conv2d_workspace(DType::f32, s));
      deform_conv2d_cuda(DType::f32, s, x.data, offset.data, mask, weight.data, bias.data, out, columns, context.stream());
      return;
    }
#endif
    deform_conv2d_cpu(DType::f32, s, x.data, offset.data, mask, weight.data, bias.data, out);
  }

 private:
  DeformConv conv_{};
};

const bool added = add<DeformConv2d<false>>("DeformConv2d", {kFloat, kFloat, kFloat, kFloat}, {kFloat}) &&
                   add<DeformConv2d<true>>("ModulatedDeformConv2d", {kFloat, kFloat, kFloat, kFloat, kFloat}, {kFloat});

}  // namespace
}  // namespace detc::ort
