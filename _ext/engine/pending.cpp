// pending.cpp: empty tables until their operators arrive (weak: the real ones win).
#include "engine/engine.h"
namespace lp {
#define T(n) __attribute__((weak)) const std::vector<Operator>& n() { static const std::vector<Operator> v; return v; }
T(elementwise_operators) T(quantize_operators) T(reduce_operators) T(pool_operators) T(shape_operators) T(resize_operators)
}
