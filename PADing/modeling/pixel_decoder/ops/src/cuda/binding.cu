// PyTorch operators over the CUDA kernels: checks, memory, streams.
#include <ATen/ATen.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <torch/library.h>

#include <optional>
#include <tuple>

#define MSDA_SHARED(name) extern __shared__ __align__(16) unsigned char name[]
#include "kernel.cuh"

namespace pading_msda {
namespace {

using at::Tensor;

struct Call {
  Tensor value, locations, weights, table;
  Sizes sizes{};
  Levels levels{};

  Call(const Tensor& value_in, at::IntArrayRef levels_in, const std::optional<Tensor>& table_in,
       const Tensor& locations_in, const Tensor& weights_in) {
    TORCH_CHECK_VALUE(value_in.dim() == 4 && locations_in.dim() == 6 && weights_in.dim() == 5 &&
                      locations_in.size(5) == 2,
                      "ms_deform_attn: expected value (N, S, M, D), locations (N, Lq, M, L, P, 2), "
                      "weights (N, Lq, M, L, P)");
    TORCH_CHECK_VALUE(locations_in.device() == value_in.device() && weights_in.device() == value_in.device(),
                      "ms_deform_attn: value, locations and weights must be on one device");
    Sizes& s = sizes;
    s.batch = value_in.size(0), s.pixels = value_in.size(1), s.queries = locations_in.size(1);
    s.heads = int(value_in.size(2)), s.channels = int(value_in.size(3));
    s.levels = int(locations_in.size(3)), s.points = int(locations_in.size(4));
    const int64_t count = table_in ? table_in->size(0) : int64_t(levels_in.size()) / 3;
    TORCH_CHECK_VALUE(locations_in.size(0) == s.batch && locations_in.size(2) == s.heads && count == s.levels &&
                          weights_in.sizes() == locations_in.sizes().slice(0, 5),
                      "ms_deform_attn: sizes of value ", value_in.sizes(), ", locations ", locations_in.sizes(),
                      ", weights ", weights_in.sizes(), " and ", count, " levels do not fit together");
    TORCH_CHECK_VALUE(s.pixels * s.heads * s.channels <= INT32_MAX,
                      "ms_deform_attn: more than 2^31 numbers in one image");
    const auto sums = value_in.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
    value = value_in.contiguous();
    locations = locations_in.to(sums).contiguous();
    weights = weights_in.to(sums).contiguous();
    if (table_in || s.levels > max_levels) {
      table = table_in ? *table_in : at::tensor(levels_in, at::kLong);
      table = table.to(value_in.device(), at::kLong).contiguous();
      levels.on_device = table.const_data_ptr<int64_t>();
    } else {
      for (int64_t i = 0; i < 3 * count; ++i) levels.table[i] = levels_in[i];
      for (int64_t l = 0; l < count; ++l) {
        const int64_t h = levels_in[3 * l], w = levels_in[3 * l + 1], start = levels_in[3 * l + 2];
        TORCH_CHECK_VALUE(h >= 0 && w >= 0 && start >= 0 && start + h * w <= s.pixels, "ms_deform_attn: level ", l,
                          " of ", h, " x ", w, " starting at ", start, " does not fit into the ", s.pixels,
                          " pixels of value");
      }
    }
  }

