// ops_boxes.cpp: NonMaxSuppression. How many boxes stay decides the shape, so boxes and scores
// must be known while planning.
#include <algorithm>
#include <utility>

#include "engine/views.h"

namespace lp {
namespace {

struct Box {
  float left, right, top, bottom;
};

Box box_at(const float* p, bool centred) {
  if (centred) {  // x, y, width, height
    return {p[0] - p[2] / 2.0f, p[0] + p[2] / 2.0f, p[1] - p[3] / 2.0f, p[1] + p[3] / 2.0f};
  }
  // Any two opposite corners: y, x, y, x.
  return {std::min(p[1], p[3]), std::max(p[1], p[3]), std::min(p[0], p[2]), std::max(p[0], p[2])};
}

bool overlap(const Box& a, const Box& b, float threshold) {
  const float across = std::min(a.right, b.right) - std::max(a.left, b.left);
  const float down = std::min(a.bottom, b.bottom) - std::max(a.top, b.top);
  if (!(across > 0.0f) || !(down > 0.0f)) return false;
  const float both = across * down;
  const float area_a = (a.right - a.left) * (a.bottom - a.top);
  const float area_b = (b.right - b.left) * (b.bottom - b.top);
  const float either = area_a + area_b - both;
  if (both <= 0.0f || area_a <= 0.0f || area_b <= 0.0f || either <= 0.0f) return false;
  return both / either > threshold;
}

// The boxes of one class, best first, that no better one overlaps.
std::vector<int64_t> kept_boxes(const std::vector<Box>& boxes, const float* scores, int64_t most,
                                float overlap_threshold, bool filters, float score_threshold) {
  std::vector<int64_t> order;
  for (size_t i = 0; i < boxes.size(); ++i) {
    // A score that is no number is none.
    const bool counts = filters ? scores[i] > score_threshold : scores[i] == scores[i];
    if (counts) order.push_back(static_cast<int64_t>(i));
  }
  std::sort(order.begin(), order.end(), [&](int64_t i, int64_t j) {
    return scores[i] > scores[j] || (scores[i] == scores[j] && i < j);
  });
  std::vector<int64_t> kept;
  for (const int64_t i : order) {
    if (static_cast<int64_t>(kept.size()) >= most) break;
    const bool covered = std::any_of(kept.begin(), kept.end(), [&](int64_t better) {
      return overlap(boxes[static_cast<size_t>(i)], boxes[static_cast<size_t>(better)],
                     overlap_threshold);
    });
    if (!covered) kept.push_back(i);
  }
  return kept;
}

void build_non_max_suppression(Planner& planner, const Node& node) {
  const Tensor boxes = planner.tensor(planner.operand(node, 0));
  const Tensor scores = planner.tensor(planner.operand(node, 1));
  if (!boxes.is_constant() || !scores.is_constant()) {
    throw Unsupported("NonMaxSuppression: its operands must be known before the run");
  }
  if (boxes.dtype != DType::F32 || scores.dtype != DType::F32) {
    throw Unsupported("NonMaxSuppression: only f32");
  }
  if (boxes.rank() != 3 || scores.rank() != 3 || boxes.shape[2] != 4 ||
      boxes.shape[0] != scores.shape[0] || boxes.shape[1] != scores.shape[2]) {
    throw Error("needs boxes [N, B, 4] and scores [N, classes, B]");
  }
  const auto first_real = [&](size_t i, float otherwise) {
    if (!node.has_input(i)) return otherwise;
    const std::vector<float> values = planner.known_reals(node, i);
    return values.empty() ? otherwise : values[0];
  };
  const std::vector<int64_t> limit =
      node.has_input(2) ? planner.known_integers(node, 2) : std::vector<int64_t>{};
  const int64_t most = limit.empty() ? 0 : std::max<int64_t>(limit[0], 0);
  const float overlap_threshold = first_real(3, 0.0f);
  const bool filters = node.has_input(4) && !planner.known_reals(node, 4).empty();
  const float score_threshold = first_real(4, 0.0f);
  const bool centred = node.integer("center_point_box", 0) != 0;

  const int64_t each = boxes.shape[1], classes = scores.shape[1];
  std::vector<int64_t> found;
  for (int64_t n = 0; n < boxes.shape[0]; ++n) {
    std::vector<Box> own;
    const float* at = reinterpret_cast<const float*>(boxes.constant) + n * each * 4;
    for (int64_t i = 0; i < each; ++i) own.push_back(box_at(at + i * 4, centred));
    for (int64_t c = 0; c < classes; ++c) {
      const float* score =
          reinterpret_cast<const float*>(scores.constant) + (n * classes + c) * each;
      for (const int64_t i :
           kept_boxes(own, score, most, overlap_threshold, filters, score_threshold)) {
        found.insert(found.end(), {n, c, i});
      }
    }
  }
  const int y = planner.output(node, 0, DType::S64, {static_cast<int64_t>(found.size()) / 3, 3});
  planner.add({}, {y}, [y, found = std::move(found)](Pointers t, uint8_t*) {
    std::copy(found.begin(), found.end(), reinterpret_cast<int64_t*>(t[y]));
  });
}

}  // namespace

const std::vector<Operator>& boxes_operators() {
  static const std::vector<Operator> table = {
      {"NonMaxSuppression", {{"NonMaxSuppression", nullptr, build_non_max_suppression}}},
  };
  return table;
}

}  // namespace lp
