// The kernel in the namespace of one variant, and that variant's table of functions.
namespace pading_msda {
namespace MSDA_VARIANT {
namespace {
#include "kernel.h"

void forward_any(const Problem& p, Type type, int64_t begin, int64_t end) {
  switch (type) {
    case Type::f32: return forward<float, float>(p, begin, end);
    case Type::f64: return forward<double, double>(p, begin, end);
    case Type::bf16: return forward<bf16_t, float>(p, begin, end);
    case Type::f16: return forward<f16_t, float>(p, begin, end);
  }
}

void backward_any(const Problem& p, Type type, int64_t begin, int64_t end) {
  if (type == Type::f64) backward<double>(p, begin, end);
  else backward<float>(p, begin, end);
}
}  // namespace
}  // namespace MSDA_VARIANT

#define MSDA_JOIN_(a, b) a##b
#define MSDA_JOIN(a, b) MSDA_JOIN_(a, b)
extern const Variant MSDA_JOIN(variant_, MSDA_VARIANT) = {MSDA_VARIANT_NAME, MSDA_VARIANT::forward_any,
                                                          MSDA_VARIANT::backward_any};
}  // namespace pading_msda
