#include "rotated_box.h"

#include "parallel.h"

namespace detc {

void rotated_iou_cpu(const RotatedIouArgs& args) {
  const int64_t m = args.aligned ? 1 : args.m;
  DETC_DISPATCH_FLOATING(args.dtype, T, {
    const T* a = static_cast<const T*>(args.a);
    const T* b = static_cast<const T*>(args.b);
    T* out = static_cast<T*>(args.out);
    parallel_for(args.n * m, 64, [&](int64_t from, int64_t to) {
      for (int64_t at = from; at < to; ++at) {
        const int64_t i = at / m, j = args.aligned ? i : at % m;
        store(out + at, static_cast<acc_t<T>>(rotated_iou(rotated_box_at(a + i * 5), rotated_box_at(b + j * 5))));
      }
    });
  })
}

}  // namespace detc
