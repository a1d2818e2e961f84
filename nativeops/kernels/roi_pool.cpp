#include "roi_pool.h"

#include <vector>

#include "parallel.h"

namespace detc {
namespace {

template <class T>
void forward(const RoiPoolArgs& args) {
  using A = acc_t<T>;
  const int64_t PQ = args.pooled_height * args.pooled_width, plane = args.height * args.width;
  parallel_for(args.num_rois * args.channels, 16, [&](int64_t from, int64_t to) {
    for (int64_t at = from; at < to; ++at) {
      const RoiPixels r = roi_pixels<A>(args, at / args.channels);
      for (int64_t bin = 0; bin < PQ; ++bin) {
        A value = 0;
        int64_t where = -1;
        if (r.image >= 0)
          roi_pool_bin(args, r,
                       static_cast<const T*>(args.feature) + (r.image * args.channels + at % args.channels) * plane,
                       bin / args.pooled_width, bin % args.pooled_width, &value, &where);
        store(static_cast<T*>(args.output) + at * PQ + bin, value);
        args.argmax[at * PQ + bin] = where;
      }
    }
  });
}

// By channel, with all rois inside: the order of additions does not depend on the threads.
template <class T>
void backward(const RoiPoolArgs& args) {
  using A = acc_t<T>;
  const int64_t PQ = args.pooled_height * args.pooled_width, plane = args.height * args.width, C = args.channels;
  parallel_for(C, 1, [&](int64_t from, int64_t to) {
    std::vector<A> sums(args.batch * plane);
    for (int64_t c = from; c < to; ++c) {
      sums.assign(sums.size(), A(0));
      for (int64_t roi = 0; roi < args.num_rois; ++roi) {
        const RoiPixels r = roi_pixels<A>(args, roi);
        for (int64_t bin = 0; bin < PQ; ++bin) {
          const int64_t at = (roi * C + c) * PQ + bin, where = args.argmax[at];
          if (r.image >= 0 && where >= 0 && where < plane)
            sums[r.image * plane + where] += load(static_cast<const T*>(args.grad) + at);
        }
      }
      for (int64_t b = 0; b < args.batch; ++b)
        for (int64_t i = 0; i < plane; ++i)
          store(static_cast<T*>(args.grad_feature) + (b * C + c) * plane + i, sums[b * plane + i]);
    }
  });
}

}  // namespace

void roi_pool_cpu(const RoiPoolArgs& args) { DETC_DISPATCH_FLOATING(args.dtype, T, forward<T>(args);) }
void roi_pool_backward_cpu(const RoiPoolArgs& args) { DETC_DISPATCH_FLOATING(args.dtype, T, backward<T>(args);) }

}  // namespace detc
