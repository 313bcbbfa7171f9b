// PyTorch operators over the CPU kernel: checks, memory, threads, and the choice of the instruction set.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <ATen/Version.h>
#include <torch/library.h>

#include <algorithm>
#include <string>
#include <tuple>
#include <vector>

#include "kernel_api.h"

namespace pading_msda {
namespace {

using at::Tensor;

// ATen's own choice, which the environment variable ATEN_CPU_CAPABILITY can lower.
const Variant& variant() {
#if defined(__x86_64__)
  static const std::string isa = at::get_cpu_capability();
  if (isa.rfind("AVX512", 0) == 0) return variant_avx512;
  if (isa.rfind("AVX2", 0) == 0) return variant_avx2;
#endif
  return variant_baseline;
}

Type type_of(const Tensor& value) {
  switch (value.scalar_type()) {
    case at::kFloat: return Type::f32;
    case at::kDouble: return Type::f64;
    case at::kBFloat16: return Type::bf16;
    case at::kHalf: return Type::f16;
    default: TORCH_CHECK_TYPE(false, "ms_deform_attn: no CPU kernel for values of type ", value.scalar_type());
  }
}

// Holds on to the contiguous tensors that `problem` points into.
struct Call {
  Tensor value, locations, weights;
  std::vector<int64_t> levels;
  Problem problem{};
  Type type;
  bool covers_all_pixels;

  Call(const Tensor& value_in, at::IntArrayRef levels_in, const Tensor& locations_in, const Tensor& weights_in)
      : levels(levels_in.begin(), levels_in.end()), type(type_of(value_in)) {
    TORCH_CHECK_VALUE(value_in.dim() == 4 && locations_in.dim() == 6 && weights_in.dim() == 5 &&
                      locations_in.size(5) == 2 &&
                          levels.size() % 3 == 0,
                      "ms_deform_attn: expected value (N, S, M, D), locations (N, Lq, M, L, P, 2), "
                      "weights (N, Lq, M, L, P)");
    Problem& p = problem;
    p.batch = value_in.size(0), p.pixels = value_in.size(1), p.heads = value_in.size(2), p.channels = value_in.size(3);
    p.queries = locations_in.size(1), p.levels = locations_in.size(3), p.points = locations_in.size(4);
    TORCH_CHECK_VALUE(locations_in.size(0) == p.batch && locations_in.size(2) == p.heads &&
                          int64_t(levels.size()) == 3 * p.levels &&
                          weights_in.sizes() == locations_in.sizes().slice(0, 5),
                      "ms_deform_attn: sizes of value ", value_in.sizes(), ", locations ", locations_in.sizes(),
                      ", weights ", weights_in.sizes(), " and ", levels.size() / 3, " levels do not fit together");
    check_levels();
    const auto acc = type == Type::f64 ? at::kDouble : at::kFloat;
    locations = locations_in.to(acc).contiguous();
    weights = weights_in.to(acc).contiguous();
    p.level_table = levels.data();
    p.locations = locations.const_data_ptr();
    p.weights = weights.const_data_ptr();
  }

  // Pack values by head, with the extra pixels that samples outside the maps read.
  void pack(const Tensor& value_in, at::ScalarType dtype) {
    const Problem& p = problem;
    TORCH_CHECK_VALUE((p.pixels + p.levels) * p.channels <= INT32_MAX,
                      "ms_deform_attn: more than 2^31 numbers in one head");
    value = at::empty({p.batch, p.heads, p.pixels + p.levels, p.channels}, value_in.options().dtype(dtype));
    value.narrow(2, 0, p.pixels).copy_(value_in.transpose(1, 2));
    value.narrow(2, p.pixels, p.levels).zero_();
    problem.value = value.const_data_ptr();
  }

