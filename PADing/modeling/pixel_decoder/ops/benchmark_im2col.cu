// PyTorch operators over the classic kernels, for benchmark.py.
#include <ATen/ATen.h>
#include <ATen/OpMathType.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <torch/library.h>

#include <tuple>

#define MSDA_SHARED(name) extern __shared__ __align__(16) unsigned char name[]
#include "benchmark_im2col.cuh"

namespace {

using im2col::Sizes;

Sizes sizes_of(const at::Tensor& value, const at::Tensor& weights) {
  const int64_t outputs = weights.size(0) * weights.size(1) * value.size(2) * value.size(3);
  TORCH_CHECK_VALUE(value.numel() <= INT32_MAX && 2 * weights.numel() <= INT32_MAX && outputs <= INT32_MAX,
                    "im2col: the tensors are too large for 32-bit indices");
  return {int(value.size(0)),   int(value.size(1)),   int(value.size(2)),  int(value.size(3)),
          int(weights.size(1)), int(weights.size(3)), int(weights.size(4))};
}

at::Tensor forward(const at::Tensor& value, const at::Tensor& shapes, const at::Tensor& starts,
                   const at::Tensor& locations, const at::Tensor& weights) {
  const c10::cuda::CUDAGuard guard(value.device());
  const Sizes s = sizes_of(value, weights);
  at::Tensor output = at::empty({s.batch, s.queries, s.heads * s.channels}, value.options());
  AT_DISPATCH_FLOATING_TYPES_AND2(at::kHalf, at::kBFloat16, value.scalar_type(), "im2col_forward", [&] {
    using sum_t = at::opmath_type<scalar_t>;
    const int threads = 256, blocks = int((output.numel() + threads - 1) / threads);
    im2col::forward_kernel<scalar_t, sum_t><<<blocks, threads, 0, c10::cuda::getCurrentCUDAStream()>>>(
        s, value.const_data_ptr<scalar_t>(), shapes.const_data_ptr<int64_t>(), starts.const_data_ptr<int64_t>(),
        locations.const_data_ptr<scalar_t>(), weights.const_data_ptr<scalar_t>(), output.mutable_data_ptr<scalar_t>());
  });
  C10_CUDA_KERNEL_LAUNCH_CHECK();
  return output;
}

using Gradients = std::tuple<at::Tensor, at::Tensor, at::Tensor>;
Gradients backward(const at::Tensor& grad, const at::Tensor& value, const at::Tensor& shapes, const at::Tensor& starts,
                   const at::Tensor& locations, const at::Tensor& weights) {
  const c10::cuda::CUDAGuard guard(value.device());
  const Sizes s = sizes_of(value, weights);
  const auto sums = value.options().dtype(at::toOpMathType(value.scalar_type()));
  at::Tensor grad_value = at::zeros(value.sizes(), sums);
  at::Tensor grad_locations = at::empty(locations.sizes(), sums), grad_weights = at::empty(weights.sizes(), sums);
  TORCH_CHECK_VALUE(s.channels <= 1024, "im2col: more than 1024 channels in a head");
  int threads = 1;
  while (threads < s.channels) threads *= 2;
  AT_DISPATCH_FLOATING_TYPES_AND2(at::kHalf, at::kBFloat16, value.scalar_type(), "im2col_backward", [&] {
    using sum_t = at::opmath_type<scalar_t>;
    const int blocks = s.batch * s.queries * s.heads, shared_bytes = 3 * threads * int(sizeof(sum_t));
    im2col::backward_kernel<scalar_t, sum_t><<<blocks, threads, shared_bytes, c10::cuda::getCurrentCUDAStream()>>>(
        s, grad.const_data_ptr<scalar_t>(), value.const_data_ptr<scalar_t>(), shapes.const_data_ptr<int64_t>(),
        starts.const_data_ptr<int64_t>(), locations.const_data_ptr<scalar_t>(), weights.const_data_ptr<scalar_t>(),
        grad_value.mutable_data_ptr<sum_t>(), grad_locations.mutable_data_ptr<sum_t>(),
        grad_weights.mutable_data_ptr<sum_t>());
  });
  C10_CUDA_KERNEL_LAUNCH_CHECK();
  const auto dtype = value.scalar_type();
  return {grad_value.to(dtype), grad_locations.to(dtype), grad_weights.to(dtype)};
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(pading_benchmark, m) {
  m.def("im2col_forward(Tensor value, Tensor shapes, Tensor starts, Tensor locations, Tensor weights) -> Tensor");
  m.def(
      "im2col_backward(Tensor grad, Tensor value, Tensor shapes, Tensor starts, Tensor locations, Tensor weights)"
      " -> (Tensor, Tensor, Tensor)");
}
TORCH_LIBRARY_IMPL(pading_benchmark, CUDA, m) {
  m.impl("im2col_forward", &forward);
  m.impl("im2col_backward", &backward);
}
