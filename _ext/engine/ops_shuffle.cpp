// ops_shuffle.cpp: channels of images in another order.
//
// ai.lowprec ChannelShuffle(x), attribute groups: what Reshape [N, g, C/g, H, W], Transpose of the
// two axes of channels and Reshape [N, C, H, W] do. Channels-last, a pixel is a small matrix that
// is turned; plain, whole planes move.
#include "engine/layouts.h"

namespace lp {

namespace {

class ShuffleStep : public Step {
 public:
  int64_t images = 0, height = 1, width = 1, groups = 1, per_group = 1;

  bool understands_halo() const override { return true; }
  void set_halos(const Halo& in_halo, const Halo& out_halo, uint8_t code) override {
    from_ = in_halo;
    to_ = out_halo;
    code_ = code;
  }

 protected:
  Halo from_, to_;
  uint8_t code_ = 0;
};

template <class T>
class ShufflePixels : public ShuffleStep {
 public:
  void run(Pointers t, uint8_t*) const override {
    const int64_t channels = groups * per_group;
    const T* src = reinterpret_cast<const T*>(t[in[0]]);
    T* dst = reinterpret_cast<T*>(t[out[0]]);
    if (to_.any()) {
      fill_halo(t[out[0]], to_, images, height, width, channels * int64_t{sizeof(T)}, code_);
    }
    const auto row = [&](const Halo& halo) { return (width + halo.left + halo.right) * channels; };
    const auto at = [&](const Halo& halo, int64_t line) {
      const int64_t image = line / height, y = line % height;
      return ((height + halo.top + halo.bottom) * image + halo.top + y) * row(halo) +
             halo.left * channels;
    };
    const int64_t grain = grain_of_rows(2 * PLAIN_GRAIN, width * channels);
    parallel_rows(images * height, grain, [&](int64_t begin, int64_t end) {
      for (int64_t line = begin; line < end; ++line) {
        const T* from = src + at(from_, line);
        T* to = dst + at(to_, line);
        for (int64_t x = 0; x < width; ++x, from += channels, to += channels) {
          turn(from, per_group, to, groups, per_group);
        }
      }
    });
  }
};

template <class T>
void build_pixels(Planner& p, const Node& node, int x, int64_t groups) {
  const Tensor tensor = p.tensor(x);
  auto step = std::make_unique<ShufflePixels<T>>();
  step->images = tensor.shape[0];
  step->groups = groups;
  step->per_group = tensor.shape[1] / groups;
  step->height = tensor.rank() == 4 ? tensor.shape[2] : 1;
  step->width = tensor.shape.back();
  step->in = {x};
  step->out = {p.output(node, 0, tensor.dtype, tensor.shape, Layout::CHANNELS_LAST)};
  p.add(std::move(step));
}

void build_planes(Planner& p, const Node& node, int x, int64_t groups) {
  const Tensor tensor = p.tensor(x);
  const int64_t channels = tensor.shape[1], per_group = channels / groups;
  const int64_t plane = count(tensor.shape, 2, tensor.rank()) * dtype_size(tensor.dtype);
  const int y = p.output(node, 0, tensor.dtype, tensor.shape);
  p.add({x}, {y}, [=, images = tensor.shape[0]](Pointers t, uint8_t*) {
    const uint8_t* src = t[x];
    uint8_t* dst = t[y];
    parallel_rows(images * channels, grain_of_rows(COPY_GRAIN, plane),
                  [&](int64_t begin, int64_t end) {
                    for (int64_t i = begin; i < end; ++i) {
                      const int64_t image = i / channels, c = i % channels;
                      const int64_t from = image * channels + c % groups * per_group + c / groups;
                      memcpy(dst + i * plane, src + from * plane, static_cast<size_t>(plane));
                    }
                  });
  });
}

void build_shuffle(Planner& p, const Node& node) {
  const int x = p.operand_as_is(node, 0);
  const Tensor tensor = p.tensor(x);
  const int64_t groups = node.integer("groups", 1);
  const std::vector<int64_t> sizes = node.integers("sizes");  // C, spatial...: what the graph says
  if (tensor.rank() != sizes.size() + 1 ||
      !std::equal(sizes.begin(), sizes.end(), tensor.shape.begin() + 1) || groups < 1 ||
      tensor.shape[1] % groups != 0) {
    throw Unsupported("ChannelShuffle: the image is not what its graph declares");
  }
  if (tensor.layout == Layout::PLAIN) return build_planes(p, node, x, groups);
  switch (dtype_size(tensor.dtype)) {
    case 1:
      return build_pixels<uint8_t>(p, node, x, groups);
    case 2:
      return build_pixels<uint16_t>(p, node, x, groups);
    case 4:
      return build_pixels<uint32_t>(p, node, x, groups);
    default:
      return build_pixels<uint64_t>(p, node, x, groups);
  }
}

}  // namespace

const std::vector<Operator>& shuffle_operators() {
  static const std::vector<Operator> operators = {
      {"ChannelShuffle", {{"ChannelShuffle", nullptr, build_shuffle}}},
  };
  return operators;
}

}  // namespace lp
