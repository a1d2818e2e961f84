#include "../kernels/carafe.h"

#include "common.h"

namespace detc::ort {
namespace {

// Inputs: x [B, C, H, W], kernels [B, G * k * k, s * H, s * W]. Output [B, C, s * H, s * W].
class CarafeKernel {
 public:
  explicit CarafeKernel(const Attributes& attributes)
      : kernel_(attributes.integer("kernel_size")), groups_(attributes.integer("groups")), scale_(attributes.integer("scale")) {
    require(kernel_ > 0 && kernel_ % 2 == 1 && groups_ > 0 && scale_ > 0, "Carafe: kernel_size must be odd, groups and scale positive");
  }

  void compute(Context& context) const {
    const Tensor x = context.input(0), kernels = context.input(1);
    require(x.shape.size() == 4 && x.size(1) % groups_ == 0, "Carafe: x must be [B, C, H, W] with channels that divide into the groups");
    const Carafe s{x.size(0), x.size(1), x.size(2), x.size(3), kernel_, groups_, scale_};
    const int64_t height = s.height * scale_, width = s.width * scale_;
    require(kernels.shape == Shape({s.images, groups_ * s.taps(), height, width}), "Carafe: kernels do not fit x");
    const Shape size{s.images, s.channels, height, width};
    float* out = context.output<float>(0, size);
    if (size_of(size) == 0) return;
#ifdef DETC_WITH_CUDA
    if (context.on_cuda()) {
      carafe_cuda(DType::f32, s, x.data, kernels.data, out, context.stream());
      return;
    }
#endif
    carafe_cpu(DType::f32, s, x.data, kernels.data, out);
  }

 private:
  int64_t kernel_, groups_, scale_;
};

const bool added = add<CarafeKernel>("Carafe", {kFloat, kFloat}, {kFloat});

}  // namespace
}  // namespace detc::ort
