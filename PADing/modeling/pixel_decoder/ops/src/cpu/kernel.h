// Multi-scale deformable attention on the CPU, forward and backward. Compiled once per instruction set, inside that
// variant's namespace; MSDA_BYTES is the width of its registers. Includes nothing but its own parts: the functions of a
// shared header, compiled here for a wide machine, could be the copy that the linker keeps for all.
//
// The samples of a query are first turned into a plan: the place of the upper left of its four pixels and the weights
// of all four (attention weight included), a register full of samples at a time. The channels are then gathered in one
// pass over the plan: a load and a multiply-add per corner and register, without a branch, because the maps come with
// margins of zeros. Plans are made a few queries ahead, so that the gathering never waits for a plan just stored, and
// all four pixels of every sample are prefetched meanwhile: waiting for them would be most of the time.

#include "vector.h"

template <class T>
class Buffer {  // uninitialised, aligned for the widest register
 public:
  explicit Buffer(int64_t n) : data_(static_cast<T*>(::operator new(size_t(n) * sizeof(T) + 1, align))) {}
  ~Buffer() { ::operator delete(data_, align); }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  T* get() const { return data_; }
  T& operator[](int64_t i) const { return data_[i]; }

 private:
  static constexpr std::align_val_t align{64};
  T* data_;
};

// Few, because plans compete with pixels for the fastest cache; powers of two.
constexpr int64_t slots = 4;           // plans alive at a time
constexpr int64_t plan_ahead = 3;      // queries between planning and gathering, fewer than slots
constexpr int64_t prefetch_ahead = 3;  // queries between prefetching pixels and gathering, at most plan_ahead
constexpr int64_t stream_ahead = 12;   // queries between prefetching locations and planning

// Samples in registers of W lanes; several queries side by side in slots.
template <class A>
struct Plan {
  static constexpr int W = MSDA_BYTES / sizeof(A);

  int64_t slot_size;
  // by sample (level * points + point), constant over a call
  Buffer<A> width, height, wide, high;  // of the map, and the largest numbers not above width + 1 and height + 1
  Buffer<int32_t> first, outside, row;  // in cells: start of the map, where samples outside go, length of a row
  Buffer<int64_t> below;                // from a corner to the one below it, in elements
  // by slot and sample
  Buffer<A> weight;        // four corners of each sample, at corners(sample): upper left, right, lower left, right
  Buffer<int32_t> place;   // upper left corner in a head's cells, in elements
  Buffer<A> fx, fy;        // position inside the cell, for the backward pass
  int32_t channels;

  // Places count from the cell `origin` of a head.
  Plan(const Problem& p, int64_t origin) : Plan(p, origin, (p.levels * p.points + W - 1) / W * W) {}

  // Where the four numbers of a sample lie: what one register of each corner becomes by shuffles within 128 bits.
  static constexpr int64_t corners(int64_t j) {
    if constexpr (W >= 4) return j / W * (4 * W) + j % 4 * W + j % W / 4 * 4;
    else return 4 * j;
  }

  // Plan samples [begin, end). The addresses are those of sample 0 of the query; `readable` samples lie behind
  // them, those of later queries included, which fill up the last register unless they end too.
  MSDA_INLINE_MEMBER void make(int64_t slot, const A* locations, const A* weights, int64_t begin, int64_t end,
                               int64_t readable) {
    for (int64_t j = begin / W * W; j < end; j += W) {
      if (__builtin_expect(j + W <= readable, 1)) make_register(locations + 2 * j, weights + j, j, slot);
      else make_last(locations + 2 * j, weights + j, j, slot, readable - j);
    }
  }

