// PyTorch operators over the CUDA kernels: checks, memory, streams.
#include <ATen/ATen.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <torch/library.h>

#include <algorithm>
#include <optional>
#include <tuple>
#include <utility>
#include <vector>

#define MSDA_SHARED(name) extern __shared__ __align__(16) unsigned char name[]
#include "kernel.cuh"

namespace pading_msda {
namespace {

using at::Tensor;
using Gradients = std::tuple<Tensor, Tensor, Tensor>;

at::ScalarType sums_of(const Tensor& value) {
  return value.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
}

// The value and its levels, which both operators have.
struct Call {
  Tensor value, table;
  Sizes sizes{};
  Levels levels{};

  // `weights`: (N, Lq, M, L, P), of the samples.
  Call(const Tensor& value_in, at::IntArrayRef levels_in, const std::optional<Tensor>& table_in, const Tensor& weights)
      : value(value_in.contiguous()) {
    TORCH_CHECK_VALUE(value.dim() == 4 && weights.dim() == 5,
                      "ms_deform_attn: expected value (N, S, M, D) and samples (N, Lq, M, L, P)");
    TORCH_CHECK_VALUE(weights.device() == value.device(), "ms_deform_attn: all tensors must be on one device");
    const int64_t count = table_in ? table_in->size(0) : int64_t(levels_in.size()) / 3;
    TORCH_CHECK_VALUE(weights.size(0) == value.size(0) && weights.size(2) == value.size(2) && count == weights.size(3),
                      "ms_deform_attn: sizes of value ", value.sizes(), ", samples ", weights.sizes(), " and ", count,
                      " levels do not fit together");
    TORCH_CHECK_VALUE(value.size(1) * value.size(2) * value.size(3) <= INT32_MAX,
                      "ms_deform_attn: more than 2^31 numbers in one image");
    TORCH_CHECK_VALUE(value.size(0) <= 65535 && value.size(2) <= 65535 && weights.size(1) <= INT32_MAX / 2 &&
                          weights.size(3) * weights.size(4) * weights.size(4) <= INT32_MAX,
                      "ms_deform_attn: too many images, heads, queries or points for one launch");
    sizes = {int(value.size(0)),   int(value.size(1)),   int(weights.size(1)), int(value.size(2)), int(value.size(3)),
             int(weights.size(3)), int(weights.size(4)), 0,                    0};
    if (table_in || count > max_levels) {
      table = (table_in ? *table_in : at::tensor(levels_in, at::kLong)).to(value.device(), at::kLong).contiguous();
      levels.on_device = table.const_data_ptr<int64_t>();
    } else {
      take_levels(levels_in);
    }
  }

  // Every level inside the value, and no two sharing a pixel.
  void take_levels(at::IntArrayRef numbers) {
    std::vector<std::pair<int64_t, int64_t>> spans;
    for (size_t l = 0; l < numbers.size() / 3; ++l) {
      const int64_t h = numbers[3 * l], w = numbers[3 * l + 1], start = numbers[3 * l + 2];
      TORCH_CHECK_VALUE(h >= 0 && w >= 0 && start >= 0 && h <= INT32_MAX && w <= INT32_MAX &&
                            start + h * w <= sizes.pixels,
                        "ms_deform_attn: level ", l, " of ", h, " x ", w, " starting at ", start,
                        " does not fit into the ", sizes.pixels, " pixels of value");
      for (size_t k = 0; k < 3; ++k) levels.table[3 * l + k] = int(numbers[3 * l + k]);
      spans.emplace_back(start, start + h * w);
    }
    std::sort(spans.begin(), spans.end());
    for (size_t l = 1; l < spans.size(); ++l)
      TORCH_CHECK_VALUE(spans[l - 1].second <= spans[l].first, "ms_deform_attn: levels overlap in value");
  }

  bool empty() const {
    const Sizes& s = sizes;
    return s.batch == 0 || s.queries == 0 || s.heads == 0 || s.channels == 0 || s.samples() == 0;
  }

  void check_gradient(const Tensor& grad) const {
    const Sizes& s = sizes;
    TORCH_CHECK_VALUE(grad.dim() == 3 && grad.size(0) == s.batch && grad.size(1) == s.queries &&
                          grad.size(2) == int64_t(s.heads) * s.channels && grad.scalar_type() == value.scalar_type(),
                      "ms_deform_attn: the gradient does not fit the output");
  }
};

// ---- the two kinds of samples

struct GivenTensors {
  Tensor locations, weights;

