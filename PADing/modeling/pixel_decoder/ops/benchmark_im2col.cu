// The classic way to compute multi-scale deformable attention on a GPU, as a yardstick for benchmark.py: one
// thread per output channel, each working out every sample for itself; gradients by atomic additions. Simple on
// purpose.
#include <ATen/ATen.h>
#include <ATen/OpMathType.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <torch/library.h>

#include <tuple>

namespace {

struct Sizes {
  int64_t batch, pixels, heads, channels, queries, levels, points;
};

// Calls visit(element offset of the pixel in value, dx, dy, side of x, side of y) for the corners inside the map.
template <class T, class F>
__device__ void corners(const Sizes& s, const int64_t* shape, int64_t start, int64_t n, int64_t m, int64_t c, T x, T y,
                        F visit) {
  const int64_t height = shape[0], width = shape[1];
  x = x * T(width) - T(0.5);
  y = y * T(height) - T(0.5);
  if (!(x > T(-1) && y > T(-1) && x < T(width) && y < T(height))) return;
  const int64_t x0 = int64_t(floor(x)), y0 = int64_t(floor(y));
  for (int k = 0; k < 4; ++k) {
    const int64_t column = x0 + (k & 1), row = y0 + (k >> 1);
    if (column < 0 || row < 0 || column >= width || row >= height) continue;
    const int64_t pixel = start + row * width + column;
    visit(((n * s.pixels + pixel) * s.heads + m) * s.channels + c, x - T(x0), y - T(y0), k & 1, k >> 1);
  }
}

// V: storage, T: arithmetic.
template <class V, class T>
__global__ void forward_kernel(Sizes s, const V* value, const int64_t* shapes, const int64_t* starts,
                               const V* locations, const V* weights, V* output) {
  const int64_t index = blockIdx.x * int64_t(blockDim.x) + threadIdx.x;
  if (index >= s.batch * s.queries * s.heads * s.channels) return;
  const int64_t c = index % s.channels, item = index / s.channels, m = item % s.heads, n = item / s.heads / s.queries;
  T sum = 0;
  for (int64_t j = 0; j < s.levels * s.points; ++j) {
    const int64_t sample = item * s.levels * s.points + j, level = j / s.points;
    T read = 0;
    corners<T>(s, shapes + 2 * level, starts[level], n, m, c, T(locations[2 * sample]), T(locations[2 * sample + 1]),
               [&](int64_t at, T dx, T dy, int right, int low) {
                 read += (right ? dx : 1 - dx) * (low ? dy : 1 - dy) * T(value[at]);
               });
    sum += T(weights[sample]) * read;
  }
  output[index] = V(sum);
}

template <class V, class T>
__global__ void backward_kernel(Sizes s, const V* grad, const V* value, const int64_t* shapes, const int64_t* starts,
                                const V* locations, const V* weights, T* grad_value, T* grad_locations,
                                T* grad_weights) {
  const int64_t index = blockIdx.x * int64_t(blockDim.x) + threadIdx.x;
  if (index >= s.batch * s.queries * s.heads * s.channels) return;
  const int64_t c = index % s.channels, item = index / s.channels, m = item % s.heads, n = item / s.heads / s.queries;
  const T g = T(grad[index]);
  for (int64_t j = 0; j < s.levels * s.points; ++j) {
    const int64_t sample = item * s.levels * s.points + j, level = j / s.points;
    const T weight = T(weights[sample]);
    T of_weight = 0, of_x = 0, of_y = 0;
    corners<T>(s, shapes + 2 * level, starts[level], n, m, c, T(locations[2 * sample]), T(locations[2 * sample + 1]),
               [&](int64_t at, T dx, T dy, int right, int low) {
                 const T px = right ? dx : 1 - dx, py = low ? dy : 1 - dy, v = T(value[at]);
                 of_weight += px * py * v;
                 of_x += (right ? py : -py) * v;
                 of_y += (low ? px : -px) * v;
                 atomicAdd(grad_value + at, weight * px * py * g);
               });
    atomicAdd(grad_weights + sample, g * of_weight);
    atomicAdd(grad_locations + 2 * sample, g * weight * T(shapes[2 * level + 1]) * of_x);
    atomicAdd(grad_locations + 2 * sample + 1, g * weight * T(shapes[2 * level]) * of_y);
  }
}

Sizes sizes_of(const at::Tensor& value, const at::Tensor& weights) {
  return {value.size(0),   value.size(1),   value.size(2),  value.size(3),
          weights.size(1), weights.size(3), weights.size(4)};
}
constexpr int threads = 256;
unsigned blocks(const Sizes& s) {
  return unsigned((s.batch * s.queries * s.heads * s.channels + threads - 1) / threads);
}

at::Tensor forward(const at::Tensor& value, const at::Tensor& shapes, const at::Tensor& starts,
                   const at::Tensor& locations, const at::Tensor& weights) {
  const c10::cuda::CUDAGuard guard(value.device());
  const Sizes s = sizes_of(value, weights);
  at::Tensor output = at::empty({s.batch, s.queries, s.heads * s.channels}, value.options());
  AT_DISPATCH_FLOATING_TYPES_AND2(at::kHalf, at::kBFloat16, value.scalar_type(), "im2col_forward", [&] {
    using sum_t = at::opmath_type<scalar_t>;
    forward_kernel<scalar_t, sum_t><<<blocks(s), threads, 0, c10::cuda::getCurrentCUDAStream()>>>(
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
  at::Tensor grad_locations = at::zeros(locations.sizes(), sums), grad_weights = at::zeros(weights.sizes(), sums);
  AT_DISPATCH_FLOATING_TYPES_AND2(at::kHalf, at::kBFloat16, value.scalar_type(), "im2col_backward", [&] {
    using sum_t = at::opmath_type<scalar_t>;
    backward_kernel<scalar_t, sum_t><<<blocks(s), threads, 0, c10::cuda::getCurrentCUDAStream()>>>(
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