 private:
  Plan(const Problem& p, int64_t origin, int64_t n)
      : slot_size(n), width(n), height(n), wide(n), high(n), first(n), outside(n), row(n), below(n),
        weight(4 * n * slots), place(n * slots), fx(n * slots), fy(n * slots), channels(int32_t(p.channels)) {
    for (int64_t j = 0; j < n; ++j) {
      int64_t at = p.points ? j / p.points : 0;
      const Level& level = p.level[at < p.levels ? at : p.levels - 1];
      height[j] = A(level.height);
      width[j] = A(level.width);
      high[j] = limit(level.height + 1);
      wide[j] = limit(level.width + 1);
      first[j] = int32_t(level.first - origin);
      row[j] = int32_t(level.width + 1);
      outside[j] = int32_t(level.first - origin + (level.height + 1) * (level.width + 1));
      below[j] = (level.width + 1) * p.channels;
    }
    for (int64_t j = 0; j < n * slots; ++j) place[j] = 0;
  }

  static A limit(int64_t n) {
    A a = A(n);
    while (int64_t(a) > n) a *= A(1) - A(0x1p-23);  // beyond 2^24 not every whole number is a float
    return a;
  }

  MSDA_INLINE_MEMBER void make_register(const A* locations, const A* weights, int64_t j, int64_t slot) {
    using Numbers = Vec<A, W>;
    using Whole = Vec<int32_t, W>;
    const auto numbers = [&](const auto& table) MSDA_INLINE_LAMBDA { return load_raw<A, W>(&table[j]); };
    const auto whole = [&](const auto& table) MSDA_INLINE_LAMBDA { return load_raw<int32_t, W>(&table[j]); };
    const int64_t s = slot * slot_size + j;
    const auto keep = [&](auto& table, auto v) MSDA_INLINE_LAMBDA { __builtin_memcpy(&table[s], &v, sizeof(v)); };
    const Numbers one = load_raw<A, W>(locations), two = load_raw<A, W>(locations + W);
    const Numbers attention = load_raw<A, W>(weights);
    // In rows and columns of the map with its margin, whose cells are centred on whole numbers.
    Numbers x = every_second<A, W, 0>(one, two) * numbers(width) + A(0.5);
    Numbers y = every_second<A, W, 1>(one, two) * numbers(height) + A(0.5);
    // Whatever touches no pixel, infinity and NaN among them, is not here.
    const auto touches = (x > 0) & (y > 0) & (x < numbers(wide)) & (y < numbers(high));
    x = touches ? x : Numbers{};
    y = touches ? y : Numbers{};
    const Whole column = __builtin_convertvector(x, Whole), line = __builtin_convertvector(y, Whole);
    const Numbers dx = x - __builtin_convertvector(column, Numbers), dy = y - __builtin_convertvector(line, Numbers);
    const Whole inside = whole(first) + line * whole(row) + column;
    keep(place, (__builtin_convertvector(touches, Whole) ? inside : whole(outside)) * channels);
    keep(fx, dx);
    keep(fy, dy);
    const Numbers lower = attention * dy, upper = attention - lower;
    const Numbers right = upper * dx, lower_right = lower * dx;
    Numbers corner[4] = {upper - right, right, lower - lower_right, lower_right};
    transpose<A, W>(corner);
    __builtin_memcpy(&weight[4 * s], corner, sizeof(corner));
  }

  __attribute__((noinline)) void make_last(const A* locations, const A* weights, int64_t j, int64_t slot,
                                           int64_t readable) {
    A xy[2 * W] = {}, attention[W] = {};
    for (int64_t i = 0; i < 2 * readable; ++i) xy[i] = locations[i];
    for (int64_t i = 0; i < readable; ++i) attention[i] = weights[i];
    make_register(xy, attention, j, slot);
  }
};

// Cover [done, channels) with registers, widest first; for each piece call work(first channel, W, R): R registers of
// W lanes.
template <int W, int R, class Work>
MSDA_INLINE void over_channels(int64_t done, int64_t channels, Work work) {
  for (; done + W * R <= channels; done += W * R) work(done, Int<W>(), Int<R>());
  if constexpr (R > 1) over_channels<W, R / 2>(done, channels, work);
  else if constexpr (W > 1) over_channels<W / 2, 1>(done, channels, work);
}

// ---- between the value as it comes and the maps that the kernel reads

