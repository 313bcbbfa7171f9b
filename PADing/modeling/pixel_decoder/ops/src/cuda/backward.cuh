// The gradients of the samples, and those of the pixels by one of two ways: added to by every sample with atomic
// operations, in no fixed order; or, if samples are to be sorted by their cell, left to collect.cuh.
#pragma once
#include "plan.cuh"

namespace pading_msda {

// What a pixel needs to know of a sample in one of its cells.
template <class A>
struct alignas(4 * sizeof(A)) Sample {
  A fx, fy, attention;
  int item;  // its (image, query, head)
};

template <class A>
struct Sorting {
  int* keys;           // of each sample: its cell, or the number of cells if it touches no pixel; null: do not sort
  Sample<A>* samples;
};

// Cells of different levels, heads and images have different numbers: (h + 1)(w + 1) <= 4 h w.
__device__ inline int first_cell(const Sizes& s, int image, int head, const Level& level) {
  return 4 * ((image * s.heads + head) * s.pixels + level.first);
}

// Add N neighbouring numbers to global memory, in as few transactions as the machine allows.
template <class A, int N>
__device__ inline void add_global(A* to, const A (&what)[N]) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900 && __CUDACC_VER_MAJOR__ * 100 + __CUDACC_VER_MINOR__ >= 1201
  constexpr bool has_vector_atomics = true;
#else
  constexpr bool has_vector_atomics = false;
#endif
  if constexpr (has_vector_atomics && sizeof(A) == 4 && N % 4 == 0) {
#pragma unroll
    for (int i = 0; i < N; i += 4)
      atomicAdd(reinterpret_cast<float4*>(to + i), make_float4(what[i], what[i + 1], what[i + 2], what[i + 3]));
  } else {
#pragma unroll
    for (int i = 0; i < N; ++i) atomicAdd(to + i, what[i]);
  }
}

// Sum four numbers over the lanes of a query, at least 4 of them: lane l gets the sum of number l % 4. One shuffle for
// each halving of what there is to send.
template <class A>
__device__ inline A sum_four(const A (&v)[4], int lane, int lanes) {
  const bool odd = lane & 1, upper = lane & 2;
  A first = odd ? v[1] : v[0], second = odd ? v[3] : v[2];
  first += __shfl_xor_sync(whole_warp, odd ? v[0] : v[1], 1);
  second += __shfl_xor_sync(whole_warp, odd ? v[2] : v[3], 1);
  A sum = upper ? second : first;
  sum += __shfl_xor_sync(whole_warp, upper ? first : second, 2);
  for (int step = 4; step < lanes; step *= 2) sum += __shfl_xor_sync(whole_warp, sum, step);
  return sum;
}

// grad_output times the value at each corner of a sample.
template <class A>
struct alignas(16) Dots {
  A at[4];
};

// Derivatives of the output, times its gradient, by what a sample was made of: by attention weight, and by position in
// pixels without the attention weight as a factor.
template <class A>
struct Slope {
  A of_attention, of_x, of_y;
};

template <class A>
struct GivenGradients {
  A* locations;
  A* weights;
  static constexpr bool keeps = false;
  __device__ void put(int64_t sample, const Level& level, A attention, const Slope<A>& slope, A*, A&) const {
    const A xy[2] = {attention * A(level.width) * slope.of_x, attention * A(level.height) * slope.of_y};
    write(locations + 2 * sample, xy);
    weights[sample] = slope.of_attention;
  }
  __device__ void finish(const Sizes&, const Given<A>&, const typename Given<A>::Row&, const Place&, const A*,
                         A) const {}
};

template <class V>
struct ProjectedGradients {
  using A = typename SumOf<V>::type;
  V* offsets;
  V* scores;
  static constexpr bool keeps = true;
  // `kept`: this sample's term of the sum over samples that the softmax needs.
  __device__ void put(int64_t sample, const Level&, A attention, const Slope<A>& slope, A* kept, A& total) const {
    const A xy[2] = {attention * slope.of_x, attention * slope.of_y};
    write(offsets + 2 * sample, xy);
    *kept = attention * slope.of_attention;
    total += *kept;
  }
  // All lanes of a warp must call it.
  __device__ void finish(const Sizes& s, const Projected<V>& source, const typename Projected<V>::Row& row,
                         const Place& me, const A* kept, A total) const {
    total = sum_lanes(total, s.lanes);
    for (int j = me.lane; me.active && j < s.samples(); j += s.lanes) {
      const int64_t sample = me.item * s.samples() + j;
      from_sum(kept[j] - source.attention(row, sample) * total, scores[sample]);
    }
  }
};

