// program.cpp: dtypes, shapes, attributes, and the list of nodes.
#include "engine/program.h"

#include <unistd.h>

namespace lp {

int64_t dtype_size(DType dtype) {
  switch (dtype) {
    case DType::U8:
    case DType::S8:
    case DType::BOOL:
    case DType::F8E4M3:
    case DType::F8E4M3FNUZ:
    case DType::F8E5M2:
    case DType::F8E5M2FNUZ:
    case DType::U4:
    case DType::S4:
    case DType::F4E2M1:
    case DType::F8E8M0:
    case DType::U2:
    case DType::S2:
      return 1;
    case DType::U16:
    case DType::S16:
    case DType::F16:
    case DType::BF16:
      return 2;
    case DType::F32:
    case DType::S32:
    case DType::U32:
      return 4;
    case DType::F64:
    case DType::S64:
    case DType::U64:
      return 8;
  }
  throw Unsupported("element type " + std::to_string(static_cast<int>(dtype)) +
                    " is not held by the engine");
}

const char* dtype_name(DType dtype) {
  switch (dtype) {
    case DType::F32:
      return "f32";
    case DType::U8:
      return "u8";
    case DType::S8:
      return "s8";
    case DType::U16:
      return "u16";
    case DType::S16:
      return "s16";
    case DType::S32:
      return "s32";
    case DType::S64:
      return "s64";
    case DType::BOOL:
      return "bool";
    case DType::F16:
      return "f16";
    case DType::F64:
      return "f64";
    case DType::U32:
      return "u32";
    case DType::U64:
      return "u64";
    case DType::BF16:
      return "bf16";
    case DType::F8E4M3:
      return "f8e4m3fn";
    case DType::F8E4M3FNUZ:
      return "f8e4m3fnuz";
    case DType::F8E5M2:
      return "f8e5m2";
    case DType::F8E5M2FNUZ:
      return "f8e5m2fnuz";
    case DType::U4:
      return "u4";
    case DType::S4:
      return "s4";
    case DType::F4E2M1:
      return "f4e2m1";
    case DType::F8E8M0:
      return "f8e8m0";
    case DType::U2:
      return "u2";
    case DType::S2:
      return "s2";
  }
  return "?";
}

int64_t count(const Shape& shape) { return count(shape, 0, shape.size()); }

int64_t count(const Shape& shape, size_t begin, size_t end) {
  int64_t product = 1;
  for (size_t i = begin; i < end && i < shape.size(); ++i) {
    if (__builtin_mul_overflow(product, shape[i], &product) || product > (int64_t{1} << 46)) {
      throw Error("tensor of shape " + to_string(shape) + " is too large to hold");
    }
  }
  return product;
}

void require_memory(const Shape& shape, int64_t size) {
  static const int64_t memory = int64_t{sysconf(_SC_PHYS_PAGES)} * sysconf(_SC_PAGESIZE);
  if (count(shape) > memory / size) {
    throw Error("tensor of shape " + to_string(shape) + " is larger than this machine's memory");
  }
}

int64_t checked_extent(int64_t value, const char* what) {
  constexpr int64_t LARGEST = int64_t{1} << 24;
  if (value < -LARGEST || value > LARGEST) {
    throw Error(std::string(what) + " of " + std::to_string(value) + " is out of range");
  }
  return value;
}

std::string to_string(const Shape& shape) {
  std::string text = "[";
  for (size_t i = 0; i < shape.size(); ++i) {
    if (i) text += ", ";
    text += std::to_string(shape[i]);
  }
  return text + "]";
}

int64_t Tensor::bytes() const {
  if (!halo.any()) return count(shape) * dtype_size(dtype);
  const int64_t height = shape.size() > 3 ? shape[2] : 1;
  return shape[0] * (height + halo.top + halo.bottom) * (shape.back() + halo.left + halo.right) *
         shape[1] * dtype_size(dtype);
}

Shape broadcast(const Shape& a, const Shape& b, const char* what) {
  const size_t rank = a.size() > b.size() ? a.size() : b.size();
  Shape result(rank);
  for (size_t i = 0; i < rank; ++i) {
    const int64_t x = i + a.size() < rank ? 1 : a[i + a.size() - rank];
    const int64_t y = i + b.size() < rank ? 1 : b[i + b.size() - rank];
    if (x != y && x != 1 && y != 1) {
      throw Error(std::string(what) + ": shapes " + to_string(a) + " and " + to_string(b) +
                  " do not broadcast");
    }
    result[i] = x == 1 ? y : x;
  }
  return result;
}

int64_t normalise_axis(int64_t axis, size_t rank, const char* what) {
  const int64_t n = static_cast<int64_t>(rank);
  if (axis < -n || axis >= (n ? n : 1)) {
    throw Error(std::string(what) + ": axis " + std::to_string(axis) + " is outside rank " +
                std::to_string(rank));
  }
  return axis < 0 ? axis + n : axis;
}

Shape row_major_strides(const Shape& shape) {
  Shape strides(shape.size());
  int64_t stride = 1;
  for (size_t i = shape.size(); i-- > 0;) {
    strides[i] = stride;
    stride *= shape[i];
  }
  return strides;
}

int64_t Node::integer(const std::string& key, int64_t otherwise) const {
  const auto it = attributes.find(key);
  return it == attributes.end() || it->second.ints.empty() ? otherwise : it->second.ints[0];
}

float Node::real(const std::string& key, float otherwise) const {
  const auto it = attributes.find(key);
  return it == attributes.end() || it->second.floats.empty() ? otherwise : it->second.floats[0];
}

std::string Node::text(const std::string& key, const std::string& otherwise) const {
  const auto it = attributes.find(key);
  return it == attributes.end() ? otherwise : it->second.text;
}

std::vector<int64_t> Node::integers(const std::string& key,
                                    const std::vector<int64_t>& otherwise) const {
  const auto it = attributes.find(key);
  return it == attributes.end() ? otherwise : it->second.ints;
}

std::vector<float> Node::reals(const std::string& key) const {
  const auto it = attributes.find(key);
  return it == attributes.end() ? std::vector<float>{} : it->second.floats;
}

std::vector<UnaryOp> chain_of(const Node& node, const std::string& prefix) {
  const std::vector<int64_t> codes = node.integers(prefix + "codes");
  std::vector<float> a = node.reals(prefix + "a"), b = node.reals(prefix + "b");
  a.resize(codes.size(), 0.0f);
  b.resize(codes.size(), 0.0f);
  std::vector<UnaryOp> ops;
  for (size_t i = 0; i < codes.size(); ++i) {
    ops.push_back({static_cast<int32_t>(codes[i]), a[i], b[i]});
  }
  return ops;
}

int Program::add_value(const std::string& name, DType dtype) {
  ProgramValue value;
  value.name = name;
  value.dtype = dtype;
  values_.push_back(value);
  return static_cast<int>(values_.size()) - 1;
}

int Program::add_constant(const std::string& name, DType dtype, const Shape& shape,
                          const uint8_t* data) {
  const int id = add_value(name, dtype);
  values_.back().constant = true;
  values_.back().shape = shape;
  values_.back().data = data;
  return id;
}

void Program::add_node(Node node) {
  if (find_operator(node.op) == nullptr) {
    throw Unsupported("no native operator " + node.op);
  }
  nodes_.push_back(std::move(node));
}

}  // namespace lp