// For every pixel of one map of one head call work(number of the pixel in the value, cell in the map with its margin).
template <class Work>
MSDA_INLINE void over_pixels(const Level& map, Work work) {
  for (int64_t y = 0; y < map.height; ++y)
    for (int64_t x = 0; x < map.width; ++x) work(map.pixel + y * map.width + x, (y + 1) * (map.width + 1) + x + 1);
}

template <class A>
MSDA_INLINE void clear_margin(const Level& map, int64_t channels, A* to) {
  const size_t cell = size_t(channels) * sizeof(A), row = size_t(map.width + 1) * cell;
  char* first = reinterpret_cast<char*>(to);
  __builtin_memset(first, 0, row);
  for (int64_t y = 1; y <= map.height; ++y) __builtin_memset(first + size_t(y) * row, 0, cell);
  __builtin_memset(first + size_t(map.height + 1) * row, 0, row + 2 * cell);
}

template <class V>
MSDA_INLINE const V* value_of(const Problem& p, int64_t head) {
  return static_cast<const V*>(p.value) + head / p.heads * p.batch_stride + head % p.heads * p.head_stride;
}

// As it is, for the forward pass.
template <class V>
void pack(const Problem& p, int64_t head, int64_t level) {
  const Level& map = p.level[level];
  const V* value = value_of<V>(p, head);
  V* to = static_cast<V*>(p.packed) + (head * p.cells + map.first) * p.channels;
  clear_margin(map, p.channels, to);
  over_pixels(map, [&](int64_t pixel, int64_t cell) MSDA_INLINE_LAMBDA {
    const char* from = reinterpret_cast<const char*>(value + pixel * p.pixel_stride);
    char* there = reinterpret_cast<char*>(to + cell * p.channels);
    const int64_t bytes = p.channels * int64_t(sizeof(V));
    over_channels<MSDA_BYTES, 2>(0, bytes, [&](int64_t at, auto w, auto r) MSDA_INLINE_LAMBDA {
      __builtin_memcpy(there + at, from + at, w.value * r.value);
    });
  });
}

// As numbers of the accumulation type, for the backward pass.
template <class V, class A>
void widen_map(const Problem& p, int64_t head, int64_t level, A* to) {
  const Level& map = p.level[level];
  const V* value = value_of<V>(p, head);
  clear_margin(map, p.channels, to);
  over_pixels(map, [&](int64_t pixel, int64_t cell) MSDA_INLINE_LAMBDA {
    over_channels<MSDA_BYTES / sizeof(A), 1>(0, p.channels, [&](int64_t c, auto w, auto) MSDA_INLINE_LAMBDA {
      store<A, A, w.value>(to + cell * p.channels + c, load<V, A, w.value>(value + pixel * p.pixel_stride + c));
    });
  });
}

// The gradient's sums, which lie behind the numbers of the map, rounded once and brought to where they belong.
template <class V, class A>
void return_map(const Problem& p, int64_t head, int64_t level, const A* scratch) {
  const Level& map = p.level[level];
  const A* from = scratch + map_cells(map.height, map.width) * p.channels;
  V* to = static_cast<V*>(p.grad_value) + (head / p.heads * p.pixels * p.heads + head % p.heads) * p.channels;
  over_pixels(map, [&](int64_t pixel, int64_t cell) MSDA_INLINE_LAMBDA {
    over_channels<MSDA_BYTES / sizeof(A), 1>(0, p.channels, [&](int64_t c, auto w, auto) MSDA_INLINE_LAMBDA {
      store<V, A, w.value>(to + pixel * p.heads * p.channels + c, load<A, A, w.value>(from + cell * p.channels + c));
    });
  });
}

// ---- forward

