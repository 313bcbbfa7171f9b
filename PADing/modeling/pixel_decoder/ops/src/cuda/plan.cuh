// Where the samples of a query lie, and what their pixels weigh.
//
// A block serves one head of one image and a run of neighbouring queries, which read neighbouring pixels. `lanes`
// threads of one warp serve a query, and go through its samples in rounds of `lanes`. In a round each of them plans one
// sample and leaves the plan in shared memory; then all read all plans of the round, each for its own channels. So
// nothing is computed once per channel, and a warp waits for no other.
#pragma once
#include "storage.cuh"

namespace pading_msda {

constexpr int max_levels = 16;
constexpr int most_threads = 256;
constexpr unsigned whole_warp = 0xffffffffu;

struct Sizes {
  int batch, pixels, queries, heads, channels, levels, points;
  int lanes;              // threads per query: 4, 8, 16 or 32
  uint32_t per_point;     // 2^31 / points, rounded up: division by `points`
  __host__ __device__ int samples() const { return levels * points; }
  // sample / points, exact while sample * points < 2^31.
  __device__ int level_of(int sample) const { return int((uint64_t(2u * sample) * per_point) >> 32); }
};

struct Level {
  int height, width, first;
};

// Height, width and first pixel of each level: by value, or where only the device knows them.
struct Levels {
  int table[3 * max_levels];
  const int64_t* on_device;
  __device__ Level operator()(int level, int pixels) const {
    if (!on_device) return {table[3 * level], table[3 * level + 1], table[3 * level + 2]};
    const int64_t h = on_device[3 * level], w = on_device[3 * level + 1], first = on_device[3 * level + 2];
    // A table on the device cannot be checked beforehand; a wrong one must not lead out of the value.
    const bool fits = h > 0 && w > 0 && first >= 0 && h <= pixels && w <= pixels && first <= pixels - h * w;
    return fits ? Level{int(h), int(w), int(first)} : Level{0, 0, 0};
  }
};

// ---- where samples come from: position in pixels, from the centre of the first one, and attention weight

template <class A>
struct Position {
  A x, y, attention;
};

// Normalised locations (N, Lq, M, L, P, 2) and attention weights (N, Lq, M, L, P).
template <class A>
struct Given {
  const A* locations;
  const A* weights;
  bool pairs;  // locations may be read two at a time

  struct Row {};  // what the samples of a query have in common
  __device__ Row row(const Sizes&, int, int, int64_t, int) const { return {}; }
  __device__ Position<A> position(const Sizes&, const Row&, int64_t sample, int, const Level& level) const {
    Position<A> p;
    read_pair(locations + 2 * sample, pairs, p.x, p.y);
    p.x = p.x * A(level.width) - A(0.5);
    p.y = p.y * A(level.height) - A(0.5);
    p.attention = weights[sample];
    return p;
  }
};

// Sum, or maximum, over the lanes of a query; all of them get it.
template <class A>
__device__ inline A sum_lanes(A v, int lanes) {
  for (int step = lanes / 2; step > 0; step /= 2) v += __shfl_xor_sync(whole_warp, v, step);
  return v;
}
template <class A>
__device__ inline A max_lanes(A v, int lanes) {
  for (int step = lanes / 2; step > 0; step /= 2) v = fmax(v, __shfl_xor_sync(whole_warp, v, step));
  return v;
}

// Projections of the queries: offsets in pixels (N, Lq, M, L, P, 2) from reference points in [0, 1], and scores
// (N, Lq, M, L, P), whose softmax over levels and points are the attention weights.
template <class V>
struct Projected {
  using A = typename SumOf<V>::type;
  const V* offsets;
  const V* scores;
  const A* reference;  // (N, Lq, L, 2), with any strides but the last, which is 1
  int64_t of_image, of_query, of_level;
  bool pairs, reference_pairs;

