// operator.h: the operator LowprecRun in TensorFlow's registry, through TensorFlow's C API.
//
// No header of TensorFlow and no linking: the functions are looked up in the libraries that the
// process has loaded already, so one build of lowprec works with every version that has them.
// Declarations: tensorflow/c/kernels.h, ops.h, tf_status.h, tf_tensor.h; all of them C, and kept
// stable for plugins.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace lp::tensorflow {

struct Tensor;   // TF_Tensor
struct Status;   // TF_Status
struct Context;  // TF_OpKernelContext

// TF_Code, from tensorflow/c/tf_status.h.
enum Code {
  kOk = 0,
  kInvalidArgument = 3,
  kResourceExhausted = 8,
  kUnimplemented = 12,
  kInternal = 13
};

// One kernel: TensorFlow makes it for each place of the operator in a graph, and calls it from
// several threads at once.
struct Kernel {
  std::string signature;
  bool keep;
  // A Python object that the callback puts here and reads, always with the GIL.
  void* state = nullptr;
};

// Computes: called without the GIL.
using Compute = void (*)(Kernel*, Context*);
// Releases a Python object; called without the GIL, maybe while TensorFlow holds locks.
using Release = void (*)(void*);

// Look TensorFlow's functions up in `libraries` (paths; those that are not loaded are passed over)
// and register the operator. Returns an empty text, or what went wrong.
std::string register_operator(const std::vector<std::string>& libraries, Compute compute,
                              Release release);

// What a computation needs; all valid once register_operator has succeeded.
int input_count(Context* context);
int output_count(Context* context);
int output_dtype(Context* context, int index);
// Input `index`, or an output in new memory; nullptr after an error, which `error` then names.
Tensor* input(Context* context, int index, std::string& error);
Tensor* allocate_output(Context* context, int index, int dtype, const std::vector<int64_t>& shape,
                        size_t bytes, std::string& error);
void fail(Context* context, int code, const std::string& message);

int dtype_of(const Tensor* tensor);
std::vector<int64_t> shape_of(const Tensor* tensor);
void* data_of(const Tensor* tensor);
void delete_tensor(Tensor* tensor);

}  // namespace lp::tensorflow