  GivenTensors(const Tensor& value, const Tensor& locations_in, const Tensor& weights_in) {
    TORCH_CHECK_VALUE(locations_in.dim() == 6 && locations_in.size(5) == 2 &&
                          locations_in.sizes().slice(0, 5) == weights_in.sizes(),
                      "ms_deform_attn: expected locations (N, Lq, M, L, P, 2) and weights (N, Lq, M, L, P)");
    TORCH_CHECK_VALUE(locations_in.device() == value.device(), "ms_deform_attn: all tensors must be on one device");
    locations = locations_in.to(sums_of(value)).contiguous();
    weights = weights_in.to(sums_of(value)).contiguous();
  }
  template <class V>
  auto source() const {
    using A = typename SumOf<V>::type;
    const A* at = locations.const_data_ptr<A>();
    return Given<A>{at, weights.const_data_ptr<A>(), is_aligned<A>(at, 2)};
  }
  template <class V>
  auto gradients(Tensor& grad_locations, Tensor& grad_weights) const {
    using A = typename SumOf<V>::type;
    return GivenGradients<A>{grad_locations.mutable_data_ptr<A>(), grad_weights.mutable_data_ptr<A>()};
  }
};

struct ProjectedTensors {
  Tensor offsets, scores, reference;

  ProjectedTensors(const Tensor& value, const Tensor& offsets_in, const Tensor& scores_in,
                   const Tensor& reference_in) {
    TORCH_CHECK_VALUE(offsets_in.dim() == 6 && offsets_in.size(5) == 2 &&
                          offsets_in.sizes().slice(0, 5) == scores_in.sizes() && reference_in.dim() == 4 &&
                          reference_in.size(0) == scores_in.size(0) && reference_in.size(1) == scores_in.size(1) &&
                          reference_in.size(2) == scores_in.size(3) && reference_in.size(3) == 2,
                      "ms_deform_attn_fused: expected offsets (N, Lq, M, L, P, 2), scores (N, Lq, M, L, P) and "
                      "reference points (N, Lq, L, 2)");
    TORCH_CHECK_VALUE(offsets_in.device() == value.device() && reference_in.device() == value.device(),
                      "ms_deform_attn_fused: all tensors must be on one device");
    TORCH_CHECK_TYPE(offsets_in.scalar_type() == value.scalar_type() && scores_in.scalar_type() == value.scalar_type(),
                     "ms_deform_attn_fused: value, offsets and scores must have one dtype");
    offsets = offsets_in.contiguous();
    scores = scores_in.contiguous();
    reference = reference_in.to(sums_of(value));
    if (reference.stride(3) != 1) reference = reference.contiguous();
  }
  template <class V>
  auto source() const {
    using A = typename SumOf<V>::type;
    const V* at = static_cast<const V*>(offsets.const_data_ptr());
    const A* from = reference.const_data_ptr<A>();
    bool pairs = is_aligned<A>(from, 2);
    for (int i = 0; i < 3; ++i) pairs = pairs && reference.stride(i) % 2 == 0;
    return Projected<V>{at, static_cast<const V*>(scores.const_data_ptr()), from, reference.stride(0),
                        reference.stride(1), reference.stride(2), is_aligned<V>(at, 2), pairs};
  }
  template <class V>
  auto gradients(Tensor& grad_offsets, Tensor& grad_scores) const {
    return ProjectedGradients<V>{static_cast<V*>(grad_offsets.mutable_data_ptr()),
                                 static_cast<V*>(grad_scores.mutable_data_ptr())};
  }
};

// ---- from dtypes and sizes to templates

template <class F>
void for_type(at::ScalarType type, F function) {
  switch (type) {
    case at::kFloat: return function(float());
    case at::kDouble: return function(double());
    case at::kHalf: return function(half_bits());
    case at::kBFloat16: return function(bfloat_bits());
    default: TORCH_CHECK_TYPE(false, "ms_deform_attn: no CUDA kernel for values of type ", type);
  }
}

template <class V, class F>
void for_pack(int vec, F function) {
  switch (vec) {
    case 1: return function(std::integral_constant<int, 1>());
    case 2: return function(std::integral_constant<int, 2>());
    default: return function(std::integral_constant<int, 16 / int(sizeof(V))>());
  }
}

dim3 blocks_of(const Launch& launch, const Sizes& s) {
  TORCH_CHECK_VALUE(launch.runs <= INT32_MAX && launch.shared_bytes <= 48 * 1024,
                    "ms_deform_attn: too many queries or samples for one launch");
  return dim3(unsigned(launch.runs), unsigned(s.heads), unsigned(s.batch));
}

template <class V>
const V* read_only(const Tensor& tensor) {
  return static_cast<const V*>(tensor.const_data_ptr());
}

// ---- forward and backward

template <class Samples>
Tensor run_forward(Call& call, const Samples& samples) {
  Sizes& s = call.sizes;
  Tensor output = at::empty({s.batch, s.queries, int64_t(s.heads) * s.channels}, call.value.options());
  if (call.empty()) return output.zero_();
  for_type(call.value.scalar_type(), [&](auto example) {
    using V = decltype(example);
    const V* in = read_only<V>(call.value);
    V* out = static_cast<V*>(output.mutable_data_ptr());
    const auto source = samples.template source<V>();
    for_pack<V>(pack_size<V>(s.channels, in, out), [&](auto vec) {
      const Launch launch = forward_launch<V>(s, vec.value);
      forward_kernel<V, vec.value><<<blocks_of(launch, s), launch.threads, launch.shared_bytes,
                                     c10::cuda::getCurrentCUDAStream()>>>(s, call.levels, source, in, out);
      C10_CUDA_KERNEL_LAUNCH_CHECK();
    });
  });
  return output;
}

// The samples of each cell: `order`, sorted by cell and stable, and the first of each cell in it.
std::pair<Tensor, Tensor> cells_of(const Tensor& keys, int64_t cells) {
  auto [sorted, order] = at::sort(keys, /*stable=*/true, /*dim=*/0, /*descending=*/false);
  const Tensor starts = at::searchsorted(sorted, at::arange(cells + 1, keys.options()), /*out_int32=*/true);
  return {order, starts};
}

// The gradient of the value, and those of the samples, which are written into `of_first` and `of_second`.
template <class Samples>
Tensor run_backward(Call& call, const Samples& samples, const Tensor& grad_output, Tensor& of_first,
                    Tensor& of_second) {
  Sizes& s = call.sizes;
  const Tensor& value = call.value;
  const Tensor grad = grad_output.contiguous();
  const bool collect = at::globalContext().deterministicAlgorithms();
  const auto sums = value.options().dtype(sums_of(value));
  const int64_t count = int64_t(s.batch) * s.queries * s.heads * s.samples();
  const int64_t cells = 4 * int64_t(s.batch) * s.heads * s.pixels;
  TORCH_CHECK_VALUE(!collect || (count <= INT32_MAX && cells < INT32_MAX),
                    "ms_deform_attn: too many samples or pixels for the deterministic backward pass");
  // Half-precision gradients are summed in float32 and rounded once.
  Tensor result = collect ? at::empty(value.sizes(), value.options()) : at::zeros(value.sizes(), sums);
  for_type(value.scalar_type(), [&](auto example) {
    using V = decltype(example);
    using A = typename SumOf<V>::type;
    const auto stream = c10::cuda::getCurrentCUDAStream();
    const V *in = read_only<V>(value), *g = read_only<V>(grad);
    const auto source = samples.template source<V>();
    const auto gradients = samples.template gradients<V>(of_first, of_second);
    Tensor keys, of_cells;
    Sorting<A> sorting{};
    if (collect) {
      keys = at::empty({count}, value.options().dtype(at::kInt));
      of_cells = at::empty({count * int64_t(sizeof(Sample<A>))}, value.options().dtype(at::kByte));
      sorting = {keys.mutable_data_ptr<int>(), static_cast<Sample<A>*>(of_cells.mutable_data_ptr())};
    }
    for_pack<V>(pack_size<V>(s.channels, in, g), [&](auto vec) {
      Launch launch = backward_launch<V, std::decay_t<decltype(gradients)>>(s, vec.value);
      backward_kernel<V, vec.value><<<blocks_of(launch, s), launch.threads, launch.shared_bytes, stream>>>(
          s, call.levels, source, g, in, collect ? nullptr : result.mutable_data_ptr<A>(), sorting, gradients);
      C10_CUDA_KERNEL_LAUNCH_CHECK();
      if (!collect || s.pixels == 0) return;
      const auto [order, starts] = cells_of(keys, cells);
      launch = collect_launch<V>(s, vec.value);
      collect_kernel<V, vec.value><<<blocks_of(launch, s), launch.threads, launch.shared_bytes, stream>>>(
          s, call.levels, starts.const_data_ptr<int>(), order.const_data_ptr<int64_t>(), sorting.samples, g,
          static_cast<V*>(result.mutable_data_ptr()));
      C10_CUDA_KERNEL_LAUNCH_CHECK();
    });
  });
  return result.to(value.scalar_type());
}

// ---- the operators

Tensor forward(const Tensor& value, at::IntArrayRef levels, const std::optional<Tensor>& table, const Tensor& locations,
               const Tensor& weights) {
  const c10::cuda::CUDAGuard guard(value.device());
  Call call(value, levels, table, weights);
  return run_forward(call, GivenTensors(value, locations, weights));
}

Gradients backward(const Tensor& grad, const Tensor& value, at::IntArrayRef levels, const std::optional<Tensor>& table,
                   const Tensor& locations, const Tensor& weights) {
  const c10::cuda::CUDAGuard guard(value.device());
  Call call(value, levels, table, weights);
  call.check_gradient(grad);
  const GivenTensors samples(value, locations, weights);
  if (call.empty()) return {at::zeros_like(value), at::zeros_like(locations), at::zeros_like(weights)};
  Tensor of_locations = at::empty(locations.sizes(), samples.locations.options());
  Tensor of_weights = at::empty(weights.sizes(), samples.weights.options());
  const Tensor of_value = run_backward(call, samples, grad, of_locations, of_weights);
  return {of_value, of_locations.to(locations.scalar_type()), of_weights.to(weights.scalar_type())};
}

Tensor fused_forward(const Tensor& value, at::IntArrayRef levels, const std::optional<Tensor>& table,
                     const Tensor& offsets, const Tensor& scores, const Tensor& reference) {
  const c10::cuda::CUDAGuard guard(value.device());
  Call call(value, levels, table, scores);
  return run_forward(call, ProjectedTensors(value, offsets, scores, reference));
}

Gradients fused_backward(const Tensor& grad, const Tensor& value, at::IntArrayRef levels,
                         const std::optional<Tensor>& table, const Tensor& offsets, const Tensor& scores,
                         const Tensor& reference) {
  const c10::cuda::CUDAGuard guard(value.device());
  Call call(value, levels, table, scores);
  call.check_gradient(grad);
  const ProjectedTensors samples(value, offsets, scores, reference);
  if (call.empty()) return {at::zeros_like(value), at::zeros_like(offsets), at::zeros_like(scores)};
  Tensor of_offsets = at::empty(offsets.sizes(), value.options()), of_scores = at::empty(scores.sizes(), value.options());
  const Tensor of_value = run_backward(call, samples, grad, of_offsets, of_scores);
  return {of_value, of_offsets, of_scores};
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(pading_msda, m) {
  m.def("cuda_forward(Tensor value, int[] levels, Tensor? table, Tensor locations, Tensor weights) -> Tensor");
  m.def(
      "cuda_backward(Tensor grad, Tensor value, int[] levels, Tensor? table, Tensor locations, Tensor weights)"
      " -> (Tensor, Tensor, Tensor)");
  m.def(
      "cuda_fused_forward(Tensor value, int[] levels, Tensor? table, Tensor offsets, Tensor scores, Tensor reference)"
      " -> Tensor");
  m.def(
      "cuda_fused_backward(Tensor grad, Tensor value, int[] levels, Tensor? table, Tensor offsets, Tensor scores,"
      " Tensor reference) -> (Tensor, Tensor, Tensor)");
}
TORCH_LIBRARY_IMPL(pading_msda, CUDA, m) {
  m.impl("cuda_forward", &forward);
  m.impl("cuda_backward", &backward);
  m.impl("cuda_fused_forward", &fused_forward);
  m.impl("cuda_fused_backward", &fused_backward);
}

}  // namespace pading_msda
