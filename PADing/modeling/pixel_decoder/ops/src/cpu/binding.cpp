// PyTorch operators over the CPU kernel: checks, memory, threads, and the choice of the instruction set.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <ATen/Version.h>
#include <torch/library.h>

#include <algorithm>
#include <atomic>
#include <string>
#include <thread>
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
  at::IntArrayRef levels;
  std::vector<Level> maps;
  Problem problem{};
  Type type;
  bool covers_all_pixels;

  Call(const Tensor& value_in, at::IntArrayRef levels_in, const Tensor& locations_in, const Tensor& weights_in)
      : levels(levels_in), type(type_of(value_in)) {
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
    value = value_in.stride(3) == 1 ? value_in : value_in.contiguous();
    p.value = value.const_data_ptr();
    p.batch_stride = value.stride(0), p.pixel_stride = value.stride(1), p.head_stride = value.stride(2);
    p.level = maps.data();
    p.locations = locations.const_data_ptr();
    p.weights = weights.const_data_ptr();
  }

  // Every level inside the value, and no two sharing a pixel (the backward pass relies on it); where each goes.
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
      const bool empty = h * w == 0;
      maps.push_back({empty ? 0 : h, empty ? 0 : w, start, problem.cells});
      problem.cells += map_cells(maps.back().height, maps.back().width);
    }
    TORCH_CHECK_VALUE(problem.cells * problem.channels <= INT32_MAX,
                      "ms_deform_attn: more than 2^31 numbers in one head");
    std::sort(spans.begin(), spans.end());
    for (size_t l = 1; l < spans.size(); ++l)
      TORCH_CHECK_VALUE(spans[l - 1].second <= spans[l].first, "ms_deform_attn: levels overlap in value");
    covers_all_pixels = covered == pixels;
  }
};

// Call work(next) on as many threads as there are and tasks for them; next() gives each task to one of them, the last
// ones as `tasks` or more. Whoever is done takes another, so that none waits long for a thread that other programs keep
// from its core, and all is one parallel region, for the same reason. Which thread does a task changes no bit.
template <class Work>
void share_tasks(int64_t tasks, const Work& work) {
  std::atomic<int64_t> count{0};
  at::parallel_for(0, std::min<int64_t>(tasks, at::get_num_threads()), 1, [&](int64_t, int64_t) {
    work([&] { return count.fetch_add(1, std::memory_order_relaxed); });
  });
}

Tensor forward(const Tensor& value, at::IntArrayRef levels, const Tensor& locations, const Tensor& weights) {
  Call call(value, levels, locations, weights);
  Problem& p = call.problem;
  if (p.levels * p.points == 0) return at::zeros({p.batch, p.queries, p.heads * p.channels}, value.options());
  Tensor output = at::empty({p.batch, p.queries, p.heads * p.channels}, value.options());
  if (output.numel() == 0) return output;
  const Tensor packed = at::empty({p.batch, p.heads, p.cells, p.channels}, value.options());
  p.packed = packed.mutable_data_ptr();
  p.output = output.mutable_data_ptr();
  // Parts of a head long enough to read its pixels once and not for every few queries, short enough to go round.
  const int64_t heads = p.batch * p.heads, share = heads * p.queries / (8 * at::get_num_threads());
  const int64_t length = std::clamp<int64_t>(share, 64, 4096), parts = (p.queries + length - 1) / length;
  // In the order of the tasks: pack head 0; pack head 1, compute head 0; pack head 2, compute head 1; and so on. What
  // a part waits for has thus been taken before it, by a thread that waits for nothing.
  const int64_t group = p.levels + parts, tasks = (heads + 1) * group;
  std::vector<std::atomic<int64_t>> packed_levels(heads);
  share_tasks(tasks, [&](const auto& next) {
    for (int64_t task; (task = next()) < tasks;) {
      const int64_t head = task / group, level = task % group, begin = (level - p.levels) * length;
      if (level < p.levels && head < heads) {
        variant().pack(p, call.type, head, level);
        packed_levels[head].fetch_add(1, std::memory_order_release);
      } else if (level >= p.levels && head > 0) {
        while (packed_levels[head - 1].load(std::memory_order_acquire) < p.levels) std::this_thread::yield();
        variant().forward(p, call.type, head - 1, begin, std::min(begin + length, p.queries));
      }
    }
  });
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
  const Tensor grad_value =
      call.covers_all_pixels ? at::empty(value.sizes(), value.options()) : at::zeros(value.sizes(), value.options());
  Tensor grad_locations = at::empty(locations.sizes(), acc), grad_weights = at::empty(weights.sizes(), acc);
  p.grad_output = grad.const_data_ptr();
  p.grad_value = grad_value.mutable_data_ptr();
  p.grad_locations = grad_locations.mutable_data_ptr();
  p.grad_weights = grad_weights.mutable_data_ptr();
  int64_t cells = 0;
  for (const Level& map : call.maps) cells = std::max(cells, map_cells(map.height, map.width));
  const int64_t tasks = p.batch * p.heads * p.levels;
  share_tasks(tasks, [&](const auto& next) {
    const Tensor scratch = at::empty({2 * cells * p.channels}, acc);  // ATen aligns to 64 bytes
    for (int64_t task; (task = next()) < tasks;)
      variant().backward(p, call.type, task / p.levels, task % p.levels, scratch.mutable_data_ptr());
  });
  return {grad_value, grad_locations.to(locations.scalar_type()), grad_weights.to(weights.scalar_type())};
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