// grad_value (in the sums' type) must be zero beforehand; it is added to, and null if samples are to be sorted.
template <class V, int VEC, class Source, class Gradients>
__global__ void __launch_bounds__(most_threads, 3)
    backward_kernel(Sizes s, Levels levels, Source source, const V* __restrict__ grad_output,
                    const V* __restrict__ value, typename SumOf<V>::type* __restrict__ grad_value,
                    Sorting<typename SumOf<V>::type> sorting, Gradients gradients) {
  using A = typename SumOf<V>::type;
  MSDA_SHARED(memory);
  const Place me = place_of_thread(s, s.queries);
  const int queries = int(blockDim.x) / s.lanes, stride = s.lanes + 1;
  Corners<A>* const plans = reinterpret_cast<Corners<A>*>(memory) + me.slot * stride;
  Dots<A>* const all_dots = reinterpret_cast<Dots<A>*>(reinterpret_cast<Corners<A>*>(memory) + queries * stride);
  Dots<A>* const dots = all_dots + me.slot * stride;
  A* const kept = reinterpret_cast<A*>(all_dots + queries * stride) + me.slot * s.samples();
  const int64_t first_sample = me.item * s.samples();
  const auto row = source.row(s, me.image, me.query, first_sample, me.lane);
  const int64_t image = int64_t(me.image) * s.pixels * s.heads * s.channels;
  const V* const from_image = opaque(value + image);
  A* const to_image = grad_value ? grad_value + image : nullptr;
  const V* const grad = grad_output + me.item * s.channels;
  const int tile = s.lanes * VEC, first_channel = me.lane * VEC;
  Words<V, VEC> g = read_if<V, VEC>(me.active && first_channel < s.channels, grad + first_channel);
  A total = 0;
  for (int begin = 0; begin < s.samples(); begin += s.lanes) {
    const int j = begin + me.lane, count = min(s.samples() - begin, s.lanes);
    const bool planned = me.active && j < s.samples();
    Corners<A> plan;
    Level level{};
    A attention = 0, fx = 0, fy = 0;
    for (int k = 0; k < 4; ++k) plan.place[k] = -1, plan.weight[k] = A(0);
    if (planned) {
      const int l = s.level_of(j);
      level = levels(l, s.pixels);
      const Position<A> p = source.position(s, row, first_sample + j, l, level);
      const Cell<A> cell = cell_of(p, level);
      plan = corners_of(s, level, me.head, cell, p.attention);
      attention = p.attention, fx = cell.fx, fy = cell.fy;
      if (sorting.keys) {
        const int number = (cell.row + 1) * (level.width + 1) + cell.column + 1;
        const int none = 4 * s.batch * s.heads * s.pixels;
        sorting.keys[first_sample + j] = cell.touches ? first_cell(s, me.image, me.head, level) + number : none;
        sorting.samples[first_sample + j] = Sample<A>{fx, fy, attention, int(me.item)};
      }
    }
    __syncwarp();  // the round before has been read
    plans[me.lane] = plan;
    __syncwarp();
    for (int i = 0; i < count; ++i) {
      const Corners<A> c = plans[i];
      A dot[4] = {};
      for (int channel = first_channel; channel < s.channels; channel += tile) {
        if (s.channels > tile) g = read_if<V, VEC>(me.active, grad + channel);
        Words<V, VEC> pixel[4];
#pragma unroll
        for (int k = 0; k < 4; ++k) pixel[k] = read_if<V, VEC>(c.place[k] >= 0, from_image + (c.place[k] + channel));
#pragma unroll
        for (int k = 0; k < 4; ++k) {
#pragma unroll
          for (int n = 0; n < VEC; ++n) dot[k] += g[n] * pixel[k][n];
          if (to_image && c.place[k] >= 0) {
            A add[VEC];
#pragma unroll
            for (int n = 0; n < VEC; ++n) add[n] = c.weight[k] * g[n];
            add_global<A, VEC>(to_image + (c.place[k] + channel), add);
          }
        }
      }
      const A sum = sum_four(dot, me.lane, s.lanes);
      if (me.lane < 4) dots[i].at[me.lane] = sum;
    }
    __syncwarp();
    if (planned) {
      const Dots<A> dot = dots[me.lane];
      const A along_top = dot.at[1] - dot.at[0], along_bottom = dot.at[3] - dot.at[2];
      const A top = dot.at[0] + fx * along_top, bottom = dot.at[2] + fx * along_bottom;
      const Slope<A> slope{top + fy * (bottom - top), along_top + fy * (along_bottom - along_top), bottom - top};
      gradients.put(first_sample + j, level, attention, slope, kept + j, total);
    }
  }
  gradients.finish(s, source, row, me, kept, total);
}

template <class V, class Gradients>
__host__ inline Launch backward_launch(Sizes& s, int vec, int threads = most_threads) {
  using A = typename SumOf<V>::type;
  const int of_query = Gradients::keeps ? s.samples() * int(sizeof(A)) : 0;
  return plan_launch(s, s.queries, vec, sizeof(Corners<A>) + sizeof(Dots<A>), of_query, threads);
}

}  // namespace pading_msda
