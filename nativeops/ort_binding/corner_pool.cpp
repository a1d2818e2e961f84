#include "../kernels/corner_pool.h"

#include "common.h"

namespace detc::ort {
namespace {

// Input and output: x [B, C, H, W].
template <bool vertical, bool reversed>
class CornerPoolKernel {
 public:
  explicit CornerPoolKernel(const Attributes&) {}

  void compute(Context& context) const {
    const Tensor x = context.input(0);
    require(x.shape.size() == 4, "CornerPool: x must be [B, C, H, W]");
    const CornerPool s{x.size(0) * x.size(1), x.size(2), x.size(3), vertical, reversed};
    float* out = context.output<float>(0, x.shape);
    if (size_of(x.shape) == 0) return;
#ifdef DETC_WITH_CUDA
    if (context.on_cuda()) {
      corner_pool_cuda(DType::f32, s, x.data, out, context.stream());
      return;
    }
#endif
    corner_pool_cpu(DType::f32, s, x.data, out);
  }
};

const bool added = add<CornerPoolKernel<true, true>>("CornerPoolTop", {kFloat}, {kFloat}) &&
                   add<CornerPoolKernel<true, false>>("CornerPoolBottom", {kFloat}, {kFloat}) &&
                   add<CornerPoolKernel<false, true>>("CornerPoolLeft", {kFloat}, {kFloat}) &&
                   add<CornerPoolKernel<false, false>>("CornerPoolRight", {kFloat}, {kFloat});

}  // namespace
}  // namespace detc::ort
