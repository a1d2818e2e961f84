#include <type_traits>

#include "focal_loss.h"
#include "launch.h"

namespace detc {
namespace {

constexpr int64_t kSumThreads = 65536, kSumSecond = 256;

template <class T, FocalKind kind, class Power>
__device__ void element(const FocalArgs& args, Power power_of, int64_t i, acc_t<T>* loss, acc_t<T>* slope) {
  using A = acc_t<T>;
  const int64_t row = i / args.classes;
  A target;
  if (args.targets) {
    target = load(static_cast<const T*>(args.targets) + i);
  } else {
    target = args.labels[row] == i - row * args.classes ? A(1) : A(0);
  }
  focal_element<kind>(static_cast<A>(load(static_cast<const T*>(args.logits) + i)), target, static_cast<A>(args.alpha),
                      power_of, loss, slope);
  if (args.weights) {
    const A weight = load(static_cast<const T*>(args.weights) + row);
    *loss *= weight;
    *slope *= weight;
  }
}

template <class T, FocalKind kind, class Power>
__global__ void forward_kernel(FocalArgs args, Power power_of) {
  acc_t<T> loss, slope;
  DETC_GRID_STRIDE(i, args.rows * args.classes) {
    element<T, kind>(args, power_of, i, &loss, &slope);
    store(static_cast<T*>(args.loss) + i, loss);
  }
}

// A sum in three steps of fixed shape, so that its order never changes: kSumThreads strided sums, kSumSecond sums of
// those, one.
template <class T, FocalKind kind, class Power>
__global__ void sum_kernel(FocalArgs args, Power power_of, double* partial) {
  const int64_t total = args.rows * args.classes;
  DETC_GRID_STRIDE(t, kSumThreads) {
    acc_t<T> loss, slope, sum = 0;
    for (int64_t i = t; i < total; i += kSumThreads) {
      element<T, kind>(args, power_of, i, &loss, &slope);
      sum += loss;
    }
    partial[t] = static_cast<double>(sum);
  }
}

__global__ void add_kernel(const double* from, int64_t from_count, double* to, int64_t to_count) {
  DETC_GRID_STRIDE(t, to_count) {
    double sum = 0;
    for (int64_t i = t; i < from_count; i += to_count) sum += from[i];
    to[t] = sum;
  }
}

template <class T, FocalKind kind, class Power>
__global__ void backward_kernel(FocalArgs args, Power power_of) {
  acc_t<T> loss, slope;
  const T* grad = static_cast<const T*>(args.grad);
  DETC_GRID_STRIDE(i, args.rows * args.classes) {
    element<T, kind>(args, power_of, i, &loss, &slope);
    const acc_t<T> g = args.grad_is_one ? *static_cast<const acc_t<T>*>(args.grad) : load(grad + i);
    store(static_cast<T*>(args.grad_logits) + i, g * slope);
  }
}

template <class T>
void forward(const FocalArgs& args, double* workspace, void* stream) {
  using A = acc_t<T>;
  const int64_t total = args.rows * args.classes;
  DETC_DISPATCH_FOCAL(args, A, {
    using Power = std::remove_const_t<decltype(power_of)>;
    if (args.sum) {
      DETC_LAUNCH((sum_kernel<T, kKind, Power>), kSumThreads / kThreads, kThreads, stream, args, power_of, workspace);
    } else {
      DETC_LAUNCH((forward_kernel<T, kKind, Power>), blocks_for(total), kThreads, stream, args, power_of);
    }
  })
  if (args.sum) {
    DETC_LAUNCH(add_kernel, 1, kThreads, stream, workspace, kSumThreads, workspace + kSumThreads, kSumSecond);
    DETC_LAUNCH(add_kernel, 1, 1, stream, workspace + kSumThreads, kSumSecond, args.sum, int64_t{1});
  }
}

template <class T>
void backward(const FocalArgs& args, void* stream) {
  using A = acc_t<T>;
  DETC_DISPATCH_FOCAL(args, A, {
    using Power = std::remove_const_t<decltype(power_of)>;
    DETC_LAUNCH((backward_kernel<T, kKind, Power>), blocks_for(args.rows * args.classes), kThreads, stream, args,
                power_of);
  })
}

}  // namespace

int64_t focal_loss_cuda_workspace() { return (kSumThreads + kSumSecond) * static_cast<int64_t>(sizeof(double)); }
void focal_loss_cuda(const FocalArgs& args, void* workspace, void* stream) {
  DETC_DISPATCH_FLOATING(args.dtype, T, forward<T>(args, static_cast<double*>(workspace), stream);)
}
void focal_loss_backward_cuda(const FocalArgs& args, void* stream) {
  DETC_DISPATCH_FLOATING(args.dtype, T, backward<T>(args, stream);)
}

}  // namespace detc