  bool empty() const { return sizes.batch * sizes.queries * sizes.heads * sizes.channels * sizes.samples() == 0; }
};

// The most channels, up to 16 bytes of them, that can be moved at once from all these addresses.
template <class V>
int pack_size(int channels, std::initializer_list<const void*> addresses) {
  int vec = 16 / int(sizeof(V));
  const auto fits = [&] {
    if (channels % vec) return false;
    for (const void* address : addresses)
      if (reinterpret_cast<uintptr_t>(address) % (vec * sizeof(V))) return false;
    return true;
  };
  while (!fits()) vec /= 2;
  return vec;
}

template <class F>
void for_pack_size(int vec, F launch) {
  switch (vec) {
    case 8: return launch(std::integral_constant<int, 8>());
    case 4: return launch(std::integral_constant<int, 4>());
    case 2: return launch(std::integral_constant<int, 2>());
    default: return launch(std::integral_constant<int, 1>());
  }
}

template <class F>
void for_value_type(at::ScalarType type, F launch) {
  switch (type) {
    case at::kFloat: return launch(float());
    case at::kDouble: return launch(double());
    case at::kHalf: return launch(half_bits());
    case at::kBFloat16: return launch(bfloat_bits());
    default: TORCH_CHECK_TYPE(false, "ms_deform_attn: no CUDA kernel for values of type ", type);
  }
}

void check_blocks(const Launch& launch) {
  TORCH_CHECK_VALUE(launch.blocks <= INT32_MAX, "ms_deform_attn: too many queries for one launch");
}

Tensor forward(const Tensor& value, at::IntArrayRef levels, const std::optional<Tensor>& table, const Tensor& locations,
               const Tensor& weights) {
  const c10::cuda::CUDAGuard guard(value.device());
  Call call(value, levels, table, locations, weights);
  Sizes& s = call.sizes;
  Tensor output = at::empty({s.batch, s.queries, int64_t(s.heads) * s.channels}, value.options());
  if (call.empty()) return output.zero_();
  for_value_type(value.scalar_type(), [&](auto example) {
    using V = decltype(example);
    using A = typename SumOf<V>::type;
    const auto stream = c10::cuda::getCurrentCUDAStream();
    const V* in = static_cast<const V*>(call.value.const_data_ptr());
    V* out = static_cast<V*>(output.mutable_data_ptr());
    for_pack_size(pack_size<V>(s.channels, {in, out}), [&](auto vec) {
      if constexpr (vec.value * sizeof(V) <= 16) {
        const Launch launch = plan_launch<A>(s, vec.value, false);
        check_blocks(launch);
        forward_kernel<V, vec.value><<<launch.blocks, launch.threads, launch.shared_bytes, stream>>>(
            s, call.levels, in, call.locations.const_data_ptr<A>(), call.weights.const_data_ptr<A>(), out);
        C10_CUDA_KERNEL_LAUNCH_CHECK();
      }
    });
  });
  return output;
}

std::tuple<Tensor, Tensor, Tensor> backward(const Tensor& grad_output, const Tensor& value, at::IntArrayRef levels,
                                            const std::optional<Tensor>& table, const Tensor& locations,
                                            const Tensor& weights) {
  const c10::cuda::CUDAGuard guard(value.device());
  at::globalContext().alertNotDeterministic("ms_deform_attn_backward on CUDA");
  Call call(value, levels, table, locations, weights);
  Sizes& s = call.sizes;
  TORCH_CHECK_VALUE(grad_output.dim() == 3 && grad_output.size(0) == s.batch && grad_output.size(1) == s.queries &&
                        grad_output.size(2) == int64_t(s.heads) * s.channels &&
                        grad_output.scalar_type() == value.scalar_type(),
                    "ms_deform_attn: the gradient does not fit the output");
  if (call.empty()) return {at::zeros_like(value), at::zeros_like(locations), at::zeros_like(weights)};
  const Tensor grad = grad_output.contiguous();
  const auto sums = call.locations.options();
  // Half-precision gradients are summed in float32 and rounded once.
  Tensor grad_value = at::zeros(value.sizes(), sums);
  Tensor grad_locations = at::empty(locations.sizes(), sums), grad_weights = at::empty(weights.sizes(), sums);
  for_value_type(value.scalar_type(), [&](auto example) {
    using V = decltype(example);
    using A = typename SumOf<V>::type;
    const auto stream = c10::cuda::getCurrentCUDAStream();
    const V* in = static_cast<const V*>(call.value.const_data_ptr());
    const V* g = static_cast<const V*>(grad.const_data_ptr());
    for_pack_size(pack_size<V>(s.channels, {in, g}), [&](auto vec) {
      if constexpr (vec.value * sizeof(V) <= 16) {
        const Launch launch = plan_launch<A>(s, vec.value, true);
        check_blocks(launch);
        backward_kernel<V, vec.value><<<launch.blocks, launch.threads, launch.shared_bytes, stream>>>(
            s, call.levels, g, in, call.locations.const_data_ptr<A>(), call.weights.const_data_ptr<A>(),
            grad_value.mutable_data_ptr<A>(), grad_locations.mutable_data_ptr<A>(), grad_weights.mutable_data_ptr<A>());
        C10_CUDA_KERNEL_LAUNCH_CHECK();
      }
    });
  });
  return {grad_value.to(value.scalar_type()), grad_locations.to(locations.scalar_type()),
          grad_weights.to(weights.scalar_type())};
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(pading_msda, m) {
  m.def("cuda_forward(Tensor value, int[] levels, Tensor? table, Tensor locations, Tensor weights) -> Tensor");
  m.def(
      "cuda_backward(Tensor grad, Tensor value, int[] levels, Tensor? table, Tensor locations, Tensor weights)"
      " -> (Tensor, Tensor, Tensor)");
}
TORCH_LIBRARY_IMPL(pading_msda, CUDA, m) {
  m.impl("cuda_forward", &forward);
  m.impl("cuda_backward", &backward);
}

}  // namespace pading_msda
