// The gradient of the value, pixel by pixel: each sums, once and in a fixed order, what the samples in the four cells
// around it send. The samples are sorted by cell beforehand.
#pragma once
#include "backward.cuh"

namespace pading_msda {

// starts: of each cell the first of its samples in `order`, and at the end the number of samples that touch a pixel.
template <class V, int VEC>
__global__ void __launch_bounds__(most_threads, 4)
    collect_kernel(Sizes s, Levels levels, const int* __restrict__ starts, const int64_t* __restrict__ order,
                   const Sample<typename SumOf<V>::type>* __restrict__ samples, const V* __restrict__ grad_output,
                   V* __restrict__ grad_value) {
  using A = typename SumOf<V>::type;
  const Place me = place_of_thread(s, s.pixels);
  if (!me.active) return;
  for (int channel = me.lane * VEC; channel < s.channels; channel += s.lanes * VEC) {
    A sum[VEC] = {};
    for (int l = 0; l < s.levels; ++l) {
      const Level level = levels(l, s.pixels);
      const int pixel = me.query - level.first;
      if (pixel < 0 || pixel >= level.height * level.width) continue;
      const int y = pixel / level.width, x = pixel - y * level.width;
      for (int k = 0; k < 4; ++k) {  // the pixel is corner k of the cell
        const int number = (y + 1 - (k >> 1)) * (level.width + 1) + x + 1 - (k & 1);
        const int cell = first_cell(s, me.image, me.head, level) + number, end = starts[cell + 1];
#pragma unroll 4
        for (int i = starts[cell]; i < end; ++i) {
          const Sample<A> sample = samples[order[i]];
          const A weight = sample.attention * (k >> 1 ? sample.fy : A(1) - sample.fy) *
                           (k & 1 ? sample.fx : A(1) - sample.fx);
          const V* const from = grad_output + int64_t(sample.item) * s.channels + channel;
          const Words<V, VEC> g = read<V, VEC>(from);
#pragma unroll
          for (int n = 0; n < VEC; ++n) sum[n] += weight * g[n];
        }
      }
    }
    write(grad_value + me.item * s.channels + channel, sum);
  }
}

template <class V>
__host__ inline Launch collect_launch(Sizes& s, int vec, int threads = most_threads) {
  return plan_launch(s, s.pixels, vec, 0, 0, threads);
}

}  // namespace pading_msda