// W * R channels of one query and head.
template <class V, class A, int W, int R>
MSDA_INLINE void gather(const V* value, const Plan<A>& plan, int64_t slot, int64_t next_slot, int64_t samples, V* out) {
  constexpr int chains = R <= 2 ? 4 : 2;  // independent sums, to keep the multiply-add units busy
  Vec<A, W> sum[chains][R] = {};
  const int32_t* place = &plan.place[slot * plan.slot_size];
  const int32_t* next = &plan.place[next_slot * plan.slot_size];
  const A* weight = &plan.weight[4 * slot * plan.slot_size];
  const int64_t channels = plan.channels;
  for (int64_t j = 0; j < samples; ++j) {
    const int64_t below = plan.below[j], corner[4] = {0, channels, below, below + channels};
    const A* w = weight + Plan<A>::corners(j);
    for (int k = 0; k < 4; ++k) {
      prefetch<R * W * int(sizeof(V))>(value + next[j] + corner[k]);
      const V* from = value + place[j] + corner[k];
      for (int r = 0; r < R; ++r) sum[k % chains][r] += w[k] * load<V, A, W>(from + r * W);
    }
  }
  for (int r = 0; r < R; ++r) {
    if constexpr (chains == 4) sum[0][r] = (sum[0][r] + sum[1][r]) + (sum[2][r] + sum[3][r]);
    else sum[0][r] += sum[1][r];
    store<V, A, W>(out + r * W, sum[0][r]);
  }
}

template <class V, class A>
void forward(const Problem& p, int64_t head, int64_t begin, int64_t end) {
  constexpr int W = MSDA_BYTES / sizeof(A);
  const int64_t samples = p.levels * p.points, all = p.batch * p.queries * p.heads;
  const int64_t first = head / p.heads * p.queries, m = head % p.heads;
  const V* value = static_cast<const V*>(p.packed) + head * p.cells * p.channels;
  Plan<A> plan(p, 0);
  const auto make_plan = [&](int64_t q) MSDA_INLINE_LAMBDA {
    const int64_t at = (first + q) * p.heads + m;
    const A* locations = static_cast<const A*>(p.locations) + at * samples * 2;
    const A* weights = static_cast<const A*>(p.weights) + at * samples;
    prefetch_span(locations + stream_ahead * p.heads * samples * 2, samples * 2);
    prefetch_span(weights + stream_ahead * p.heads * samples, samples);
    plan.make(q % slots, locations, weights, 0, samples, (all - at) * samples);
  };
  for (int64_t q = begin; q < end && q < begin + plan_ahead; ++q) make_plan(q);
  for (int64_t q = begin; q < end; ++q) {
    if (q + plan_ahead < end) make_plan(q + plan_ahead);
    V* out = static_cast<V*>(p.output) + ((first + q) * p.heads + m) * p.channels;
    over_channels<W, 4>(0, p.channels, [&](int64_t c, auto w, auto r) MSDA_INLINE_LAMBDA {
      gather<V, A, w.value, r.value>(value + c, plan, q % slots, (q + prefetch_ahead) % slots, samples, out + c);
    });
  }
}

// ---- backward

// For W * R channels of one query and head: add to grad_value, and to dots (samples, 4) the products of grad_output
// with the value at each corner, from which the gradients of location and weight follow.
template <class A, int W, int R>
MSDA_INLINE void scatter(const A* value, A* grad_value, const A* grad_output, const Plan<A>& plan, int64_t slot,
                         int64_t next_slot, int64_t begin, int64_t end, bool first, A* dots) {
  Vec<A, W> g[R];
  for (int r = 0; r < R; ++r) g[r] = load<A, A, W>(grad_output + r * W);
  const int32_t* place = &plan.place[slot * plan.slot_size];
  const int32_t* next = &plan.place[next_slot * plan.slot_size];
  const A* weight = &plan.weight[4 * slot * plan.slot_size];
  const int64_t channels = plan.channels;
  for (int64_t j = begin; j < end; ++j) {
    const int64_t below = plan.below[j], corner[4] = {0, channels, below, below + channels};
    const int64_t at = Plan<A>::corners(j);
    Vec<A, W> dot[4];
    for (int k = 0; k < 4; ++k) {
      prefetch<R * W * int(sizeof(A))>(value + next[j] + corner[k]);
      prefetch<R * W * int(sizeof(A))>(grad_value + next[j] + corner[k]);
      const A* from = value + place[j] + corner[k];
      A* to = grad_value + place[j] + corner[k];
      for (int r = 0; r < R; ++r) {
        const auto product = g[r] * load<A, A, W>(from + r * W);
        dot[k] = r ? dot[k] + product : product;
        store<A, A, W>(to + r * W, load<A, A, W>(to + r * W) + weight[at + k] * g[r]);
      }
    }
    auto sums = sum_each<A, W>(dot[0], dot[1], dot[2], dot[3]);
    if (!first) sums += load<A, A, 4>(dots + at);
    store<A, A, 4>(dots + at, sums);
  }
}

