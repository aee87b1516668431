// ops_concat.cpp: parts side by side.
//
// Images that grow (x1, then x1 x2, then x1 x2 x3 ...: DenseNet) can share one buffer, in which
// each is the front of every pixel: plan.cpp finds them, and only what is new is copied.
#include "engine/views.h"

namespace lp {
namespace {

class ConcatStep : public Step {
 public:
  int64_t item = 4;
  Shape shape;  // of the result
  Layout layout = Layout::PLAIN;
  size_t axis = 0;
  std::vector<Shape> parts;

  void finish_setup(int64_t pitch) {
    Shape memory = shape;
    if (layout == Layout::CHANNELS_LAST) memory[1] = pitch;
    const Strides made = strides_of(memory, layout);
    copies_.clear();
    int64_t at = 0;
    for (const Shape& part : parts) {
      copies_.emplace_back(item, part, made, strides_of(part, layout), at * made[axis], 0);
      at += part[axis];
    }
  }

  void run(Pointers t, uint8_t*) const override {
    for (size_t i = front_is_there_ ? 1 : 0; i < in.size(); ++i)
      copies_[i].run(t[out[0]], t[in[i]]);
  }

  bool grows_images() const override {
    return layout == Layout::CHANNELS_LAST && axis == 1 && in.size() > 1;
  }
  void grow(int64_t pitch, bool front_is_there) override {
    finish_setup(pitch);
    front_is_there_ = front_is_there;
  }

 private:
  bool front_is_there_ = false;
  std::vector<StridedCopy> copies_;
};

void build_concat(Planner& planner, const Node& node) {
  const size_t n = node.inputs.size();
  Layout layout = Layout::PLAIN;
  Shape shape;
  const DType dtype = planner.dtype_of(node, 0);
  const size_t rank = planner.shape_of(node, 0).size();
  const size_t axis = static_cast<size_t>(normalise_axis(node.integer("axis", 0), rank, "Concat"));
  for (size_t i = 0; i < n; ++i) {
    const Shape own = planner.shape_of(node, i);
    if (planner.dtype_of(node, i) != dtype) throw Error("operands differ in element type");
    if (own.size() != rank) throw Error("operands differ in rank");
    if ((rank == 3 || rank == 4) && planner.layout_of(node, i) == Layout::CHANNELS_LAST) {
      layout = Layout::CHANNELS_LAST;
    }
    if (i == 0) {
      shape = own;
      continue;
    }
    for (size_t k = 0; k < rank; ++k) {
      if (k != axis && own[k] != shape[k]) {
        throw Error("operand shapes " + to_string(shape) + " and " + to_string(own) +
                    " do not fit along axis " + std::to_string(axis));
      }
    }
    shape[axis] += own[axis];
  }
  auto step = std::make_unique<ConcatStep>();
  step->item = dtype_size(dtype);
  step->layout = layout;
  step->axis = axis;
  for (size_t i = 0; i < n; ++i) {
    step->in.push_back(planner.operand(node, i, layout));
    step->parts.push_back(planner.tensor(step->in.back()).shape);
  }
  step->out = {planner.output(node, 0, dtype, shape, layout)};
  step->layout = planner.tensor(step->out[0]).layout;
  step->shape = shape;
  step->finish_setup(rank > 1 ? shape[1] : 0);
  planner.add(std::move(step));
}

}  // namespace

const std::vector<Operator>& concat_operators() {
  static const std::vector<Operator> table = {
      {"Concat", {{"Concat", nullptr, build_concat}}},
  };
  return table;
}

}  // namespace lp
