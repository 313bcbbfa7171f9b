// The kernel in the namespace of one variant, and that variant's table of functions.
namespace pading_msda {
namespace MSDA_VARIANT {
namespace {
#include "kernel.h"

void pack_any(const Problem& p, Type type, int64_t head, int64_t level) {
  switch (type) {
    case Type::f32: return pack<float>(p, head, level);
    case Type::f64: return pack<double>(p, head, level);
    case Type::bf16: return pack<bf16_t>(p, head, level);
    case Type::f16: return pack<f16_t>(p, head, level);
  }
}

void forward_any(const Problem& p, Type type, int64_t head, int64_t begin, int64_t end) {
  switch (type) {
    case Type::f32: return forward<float, float>(p, head, begin, end);
    case Type::f64: return forward<double, double>(p, head, begin, end);
    case Type::bf16: return forward<bf16_t, float>(p, head, begin, end);
    case Type::f16: return forward<f16_t, float>(p, head, begin, end);
  }
}

// The passes over the samples exist once per accumulation type only.
template <class V, class A>
void backward_of(const Problem& p, int64_t head, int64_t level, void* scratch) {
  A* numbers = static_cast<A*>(scratch);
  widen_map<V, A>(p, head, level, numbers);
  backward<A>(p, head, level, numbers);
  return_map<V, A>(p, head, level, numbers);
}

void backward_any(const Problem& p, Type type, int64_t head, int64_t level, void* scratch) {
  switch (type) {
    case Type::f32: return backward_of<float, float>(p, head, level, scratch);
    case Type::f64: return backward_of<double, double>(p, head, level, scratch);
    case Type::bf16: return backward_of<bf16_t, float>(p, head, level, scratch);
    case Type::f16: return backward_of<f16_t, float>(p, head, level, scratch);
  }
}
}  // namespace
}  // namespace MSDA_VARIANT

#define MSDA_JOIN_(a, b) a##b
#define MSDA_JOIN(a, b) MSDA_JOIN_(a, b)
extern const Variant MSDA_JOIN(variant_, MSDA_VARIANT) = {
    MSDA_VARIANT_NAME, MSDA_VARIANT::pack_any, MSDA_VARIANT::forward_any, MSDA_VARIANT::backward_any};
}  // namespace pading_msda
