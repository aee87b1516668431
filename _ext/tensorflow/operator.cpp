#include "tensorflow/operator.h"

#include <dlfcn.h>

namespace lp::tensorflow {

namespace {

struct Construction;   // TF_OpKernelConstruction
struct OpBuilder;      // TF_OpDefinitionBuilder
struct KernelBuilder;  // TF_KernelBuilder
struct ShapeContext;   // TF_ShapeInferenceContext

struct Functions {
  Status* (*TF_NewStatus)();
  void (*TF_DeleteStatus)(Status*);
  void (*TF_SetStatus)(Status*, int, const char*);
  int (*TF_GetCode)(const Status*);
  const char* (*TF_Message)(const Status*);

  int (*TF_TensorType)(const Tensor*);
  int (*TF_NumDims)(const Tensor*);
  int64_t (*TF_Dim)(const Tensor*, int);
  void* (*TF_TensorData)(const Tensor*);
  void (*TF_DeleteTensor)(Tensor*);

  OpBuilder* (*TF_NewOpDefinitionBuilder)(const char*);
  void (*TF_OpDefinitionBuilderAddInput)(OpBuilder*, const char*);
  void (*TF_OpDefinitionBuilderAddOutput)(OpBuilder*, const char*);
  void (*TF_OpDefinitionBuilderAddAttr)(OpBuilder*, const char*);
  void (*TF_OpDefinitionBuilderSetShapeInferenceFunction)(OpBuilder*,
                                                          void (*)(ShapeContext*, Status*));
  void (*TF_RegisterOpDefinition)(OpBuilder*, Status*);
  void (*TF_ShapeInferenceContextSetUnknownShape)(ShapeContext*, Status*);

  KernelBuilder* (*TF_NewKernelBuilder)(const char*, const char*, void* (*)(Construction*),
                                        void (*)(void*, Context*), void (*)(void*));
  void (*TF_RegisterKernelBuilder)(const char*, KernelBuilder*, Status*);

  void (*TF_OpKernelConstruction_GetAttrSize)(Construction*, const char*, int32_t*, int32_t*,
                                              Status*);
  void (*TF_OpKernelConstruction_GetAttrString)(Construction*, const char*, char*, size_t, Status*);
  void (*TF_OpKernelConstruction_GetAttrBool)(Construction*, const char*, unsigned char*, Status*);
  void (*TF_OpKernelConstruction_Failure)(Construction*, Status*);

