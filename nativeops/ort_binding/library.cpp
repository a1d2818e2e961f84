// The entry that ONNX Runtime calls: every kernel of the library, in the domain `detc`.
#include "common.h"

extern "C" __attribute__((visibility("default"))) OrtStatus* RegisterCustomOps(OrtSessionOptions* options,
                                                                               const OrtApiBase* base) {
  const OrtApi* api = base->GetApi(ORT_API_VERSION);
  if (api == nullptr) return nullptr;  // older than the headers: the session then runs the functions in the model
  Ort::InitApi(api);
  try {
    Ort::CustomOpDomain domain("detc");
    for (const auto& op : detc::ort::registry()) domain.Add(op.get());
    Ort::UnownedSessionOptions(options).Add(domain);
    domain.release();  // the session options use it for as long as they live, which nobody tells us; it is one small
                       // object a session
    return nullptr;
  } catch (const std::exception& problem) {
    return Ort::Status(problem.what(), ORT_FAIL).release();
  }
}

extern "C" __attribute__((visibility("default"))) int64_t detc_ort_call_count() {
  return detc::ort::call_count().load();
}
