// The classic way to compute multi-scale deformable attention on a GPU, as a yardstick for benchmark.py: one thread per
// output channel, each working out every sample for itself, with 32-bit indices. In the backward pass a block serves
// one head of one query, a thread per channel: atomic additions for the value, a tree of sums in shared memory for
// locations and weights.
#pragma once
#include <cstdint>

namespace im2col {

struct Sizes {
  int batch, pixels, heads, channels, queries, levels, points;
};

// Calls visit(element offset of the pixel in value, dx, dy, side of x, side of y) for the corners inside the map.
template <class T, class F>
__device__ void corners(const Sizes& s, int height, int width, int first, int c, T x, T y, F visit) {
  x = x * T(width) - T(0.5);
  y = y * T(height) - T(0.5);
  if (!(x > T(-1) && y > T(-1) && x < T(width) && y < T(height))) return;
  const int x0 = int(floor(x)), y0 = int(floor(y));
  for (int k = 0; k < 4; ++k) {
    const int column = x0 + (k & 1), row = y0 + (k >> 1);
    if (column < 0 || row < 0 || column >= width || row >= height) continue;
    visit((first + row * width + column) * s.heads * s.channels + c, x - T(x0), y - T(y0), k & 1, k >> 1);
  }
}

// V: storage, T: arithmetic.
template <class V, class T>
__global__ void forward_kernel(Sizes s, const V* value, const int64_t* shapes, const int64_t* starts,
                               const V* locations, const V* weights, V* output) {
  const int index = blockIdx.x * blockDim.x + threadIdx.x;
  if (index >= s.batch * s.queries * s.heads * s.channels) return;
  const int c = index % s.channels, item = index / s.channels, m = item % s.heads, n = item / s.heads / s.queries;
  const V* image = value + n * s.pixels * s.heads * s.channels;
  int sample = item * s.levels * s.points;
  T sum = 0;
  for (int level = 0; level < s.levels; ++level) {
    const int height = int(shapes[2 * level]), width = int(shapes[2 * level + 1]), first = int(starts[level]);
    for (int p = 0; p < s.points; ++p, ++sample) {
      T read = 0;
      corners<T>(s, height, width, first, m * s.channels + c, T(locations[2 * sample]), T(locations[2 * sample + 1]),
                 [&](int at, T dx, T dy, int right, int low) {
                   read += (right ? dx : 1 - dx) * (low ? dy : 1 - dy) * T(image[at]);
                 });
      sum += T(weights[sample]) * read;
    }
  }
  output[index] = V(sum);
}

// A block for each (image, query, head), of a power of two of threads, at least one for each channel.
template <class V, class T>
__global__ void backward_kernel(Sizes s, const V* grad, const V* value, const int64_t* shapes, const int64_t* starts,
                                const V* locations, const V* weights, T* grad_value, T* grad_locations,
                                T* grad_weights) {
  MSDA_SHARED(memory);
  T* const parts = reinterpret_cast<T*>(memory);  // the terms of weight, x and y of each thread
  const unsigned c = threadIdx.x;
  const int item = blockIdx.x, m = item % s.heads, n = item / s.heads / s.queries;
  const bool active = c < unsigned(s.channels);
  const int image = n * s.pixels * s.heads * s.channels;
  const T g = active ? T(grad[item * s.channels + c]) : T(0);
  int sample = item * s.levels * s.points;
  for (int level = 0; level < s.levels; ++level) {
    const int height = int(shapes[2 * level]), width = int(shapes[2 * level + 1]), first = int(starts[level]);
    for (int p = 0; p < s.points; ++p, ++sample) {
      const T weight = T(weights[sample]);
      T of_weight = 0, of_x = 0, of_y = 0;
      if (active)
        corners<T>(s, height, width, first, m * s.channels + c, T(locations[2 * sample]), T(locations[2 * sample + 1]),
                   [&](int at, T dx, T dy, int right, int low) {
                     const T px = right ? dx : 1 - dx, py = low ? dy : 1 - dy, v = T(value[image + at]);
                     of_weight += px * py * v;
                     of_x += (right ? py : -py) * v;
                     of_y += (low ? px : -px) * v;
                     atomicAdd(grad_value + image + at, weight * px * py * g);
                   });
      parts[c] = g * of_weight;
      parts[blockDim.x + c] = g * weight * T(width) * of_x;
      parts[2 * blockDim.x + c] = g * weight * T(height) * of_y;
      for (unsigned half = blockDim.x / 2; half > 0; half /= 2) {
        __syncthreads();
        if (c < half)
          for (unsigned k = 0; k < 3 * blockDim.x; k += blockDim.x) parts[k + c] += parts[k + c + half];
      }
      if (c == 0) {
        grad_weights[sample] = parts[0];
        grad_locations[2 * sample] = parts[blockDim.x];
        grad_locations[2 * sample + 1] = parts[2 * blockDim.x];
      }
      __syncthreads();
    }
  }
}

}  // namespace im2col
