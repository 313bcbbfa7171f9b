// Multi-scale deformable attention on the GPU, forward and backward. Needs no PyTorch header, and runs on a CPU too,
// thread by thread, when a test includes it after definitions of CUDA's words (threadIdx, __syncthreads,
// __shfl_xor_sync, ...).
//
// A block serves one head of one image and a run of neighbouring queries, which read neighbouring pixels. It works in
// two steps with a barrier between them. Planning: one thread per sample computes where its four pixels lie and what
// they weigh (attention weight included) and leaves that in shared memory. Gathering: `lanes` threads serve a query,
// each VEC channels of it, and read the plan and 16 bytes per pixel. So nothing is computed once per channel.
#pragma once
#include <cstdint>

namespace pading_msda {

// ---- storage types

struct half_bits {
  uint16_t bits;
};
struct bfloat_bits {
  uint16_t bits;
};

__device__ inline float to_sum(float v) { return v; }
__device__ inline double to_sum(double v) { return v; }
__device__ inline float to_sum(bfloat_bits v) { return __uint_as_float(uint32_t(v.bits) << 16); }
__device__ inline float to_sum(half_bits v) { return __half2float(__ushort_as_half(v.bits)); }

__device__ inline void from_sum(float v, float& to) { to = v; }
__device__ inline void from_sum(double v, double& to) { to = v; }
__device__ inline void from_sum(float v, half_bits& to) { to.bits = __half_as_ushort(__float2half_rn(v)); }
__device__ inline void from_sum(float v, bfloat_bits& to) {
  const uint32_t bits = __float_as_uint(v);
  to.bits = v != v ? uint16_t(0x7fc0) : uint16_t((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

template <class V>
struct SumOf {
  using type = float;
};
template <>
struct SumOf<double> {
  using type = double;
};

// VEC numbers that are read and written at once.
template <class V, int VEC>
struct alignas(VEC * sizeof(V)) Pack {
  V at[VEC];
};

// ---- sizes

struct Sizes {
  int64_t batch, pixels, queries;
  int heads, channels, levels, points;
  int lanes;      // threads per query, a power of two up to 32
  int chunk;      // samples planned at a time
  __host__ __device__ int samples() const { return levels * points; }
  __host__ __device__ int slot() const { return chunk | 1; }  // odd: queries of a warp meet different banks
};

constexpr int max_levels = 16;

// Height, width and first pixel of each level: by value, or where only the device knows them.
struct Levels {
  int64_t table[3 * max_levels];
  const int64_t* on_device;
  __device__ int64_t operator()(int level, int what) const {
    return on_device ? on_device[3 * level + what] : table[3 * level + what];
  }
};

// ---- the plan

template <class A>
struct alignas(16) Corners {  // upper left, upper right, lower left, lower right
  int place[4];               // element offset in the image, of channel 0 of this head; -1: nothing there
  A weight[4];
};

template <class A>
struct alignas(16) Slope {  // what the backward pass needs besides
  A fx, fy, x, y;           // position in the cell; attention weight times width and height
};

template <class A>
__device__ inline void plan_sample(const Sizes& s, const Levels& levels, int head, A x, A y, A attention, int level,
                                   Corners<A>& corners, Slope<A>* slope) {
  const int height = int(levels(level, 0)), width = int(levels(level, 1)), first = int(levels(level, 2));
  x = x * A(width) - A(0.5);
  y = y * A(height) - A(0.5);
  // Written so that NaN fails: such a sample reads nothing, like one that lies far outside.
  const bool touches = x > A(-1) && y > A(-1) && x < A(width) && y < A(height);
  x = touches ? x : A(-2);
  y = touches ? y : A(-2);
  const A left = floor(x), top = floor(y);
  const A fx = x - left, fy = y - top;
  const int x0 = int(left), y0 = int(top), stride = s.heads * s.channels;
  for (int k = 0; k < 4; ++k) {
    const int cx = x0 + (k & 1), cy = y0 + (k >> 1);
    const int64_t pixel = first + int64_t(cy) * width + cx;
    // A table on the device cannot be checked beforehand; a wrong one must not lead out of the value.
    const bool in = cx >= 0 && cy >= 0 && cx < width && cy < height && pixel >= 0 && pixel < s.pixels;
    corners.place[k] = in ? int(pixel) * stride + head * s.channels : -1;
    corners.weight[k] = attention * (k & 1 ? fx : A(1) - fx) * (k >> 1 ? fy : A(1) - fy);
  }
  if (slope) *slope = Slope<A>{fx, fy, attention * A(width), attention * A(height)};
}

// Which queries and which head a block serves.
struct Place {
  int64_t image, query;  // first query
  int head;
  // The place of the i-th query in arrays (batch, queries, heads).
  __device__ int64_t item(const Sizes& s, int i) const { return ((image * s.queries + query + i) * s.heads) + head; }
};
__device__ inline Place place_of_block(const Sizes& s, int queries_per_block) {
  const int64_t runs = (s.queries + queries_per_block - 1) / queries_per_block;
  const int64_t block = blockIdx.x;
  const int64_t run = block / s.heads;
  return {run / runs, run % runs * queries_per_block, int(block % s.heads)};
}

// Plan samples [begin, begin + count) of all queries of the block.
template <class A>
__device__ inline void plan_block(const Sizes& s, const Levels& levels, const Place& place, int queries_per_block,
                                  int begin, int count, const A* locations, const A* weights, Corners<A>* corners,
                                  Slope<A>* slopes) {
  for (int i = threadIdx.x; i < queries_per_block * count; i += blockDim.x) {
    const int query = i / count, j = i % count;
    if (place.query + query >= s.queries) continue;
    const int64_t sample = place.item(s, query) * s.samples() + begin + j;
    const Pack<A, 2> xy = *reinterpret_cast<const Pack<A, 2>*>(locations + 2 * sample);
    const int slot = query * s.slot() + j;
    plan_sample<A>(s, levels, place.head, xy.at[0], xy.at[1], weights[sample], (begin + j) / s.points, corners[slot],
                   slopes ? slopes + slot : nullptr);
  }
}

// ---- forward

template <class V, int VEC>
__global__ void __launch_bounds__(256)
    forward_kernel(Sizes s, Levels levels, const V* __restrict__ value,
                   const typename SumOf<V>::type* __restrict__ locations,
                   const typename SumOf<V>::type* __restrict__ weights, V* __restrict__ output) {
  using A = typename SumOf<V>::type;
  MSDA_SHARED(memory);
  Corners<A>* corners = reinterpret_cast<Corners<A>*>(memory);
  const int per_block = blockDim.x / s.lanes, query = threadIdx.x / s.lanes, lane = threadIdx.x % s.lanes;
  const Place place = place_of_block(s, per_block);
  const bool active = place.query + query < s.queries;
  const V* image = value + place.image * s.pixels * s.heads * s.channels;
  const int tile = s.lanes * VEC;
  for (int first = 0; first < s.channels; first += tile) {
    const int channel = first + lane * VEC;
    A sum[VEC] = {};
    for (int begin = 0; begin < s.samples(); begin += s.chunk) {
      const int count = s.samples() - begin < s.chunk ? s.samples() - begin : s.chunk;
      if (first == 0 || s.samples() > s.chunk) {
        __syncthreads();  // the plan before this one has been read
        plan_block<A>(s, levels, place, per_block, begin, count, locations, weights, corners, nullptr);
        __syncthreads();
      }
      if (!active || channel >= s.channels) continue;
#pragma unroll 2
      for (int j = 0; j < count; ++j) {
        const Corners<A> c = corners[query * s.slot() + j];
        Pack<V, VEC> pixel[4];
#pragma unroll
        for (int k = 0; k < 4; ++k)
          if (c.place[k] >= 0) pixel[k] = *reinterpret_cast<const Pack<V, VEC>*>(image + c.place[k] + channel);
#pragma unroll
        for (int k = 0; k < 4; ++k)
          if (c.place[k] >= 0)
#pragma unroll
            for (int i = 0; i < VEC; ++i) sum[i] += c.weight[k] * to_sum(pixel[k].at[i]);
      }
    }
    if (!active || channel >= s.channels) continue;
    Pack<V, VEC> out;
#pragma unroll
    for (int i = 0; i < VEC; ++i) from_sum(sum[i], out.at[i]);
    const int64_t at = place.item(s, query) * s.channels + channel;
    *reinterpret_cast<Pack<V, VEC>*>(output + at) = out;
  }
}

// ---- backward

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

// Sum over the lanes of a query; all of them get it.
template <class A>
__device__ inline A sum_lanes(A v, int lanes) {
  for (int step = lanes / 2; step > 0; step /= 2) v += __shfl_xor_sync(0xffffffffu, v, step);
  return v;
}

// grad_value (sums type) must be zero beforehand; it is added to. The gradients of locations and weights are written.
template <class V, int VEC>
__global__ void __launch_bounds__(256)
    backward_kernel(Sizes s, Levels levels, const V* __restrict__ grad_output, const V* __restrict__ value,
                    const typename SumOf<V>::type* __restrict__ locations,
                    const typename SumOf<V>::type* __restrict__ weights,
                    typename SumOf<V>::type* __restrict__ grad_value,
                    typename SumOf<V>::type* __restrict__ grad_locations,
                    typename SumOf<V>::type* __restrict__ grad_weights) {
  using A = typename SumOf<V>::type;
  MSDA_SHARED(memory);
  const int per_block = blockDim.x / s.lanes, query = threadIdx.x / s.lanes, lane = threadIdx.x % s.lanes;
  Corners<A>* corners = reinterpret_cast<Corners<A>*>(memory);
  Slope<A>* slopes = reinterpret_cast<Slope<A>*>(corners + per_block * s.slot());
  const Place place = place_of_block(s, per_block);
  const bool active = place.query + query < s.queries;
  const int64_t image = place.image * s.pixels * s.heads * s.channels;
  const int64_t out = place.item(s, query) * s.channels;
  const int tile = s.lanes * VEC;
  for (int begin = 0; begin < s.samples(); begin += s.chunk) {
    const int count = s.samples() - begin < s.chunk ? s.samples() - begin : s.chunk;
    __syncthreads();  // the plan before this one has been read
    plan_block<A>(s, levels, place, per_block, begin, count, locations, weights, corners, slopes);
    __syncthreads();
    for (int j = 0; j < count; ++j) {
      const int slot = query * s.slot() + j;
      A dot[4] = {};  // grad_output times the value at each corner
      Corners<A> c;
      if (active) c = corners[slot];
      for (int channel = lane * VEC; active && channel < s.channels; channel += tile) {
        const Pack<V, VEC> packed = *reinterpret_cast<const Pack<V, VEC>*>(grad_output + out + channel);
        A g[VEC];
#pragma unroll
        for (int i = 0; i < VEC; ++i) g[i] = to_sum(packed.at[i]);
        Pack<V, VEC> pixel[4];
#pragma unroll
        for (int k = 0; k < 4; ++k)
          if (c.place[k] >= 0) pixel[k] = *reinterpret_cast<const Pack<V, VEC>*>(value + image + c.place[k] + channel);
#pragma unroll
        for (int k = 0; k < 4; ++k) {
          if (c.place[k] < 0) continue;
          A add[VEC];
#pragma unroll
          for (int i = 0; i < VEC; ++i) {
            dot[k] += g[i] * to_sum(pixel[k].at[i]);
            add[i] = c.weight[k] * g[i];
          }
          add_global<A, VEC>(grad_value + image + c.place[k] + channel, add);
        }
      }
      const Slope<A> slope = active ? slopes[slot] : Slope<A>{};
      const A along_top = dot[1] - dot[0], along_bottom = dot[3] - dot[2];
      const A top = dot[0] + slope.fx * along_top, bottom = dot[2] + slope.fx * along_bottom;
      const A by_weight = sum_lanes(top + slope.fy * (bottom - top), s.lanes);
      const A by_x = sum_lanes(slope.x * (along_top + slope.fy * (along_bottom - along_top)), s.lanes);
      const A by_y = sum_lanes(slope.y * (bottom - top), s.lanes);
      if (active && lane == 0) slopes[slot] = Slope<A>{by_x, by_y, by_weight, A(0)};
      // The others of this query have read the slope: the shuffles came between.
    }
    __syncthreads();
    for (int i = threadIdx.x; i < per_block * count; i += blockDim.x) {
      const int q = i / count, j = i % count;
      if (place.query + q >= s.queries) continue;
      const int64_t sample = place.item(s, q) * s.samples() + begin + j;
      const Slope<A> result = slopes[q * s.slot() + j];
      Pack<A, 2> xy;
      xy.at[0] = result.fx;
      xy.at[1] = result.fy;
      *reinterpret_cast<Pack<A, 2>*>(grad_locations + 2 * sample) = xy;
      grad_weights[sample] = result.x;
    }
  }
}

// ---- how to launch them

struct Launch {
  int64_t blocks;
  int threads;
  int shared_bytes;
};

// Fills in lanes and chunk of `s` for packs of `vec` channels.
template <class A>
__host__ inline Launch plan_launch(Sizes& s, int vec, bool backward, int threads = 256) {
  s.lanes = 1;
  while (s.lanes < 32 && s.lanes * vec < s.channels) s.lanes *= 2;
  s.chunk = s.samples() < 16 ? s.samples() : 16;
  const int per_block = threads / s.lanes;
  const int64_t runs = (s.queries + per_block - 1) / per_block;
  const int bytes = int(sizeof(Corners<A>) + (backward ? sizeof(Slope<A>) : 0));
  // Small vectors of long lists would need more shared memory than every device has.
  while (per_block * s.slot() * bytes > 40 * 1024 && s.chunk > 1) s.chunk = s.chunk / 2;
  return {s.batch * s.heads * runs, threads, per_block * s.slot() * bytes};
}

}  // namespace pading_msda
