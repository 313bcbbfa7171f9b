#pragma once
#include "plan.cuh"

namespace pading_msda {

// Four blocks on a multiprocessor leave each thread 64 registers, enough to have the pixels of a sample and some of the
// next on their way. With fewer registers the compiler waits for one pixel before it asks for another.
template <class V, int VEC, class Source>
__global__ void __launch_bounds__(most_threads, 4)
    forward_kernel(Sizes s, Levels levels, Source source, const V* __restrict__ value, V* __restrict__ output) {
  using A = typename SumOf<V>::type;
  MSDA_SHARED(memory);
  const Place me = place_of_thread(s, s.queries);
  // One plan more than needed, so that queries of a warp meet different banks.
  Corners<A>* const plans = reinterpret_cast<Corners<A>*>(memory) + me.slot * (s.lanes + 1);
  const int64_t first_sample = me.item * s.samples();
  const auto row = source.row(s, me.image, me.query, first_sample, me.lane);
  const V* const image = value + int64_t(me.image) * s.pixels * s.heads * s.channels;
  const int tile = s.lanes * VEC;
  for (int first = 0; first < s.channels; first += tile) {
    const int channel = first + me.lane * VEC;
    const V* const from = opaque(image + channel);
    const bool mine = channel < s.channels;
    A sum[VEC] = {};
    for (int begin = 0; begin < s.samples(); begin += s.lanes) {
      const int j = begin + me.lane, count = min(s.samples() - begin, s.lanes);
      Corners<A> plan;
      if (me.active && j < s.samples()) {
        const int l = s.level_of(j);
        const Level level = levels(l, s.pixels);
        const Position<A> p = source.position(s, row, first_sample + j, l, level);
        plan = corners_of(s, level, me.head, cell_of(p, level), p.attention);
      } else {
        for (int k = 0; k < 4; ++k) plan.place[k] = -1, plan.weight[k] = A(0);
      }
      __syncwarp();  // the round before has been read
      plans[me.lane] = plan;
      __syncwarp();
#pragma unroll 2
      for (int i = 0; i < count; ++i) {
        const Corners<A> c = plans[i];
        Words<V, VEC> pixel[4];
#pragma unroll
        for (int k = 0; k < 4; ++k) pixel[k] = read_if<V, VEC>(mine && c.place[k] >= 0, from + c.place[k]);
#pragma unroll
        for (int k = 0; k < 4; ++k)
#pragma unroll
          for (int n = 0; n < VEC; ++n) sum[n] += c.weight[k] * pixel[k][n];
      }
    }
    if (me.active && mine) write(output + me.item * s.channels + channel, sum);
  }
}

template <class V>
__host__ inline Launch forward_launch(Sizes& s, int vec, int threads = most_threads) {
  return plan_launch(s, s.queries, vec, sizeof(Corners<typename SumOf<V>::type>), 0, threads);
}

}  // namespace pading_msda
