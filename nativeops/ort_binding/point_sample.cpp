#include "../kernels/point_sample.h"

#include "common.h"

namespace detc::ort {
namespace {

// Inputs: x [B, C, H, W], points [B, P, 2]. Output [B, C, P].
class PointSampleKernel {
 public:
  explicit PointSampleKernel(const Attributes& attributes) : align_corners_(attributes.integer("align_corners") != 0) {}

  void compute(Context& context) const {
    const Tensor x = context.input(0), points = context.input(1);
    require(x.shape.size() == 4 && points.shape.size() == 3, "PointSample: wrong number of dimensions");
    require(points.size(0) == x.size(0) && points.size(2) == 2, "PointSample: points must be [B, P, 2]");
    const PointSample s{x.size(0), x.size(1), x.size(2), x.size(3), points.size(1), align_corners_};
    const Shape size{s.images, s.channels, s.points};
    float* out = context.output<float>(0, size);
    if (size_of(size) == 0) return;
#ifdef DETC_WITH_CUDA
    if (context.on_cuda()) {
      point_sample_cuda(DType::f32, s, x.data, points.data, out, context.stream());
      return;
    }
#endif
    point_sample_cpu(DType::f32, s, x.data, points.data, out);
  }

 private:
  bool align_corners_;
};

const bool added = add<PointSampleKernel>("PointSample", {kFloat, kFloat}, {kFloat});

}  // namespace
}  // namespace detc::ort