  // Every level inside the value, and no two sharing a pixel (the backward pass relies on it).
  void check_levels() {
    const int64_t pixels = problem.pixels;
    TORCH_CHECK_VALUE(pixels <= INT32_MAX, "ms_deform_attn: more than 2^31 pixels");
    std::vector<std::pair<int64_t, int64_t>> spans;
    int64_t covered = 0;
    for (size_t l = 0; l < levels.size(); l += 3) {
      const int64_t h = levels[l], w = levels[l + 1], start = levels[l + 2];
      TORCH_CHECK_VALUE(h >= 0 && w >= 0 && start >= 0 && h <= INT32_MAX && w <= INT32_MAX && start + h * w <= pixels,
                        "ms_deform_attn: level ", l / 3, " of ", h, " x ", w, " starting at ", start,
                        " does not fit into the ", pixels, " pixels of value");
      spans.emplace_back(start, start + h * w);
      covered += h * w;
    }
    std::sort(spans.begin(), spans.end());
    for (size_t l = 1; l < spans.size(); ++l)
      TORCH_CHECK_VALUE(spans[l - 1].second <= spans[l].first, "ms_deform_attn: levels overlap in value");
    covers_all_pixels = covered == pixels;
  }
};

Tensor forward(const Tensor& value, at::IntArrayRef levels, const Tensor& locations, const Tensor& weights) {
  Call call(value, levels, locations, weights);
  Problem& p = call.problem;
  if (p.levels * p.points == 0) return at::zeros({p.batch, p.queries, p.heads * p.channels}, value.options());
  Tensor output = at::empty({p.batch, p.queries, p.heads * p.channels}, value.options());
  if (output.numel() == 0) return output;
  call.pack(value, value.scalar_type());
  p.output = output.mutable_data_ptr();
  at::parallel_for(0, p.batch * p.queries, 32,
                   [&](int64_t begin, int64_t end) { variant().forward(p, call.type, begin, end); });
  return output;
}

std::tuple<Tensor, Tensor, Tensor> backward(const Tensor& grad_output, const Tensor& value, at::IntArrayRef levels,
                                            const Tensor& locations, const Tensor& weights) {
  Call call(value, levels, locations, weights);
  Problem& p = call.problem;
  TORCH_CHECK_VALUE(grad_output.dim() == 3 && grad_output.size(0) == p.batch && grad_output.size(1) == p.queries &&
                        grad_output.size(2) == p.heads * p.channels,
                    "ms_deform_attn: the gradient does not fit the output");
  if (grad_output.numel() == 0 || p.levels * p.points == 0)
    return {at::zeros_like(value), at::zeros_like(locations), at::zeros_like(weights)};
  // Gradients are summed in the accumulation type and rounded once.
  const auto acc = call.locations.options();
  const Tensor grad = grad_output.to(acc.dtype()).contiguous();
  call.pack(value, call.locations.scalar_type());
  Tensor grad_value = call.covers_all_pixels ? at::empty_like(call.value) : at::zeros_like(call.value);
  Tensor grad_locations = at::empty(locations.sizes(), acc), grad_weights = at::empty(weights.sizes(), acc);
  p.grad_output = grad.const_data_ptr();
  p.grad_value = grad_value.mutable_data_ptr();
  p.grad_locations = grad_locations.mutable_data_ptr();
  p.grad_weights = grad_weights.mutable_data_ptr();
  at::parallel_for(0, p.batch * p.heads * p.levels, 1,
                   [&](int64_t begin, int64_t end) { variant().backward(p, call.type, begin, end); });
  Tensor unpacked = at::empty(value.sizes(), value.options());
  unpacked.transpose(1, 2).copy_(grad_value.narrow(2, 0, p.pixels));
  return {unpacked, grad_locations.to(locations.scalar_type()), grad_weights.to(weights.scalar_type())};
}

std::string instruction_set() { return variant().name; }

}  // namespace

TORCH_LIBRARY_FRAGMENT(pading_msda, m) {
  m.def("cpu_forward(Tensor value, int[] levels, Tensor locations, Tensor weights) -> Tensor");
  m.def(
      "cpu_backward(Tensor grad, Tensor value, int[] levels, Tensor locations, Tensor weights)"
      " -> (Tensor, Tensor, Tensor)");
  m.def("cpu_instruction_set() -> str", &instruction_set);
}
TORCH_LIBRARY_IMPL(pading_msda, CPU, m) {
  m.impl("cpu_forward", &forward);
  m.impl("cpu_backward", &backward);
}

}  // namespace pading_msda
