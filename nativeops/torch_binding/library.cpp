// Runs once when torch loads the library: the kernels' loops go to torch's thread pool.
#include "../kernels/parallel.h"
#include "common.h"

namespace {

void run_in_torch(int64_t n, int64_t grain, detc::RangeBody body, void* context) {
  STABLE_TORCH_ERROR_CODE_CHECK(torch_parallel_for(0, n, grain, body, context));
}

const bool installed = [] {
  detc::set_parallel_backend(run_in_torch);
  return true;
}();

}  // namespace