  int (*TF_NumInputs)(Context*);
  int (*TF_NumOutputs)(Context*);
  int (*TF_ExpectedOutputDataType)(Context*, int);
  void (*TF_GetInput)(Context*, int, Tensor**, Status*);
  Tensor* (*TF_AllocateOutput)(Context*, int, int, const int64_t*, int, size_t, Status*);
  void (*TF_OpKernelContext_Failure)(Context*, Status*);
};

Functions tf;
Compute compute_callback;
Release release_callback;

struct OwnStatus {
  Status* status = tf.TF_NewStatus();
  OwnStatus() = default;
  OwnStatus(const OwnStatus&) = delete;
  OwnStatus& operator=(const OwnStatus&) = delete;
  ~OwnStatus() { tf.TF_DeleteStatus(status); }
  bool ok() const { return tf.TF_GetCode(status) == kOk; }
  std::string message() const { return tf.TF_Message(status); }
};

// Return the name of a function that is missing, or nullptr.
const char* look_up(const std::vector<void*>& libraries) {
  const auto find = [&](auto& function, const char* name) {
    for (void* library : libraries) {
      if (void* address = dlsym(library, name)) {
        function = reinterpret_cast<std::decay_t<decltype(function)>>(address);
        return true;
      }
    }
    return false;
  };
#define LP_FIND(name) \
  if (!find(tf.name, #name)) return #name
  LP_FIND(TF_NewStatus);
  LP_FIND(TF_DeleteStatus);
  LP_FIND(TF_SetStatus);
  LP_FIND(TF_GetCode);
  LP_FIND(TF_Message);
  LP_FIND(TF_TensorType);
  LP_FIND(TF_NumDims);
  LP_FIND(TF_Dim);
  LP_FIND(TF_TensorData);
  LP_FIND(TF_DeleteTensor);
  LP_FIND(TF_NewOpDefinitionBuilder);
  LP_FIND(TF_OpDefinitionBuilderAddInput);
  LP_FIND(TF_OpDefinitionBuilderAddOutput);
  LP_FIND(TF_OpDefinitionBuilderAddAttr);
  LP_FIND(TF_OpDefinitionBuilderSetShapeInferenceFunction);
  LP_FIND(TF_RegisterOpDefinition);
  LP_FIND(TF_ShapeInferenceContextSetUnknownShape);
  LP_FIND(TF_NewKernelBuilder);
  LP_FIND(TF_RegisterKernelBuilder);
  LP_FIND(TF_OpKernelConstruction_GetAttrSize);
  LP_FIND(TF_OpKernelConstruction_GetAttrString);
  LP_FIND(TF_OpKernelConstruction_GetAttrBool);
  LP_FIND(TF_OpKernelConstruction_Failure);
  LP_FIND(TF_NumInputs);
  LP_FIND(TF_NumOutputs);
  LP_FIND(TF_ExpectedOutputDataType);
  LP_FIND(TF_GetInput);
  LP_FIND(TF_AllocateOutput);
  LP_FIND(TF_OpKernelContext_Failure);
#undef LP_FIND
  return nullptr;
}

void* create(Construction* construction) {
  const OwnStatus status;
  int32_t list_size = 0;
  int32_t length = 0;
  tf.TF_OpKernelConstruction_GetAttrSize(construction, "signature", &list_size, &length,
                                         status.status);
  std::string signature;
  if (status.ok() && length > 0) {
    signature.resize(static_cast<size_t>(length));
    tf.TF_OpKernelConstruction_GetAttrString(construction, "signature", &signature[0],
                                             signature.size(), status.status);
  }
  unsigned char keep = 0;
  if (status.ok()) {
    tf.TF_OpKernelConstruction_GetAttrBool(construction, "keep", &keep, status.status);
  }
  if (!status.ok()) {
    tf.TF_OpKernelConstruction_Failure(construction, status.status);
    return nullptr;
  }
  return new Kernel{std::move(signature), keep != 0};
}

void compute(void* kernel, Context* context) {
  compute_callback(static_cast<Kernel*>(kernel), context);
}

void destroy(void* pointer) {
  auto* kernel = static_cast<Kernel*>(pointer);
  if (kernel == nullptr) return;
  if (kernel->state != nullptr) release_callback(kernel->state);
  delete kernel;
}

// The C API gives a shape function no attribute but types: who calls the operator says the shapes.
void infer_shapes(ShapeContext* context, Status* status) {
  tf.TF_ShapeInferenceContextSetUnknownShape(context, status);
}

#define LP_DTYPES                                                                          \
  "list({float, double, half, bfloat16, bool, int8, uint8, int16, uint16, int32, uint32, " \
  "int64, uint64}) >= "

}  // namespace

std::string register_operator(const std::vector<std::string>& libraries, Compute compute_function,
                              Release release_function) {
  std::vector<void*> opened;
  for (const std::string& path : libraries) {
    if (void* library = dlopen(path.c_str(), RTLD_NOLOAD | RTLD_LAZY)) opened.push_back(library);
  }
  if (opened.empty()) return "none of its libraries is loaded";
  if (const char* missing = look_up(opened)) return std::string("it has no ") + missing;
  compute_callback = compute_function;
  release_callback = release_function;

  const OwnStatus status;
  OpBuilder* builder = tf.TF_NewOpDefinitionBuilder("LowprecRun");
  tf.TF_OpDefinitionBuilderAddInput(builder, "args: Tin");
  tf.TF_OpDefinitionBuilderAddInput(builder, "model: uint8");
  tf.TF_OpDefinitionBuilderAddOutput(builder, "results: Tout");
  tf.TF_OpDefinitionBuilderAddAttr(builder, "Tin: " LP_DTYPES "0");
  tf.TF_OpDefinitionBuilderAddAttr(builder, "Tout: " LP_DTYPES "1");
  tf.TF_OpDefinitionBuilderAddAttr(builder, "signature: string");
  tf.TF_OpDefinitionBuilderAddAttr(builder, "keep: bool = true");
  tf.TF_OpDefinitionBuilderSetShapeInferenceFunction(builder, infer_shapes);
  tf.TF_RegisterOpDefinition(builder, status.status);  // takes the builder
  if (!status.ok()) return status.message();
  KernelBuilder* kernel = tf.TF_NewKernelBuilder("LowprecRun", "CPU", create, compute, destroy);
  tf.TF_RegisterKernelBuilder("LowprecRun", kernel, status.status);  // takes it, too
  return status.ok() ? "" : status.message();
}

int input_count(Context* context) { return tf.TF_NumInputs(context); }

int output_count(Context* context) { return tf.TF_NumOutputs(context); }

int output_dtype(Context* context, int index) {
  return tf.TF_ExpectedOutputDataType(context, index);
}

Tensor* input(Context* context, int index, std::string& error) {
  const OwnStatus status;
  Tensor* tensor = nullptr;
  tf.TF_GetInput(context, index, &tensor, status.status);
  if (status.ok()) return tensor;
  error = status.message();
  return nullptr;
}

Tensor* allocate_output(Context* context, int index, int dtype, const std::vector<int64_t>& shape,
                        size_t bytes, std::string& error) {
  const OwnStatus status;
  Tensor* tensor = tf.TF_AllocateOutput(context, index, dtype, shape.data(),
                                        static_cast<int>(shape.size()), bytes, status.status);
  if (status.ok()) return tensor;
  error = status.message();
  return nullptr;
}

void fail(Context* context, int code, const std::string& message) {
  const OwnStatus status;
  tf.TF_SetStatus(status.status, code, message.c_str());
  tf.TF_OpKernelContext_Failure(context, status.status);
}

int dtype_of(const Tensor* tensor) { return tf.TF_TensorType(tensor); }

std::vector<int64_t> shape_of(const Tensor* tensor) {
  std::vector<int64_t> shape(static_cast<size_t>(tf.TF_NumDims(tensor)));
  for (size_t axis = 0; axis < shape.size(); ++axis) {
    shape[axis] = tf.TF_Dim(tensor, static_cast<int>(axis));
  }
  return shape;
}

void* data_of(const Tensor* tensor) { return tf.TF_TensorData(tensor); }

void delete_tensor(Tensor* tensor) { tf.TF_DeleteTensor(tensor); }

}  // namespace lp::tensorflow