// From the dots of samples [begin, end) of a query: the gradients of its weights and locations.
template <class A>
MSDA_INLINE void finish(const Plan<A>& plan, int64_t slot, const A* dots, const A* weights, int64_t begin, int64_t end,
                        A* grad_weights, A* grad_locations) {
  constexpr int W = Plan<A>::W;
  const int64_t s = slot * plan.slot_size;
  for (int64_t j = begin; j < end; ++j) {
    const A* d = dots + Plan<A>::corners(j);
    const A fx = plan.fx[s + j], fy = plan.fy[s + j];
    const A upper = d[0] + fx * (d[1] - d[0]), lower = d[2] + fx * (d[3] - d[2]);
    grad_weights[j] = upper + fy * (lower - upper);
    grad_locations[2 * j] = weights[j] * plan.width[j] * ((d[1] - d[0]) + fy * ((d[3] - d[2]) - (d[1] - d[0])));
    grad_locations[2 * j + 1] = weights[j] * plan.height[j] * (lower - upper);
  }
}

template <class A>
void backward(const Problem& p, int64_t head, int64_t level, A* value) {
  constexpr int W = MSDA_BYTES / sizeof(A);
  const int64_t samples = p.levels * p.points, begin = level * p.points, end = begin + p.points;
  const int64_t first = head / p.heads * p.queries, m = head % p.heads, all = p.batch * p.queries * p.heads;
  const int64_t size = map_cells(p.level[level].height, p.level[level].width) * p.channels;
  A* grad_value = value + size;
  __builtin_memset(grad_value, 0, size_t(size) * sizeof(A));
  Plan<A> plan(p, p.level[level].first);
  Buffer<A> dots(4 * plan.slot_size);
  const auto make_plan = [&](int64_t q) MSDA_INLINE_LAMBDA {
    const int64_t at = (first + q) * p.heads + m;
    const A* locations = static_cast<const A*>(p.locations) + at * samples * 2;
    const A* weights = static_cast<const A*>(p.weights) + at * samples;
    prefetch_span(locations + stream_ahead * p.heads * samples * 2, samples * 2);
    prefetch_span(weights + stream_ahead * p.heads * samples, samples);
    plan.make(q % slots, locations, weights, begin, end, (all - at) * samples);
  };
  for (int64_t q = 0; q < p.queries && q < plan_ahead; ++q) make_plan(q);
  for (int64_t q = 0; q < p.queries; ++q) {
    if (q + plan_ahead < p.queries) make_plan(q + plan_ahead);
    const int64_t at = (first + q) * p.heads + m;
    const A* grad_output = static_cast<const A*>(p.grad_output) + at * p.channels;
    over_channels<W, 4>(0, p.channels, [&](int64_t c, auto w, auto r) MSDA_INLINE_LAMBDA {
      scatter<A, w.value, r.value>(value + c, grad_value + c, grad_output + c, plan, q % slots,
                                   (q + prefetch_ahead) % slots, begin, end, c == 0, dots.get());
    });
    finish<A>(plan, q % slots, dots.get(), static_cast<const A*>(p.weights) + at * samples, begin, end,
              static_cast<A*>(p.grad_weights) + at * samples, static_cast<A*>(p.grad_locations) + at * samples * 2);
  }
}