  struct Row {
    const A* reference;
    A largest, scale;
  };
  // `first`: the first sample. All lanes of a warp must call it; `active`: whether the query is there.
  __device__ Row row(const Sizes& s, int image, int query, int64_t first, int lane) const {
    const bool active = query < s.queries;
    A largest = -INFINITY, sum = 0;
    for (int j = lane; active && j < s.samples(); j += s.lanes) largest = fmax(largest, A(to_sum(scores[first + j])));
    largest = max_lanes(largest, s.lanes);
    for (int j = lane; active && j < s.samples(); j += s.lanes) sum += exp(A(to_sum(scores[first + j])) - largest);
    sum = sum_lanes(sum, s.lanes);
    return {reference + image * of_image + query * of_query, largest, A(1) / sum};
  }
  __device__ A attention(const Row& row, int64_t sample) const {
    return exp(A(to_sum(scores[sample])) - row.largest) * row.scale;
  }
  __device__ Position<A> position(const Sizes&, const Row& row, int64_t sample, int level, const Level& map) const {
    Position<A> p;
    A dx, dy;
    read_pair(row.reference + level * of_level, reference_pairs, p.x, p.y);
    read_pair(offsets + 2 * sample, pairs, dx, dy);
    p.x = p.x * A(map.width) + (dx - A(0.5));
    p.y = p.y * A(map.height) + (dy - A(0.5));
    p.attention = attention(row, sample);
    return p;
  }
};

// ---- the plan of a sample

template <class A>
struct alignas(16) Corners {  // upper left, upper right, lower left, lower right
  int place[4];               // element offset in the image, of channel 0 of this head; -1: nothing there
  A weight[4];
};

// The cell between four pixel centres that a sample lies in.
template <class A>
struct Cell {
  int column, row;  // of its upper left pixel, from -1 on
  A fx, fy;         // position in the cell
  bool touches;     // whether one of the pixels is in the map
};

template <class A>
__device__ inline Cell<A> cell_of(const Position<A>& p, const Level& level) {
  // Written so that NaN fails: such a sample reads nothing, like one that lies far outside.
  const bool inside = p.x > A(-1) && p.y > A(-1) && p.x < A(level.width) && p.y < A(level.height);
  const bool touches = inside && level.height > 0 && level.width > 0;
  const A x = touches ? p.x : A(0), y = touches ? p.y : A(0), left = floor(x), top = floor(y);
  return {int(left), int(top), x - left, y - top, touches};
}

template <class A>
__device__ inline Corners<A> corners_of(const Sizes& s, const Level& level, int head, const Cell<A>& cell,
                                        A attention) {
  const int stride = s.heads * s.channels;
  // Unsigned, because the place of a pixel outside, which is not used, may not fit.
  const unsigned at = unsigned(level.first) + unsigned(cell.row) * unsigned(level.width) + unsigned(cell.column);
  const unsigned first = at * unsigned(stride) + unsigned(head * s.channels);
  const unsigned below = unsigned(level.width) * unsigned(stride);
  const bool left = cell.touches && cell.column >= 0, right = cell.touches && cell.column + 1 < level.width;
  const bool top = cell.row >= 0, bottom = cell.row + 1 < level.height;
  const A upper = attention * (A(1) - cell.fy), lower = attention * cell.fy;
  Corners<A> c;
  c.place[0] = left && top ? int(first) : -1;
  c.place[1] = right && top ? int(first + stride) : -1;
  c.place[2] = left && bottom ? int(first + below) : -1;
  c.place[3] = right && bottom ? int(first + below + stride) : -1;
  // Weights of pixels outside are 0 even if the attention is not a number.
  c.weight[0] = left && top ? upper * (A(1) - cell.fx) : A(0);
  c.weight[1] = right && top ? upper * cell.fx : A(0);
  c.weight[2] = left && bottom ? lower * (A(1) - cell.fx) : A(0);
  c.weight[3] = right && bottom ? lower * cell.fx : A(0);
  return c;
}

// ---- who serves what

struct Place {
  int image, head, query;  // the query of this thread, which may lie beyond the last one
  int slot, lane;          // the query's number in the block; the thread's number in the query
  bool active;
  int64_t item;            // place of the query in arrays (N, Lq, M)
};
__device__ inline Place place_of_thread(const Sizes& s, int count) {
  Place p;
  // `lanes` is a power of two; a division takes 20 instructions.
  const int bits = __ffs(s.lanes) - 1;
  p.slot = int(threadIdx.x) >> bits;
  p.lane = int(threadIdx.x) & (s.lanes - 1);
  p.image = int(blockIdx.z), p.head = int(blockIdx.y);
  p.query = int(blockIdx.x) * (int(blockDim.x) >> bits) + p.slot;
  p.active = p.query < count;
  p.item = (int64_t(p.image) * count + p.query) * s.heads + p.head;
  return p;
}

struct Launch {
  int64_t runs;      // blocks along x; along y the heads, along z the images
  int threads;
  int shared_bytes;
};

// Fills in what `s` has for division and lanes. `count`: queries, or what else `lanes` threads serve each.
// `bytes`: shared memory for each plan, and `of_query`: for each query besides.
__host__ inline Launch plan_launch(Sizes& s, int count, int vec, int bytes, int of_query, int threads = most_threads) {
  s.lanes = 4;
  while (s.lanes < 32 && s.lanes * vec < s.channels) s.lanes *= 2;
  s.per_point = uint32_t(((int64_t(1) << 31) + s.points - 1) / s.points);
  // Long lists of samples would need more shared memory than every device has.
  const auto shared = [&] { return threads / s.lanes * ((s.lanes + 1) * bytes + of_query); };
  while (shared() > 40 * 1024 && threads > 32) threads /= 2;
  const int per_block = threads / s.lanes;
  return {(int64_t(count) + per_block - 1) / per_block, threads, shared()};
}

}  // namespace pading_msda
