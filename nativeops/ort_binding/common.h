// What every ONNX Runtime binding needs: a door for registration, typed views of tensors, attributes, workspace.
//
// A kernel is a class with
//   Kernel(const Attributes& attributes)          reads its attributes once,
//   void compute(Context& context) const          reads inputs, makes outputs, calls the framework-free kernel,
// and one line `const bool added = add<Kernel>("Name", {inputs}, {outputs});` at namespace scope; a fourth argument
// lists the inputs that a CUDA kernel, too, reads on the host.
#pragma once

#define ORT_API_MANUAL_INIT
#include <onnxruntime_cxx_api.h>

#include <algorithm>
#include <atomic>
#include <charconv>
#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "../kernels/scalar.h"

namespace detc::ort {

using Type = ONNXTensorElementDataType;
inline constexpr Type kFloat = ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT;
inline constexpr Type kInt64 = ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64;
inline constexpr Type kUInt8 = ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8;
inline constexpr Type kBool = ONNX_TENSOR_ELEMENT_DATA_TYPE_BOOL;

using Shape = std::vector<int64_t>;

inline int64_t size_of(const Shape& shape) {
  int64_t n = 1;
  for (const int64_t d : shape) n *= d;
  return n;
}

inline void require(bool condition, const char* what) {
  if (!condition) throw std::invalid_argument(what);
}

// Attributes are single precision; the number that was meant is the shortest decimal that gives these bits (0.6, not
// 0.60000002).
inline double meant(float value) {
  char text[64];
  const auto end = std::to_chars(text, text + sizeof(text), value).ptr;
  double number = value;
  std::from_chars(text, end, number);
  return number;
}

class Attributes {
 public:
  explicit Attributes(const OrtKernelInfo* info) : info_(info) {}
  double number(const char* name) const { return meant(info_.GetAttribute<float>(name)); }
  int64_t integer(const char* name) const { return info_.GetAttribute<int64_t>(name); }
  std::string text(const char* name) const { return info_.GetAttribute<std::string>(name); }
  std::vector<double> numbers(const char* name) const {
    std::vector<double> out;
    for (const float value : info_.GetAttributes<float>(name)) out.push_back(meant(value));
    return out;
  }
  std::vector<int64_t> integers(const char* name) const { return info_.GetAttributes<int64_t>(name); }

 private:
  Ort::ConstKernelInfo info_;
};

// A tensor of one call: on the device for a CUDA kernel, on the host otherwise. The pointer is null when there are no
// elements.
struct Tensor {
  Shape shape;
  const void* data;
  int64_t size(size_t axis) const { return shape.at(axis); }
  template <class T>
  const T* as() const {
    return static_cast<const T*>(data);
  }
};

class Context {
 public:
  Context(OrtKernelContext* context, bool cuda) : context_(context), cuda_(cuda) {}
  bool on_cuda() const { return cuda_; }
  void* stream() const { return context_.GetGPUComputeStream(); }

  Tensor input(size_t index) const {
    const Ort::ConstValue value = context_.GetInput(index);
    return {value.GetTensorTypeAndShapeInfo().GetShape(), value.GetTensorRawData()};
  }

  template <class T>
  T* output(size_t index, const Shape& shape) {
    return context_.GetOutput(index, shape.data(), shape.size()).template GetTensorMutableData<T>();
  }

  // Device memory that lives as long as this context.
  void* workspace(int64_t bytes) {
    Ort::MemoryInfo memory("Cuda", OrtDeviceAllocator, 0, OrtMemTypeDefault);
    Ort::UnownedAllocator allocator(context_.GetAllocator(*static_cast<OrtMemoryInfo*>(memory)));
    blocks_.push_back(allocator.GetAllocation(static_cast<size_t>(bytes > 0 ? bytes : 1)));
    return blocks_.back().get();
  }

 private:
  Ort::KernelContext context_;
  bool cuda_;
  std::vector<Ort::MemoryAllocation> blocks_;
};

// How many times kernels of this library ran in this process; tests read it to tell which path a model took.
inline std::atomic<int64_t>& call_count() {
  static std::atomic<int64_t> count{0};
  return count;
}

template <class Kernel>
class Instance {
 public:
  Instance(const OrtKernelInfo* info, bool cuda) : kernel_(Attributes(info)), cuda_(cuda) {}
  OrtStatusPtr ComputeV2(OrtKernelContext* raw) {
    try {
      Context context(raw, cuda_);
      kernel_.compute(context);
      ++call_count();
      return nullptr;
    } catch (const std::exception& problem) {
      return Ort::Status(problem.what(), ORT_FAIL).release();
    }
  }

 private:
  Kernel kernel_;
  bool cuda_;
};

template <class Kernel>
struct Op : Ort::CustomOpBase<Op<Kernel>, Instance<Kernel>, true> {
  Op(std::string its_name, std::vector<Type> its_inputs, std::vector<Type> its_outputs, std::vector<size_t> on_host,
     bool on_cuda)
      : name(std::move(its_name)),
        inputs(std::move(its_inputs)),
        outputs(std::move(its_outputs)),
        host(std::move(on_host)),
        cuda(on_cuda) {}

  OrtStatusPtr CreateKernelV2(const OrtApi&, const OrtKernelInfo* info, void** kernel) const {
    try {
      *kernel = new Instance<Kernel>(info, cuda);
      return nullptr;
    } catch (const std::exception& problem) {
      return Ort::Status(problem.what(), ORT_FAIL).release();
    }
  }
  const char* GetName() const { return name.c_str(); }
  const char* GetExecutionProviderType() const { return cuda ? "CUDAExecutionProvider" : "CPUExecutionProvider"; }
  size_t GetInputTypeCount() const { return inputs.size(); }
  Type GetInputType(size_t index) const { return inputs[index]; }
  OrtMemType GetInputMemoryType(size_t index) const {
    return std::find(host.begin(), host.end(), index) == host.end() ? OrtMemTypeDefault : OrtMemTypeCPUInput;
  }
  size_t GetOutputTypeCount() const { return outputs.size(); }
  Type GetOutputType(size_t index) const { return outputs[index]; }

  std::string name;
  std::vector<Type> inputs, outputs;
  std::vector<size_t> host;
  bool cuda;
};

inline std::vector<std::shared_ptr<OrtCustomOp>>& registry() {
  static std::vector<std::shared_ptr<OrtCustomOp>> ops;
  return ops;
}

// For a kernel whose output's size is known only when it has run: ONNX Runtime brings its inputs to the host.
template <class Kernel>
bool add_on_cpu(const char* name, const std::vector<Type>& inputs, const std::vector<Type>& outputs) {
  registry().push_back(std::make_shared<Op<Kernel>>(name, inputs, outputs, std::vector<size_t>{}, false));
  return true;
}

template <class Kernel>
bool add(const char* name, const std::vector<Type>& inputs, const std::vector<Type>& outputs,
         const std::vector<size_t>& host = {}) {
  add_on_cpu<Kernel>(name, inputs, outputs);
#ifdef DETC_WITH_CUDA
  registry().push_back(std::make_shared<Op<Kernel>>(name, inputs, outputs, host, true));
#endif
  return true;
}

}  // namespace detc::ort
