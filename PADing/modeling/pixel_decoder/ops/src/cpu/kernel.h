// Multi-scale deformable attention on the CPU, forward and backward. Compiled once per instruction set, inside that
// variant's namespace; MSDA_BYTES is the width of its registers. Includes nothing but its own parts: the functions of a
// shared header, compiled here for a wide machine, could be the copy that the linker keeps for all.
//
// The samples of a query are first turned into a plan: the places of the four pixels of each and their weights
// (attention weight included), a register full of samples at a time. The channels are then gathered in one pass over
// the plan: a load and a multiply-add per corner and register, without a branch, because whatever lies outside a map
// leads to a pixel of zeros. Plans are made a few queries ahead, so that the gathering never waits for a plan just
// stored, and pixels are prefetched meanwhile.

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

// One sample after another in registers of W lanes; several queries side by side in slots.
template <class A>
struct Plan {
  static constexpr int W = MSDA_BYTES / sizeof(A);

  int64_t slot_size;
  // by sample (level * points + point), constant over a call
  Buffer<A> width, height;
  Buffer<int32_t> wide, high, first, outside;
  // by slot and sample; corners in the order upper left, upper right, lower left, lower right
  Buffer<A> weight[4];
  Buffer<int32_t> place[4];  // offset in a head's pixels, in elements
  Buffer<A> fx, fy;          // position inside the cell, for the backward pass
  int32_t channels;

  Plan(const Problem& p, int64_t slots) : Plan(p, p.levels * p.points + W, slots, 0) {}

  // Plan samples [begin, end). The addresses are those of sample 0 of the query; `readable` samples lie behind
  // them, those of later queries included, which fill up the last register unless they end too.
  MSDA_INLINE_MEMBER void make(int64_t slot, const A* locations, const A* weights, int64_t begin, int64_t end,
                               int64_t readable) {
    for (int64_t j = begin; j < end; j += W) {
      const int64_t s = slot * slot_size + j, count = end - j < W ? end - j : W;
      if (__builtin_expect(j + W <= readable, 1)) make_register(locations + 2 * j, weights + j, j, s);
      else make_last(locations + 2 * j, weights + j, j, s, count);
    }
  }

 private:
  Plan(const Problem& p, int64_t n, int64_t slots, int)
      : slot_size(n), width(n), height(n), wide(n), high(n), first(n), outside(n),
        weight{Buffer<A>(n * slots), Buffer<A>(n * slots), Buffer<A>(n * slots), Buffer<A>(n * slots)},
        place{Buffer<int32_t>(n * slots), Buffer<int32_t>(n * slots), Buffer<int32_t>(n * slots),
              Buffer<int32_t>(n * slots)},
        fx(n * slots), fy(n * slots), channels(int32_t(p.channels)) {
    for (int64_t j = 0; j < n; ++j) {
      int64_t level = p.points ? j / p.points : 0;
      if (level >= p.levels) level = p.levels - 1;
      const int64_t* shape = p.level_table + 3 * level;
      height[j] = A(shape[0]);
      width[j] = A(shape[1]);
      high[j] = int32_t(shape[0]);
      wide[j] = int32_t(shape[1]);
      first[j] = int32_t(shape[2]);
      outside[j] = int32_t((p.pixels + level) * p.channels);
    }
    for (int64_t j = 0; j < n * slots; ++j)
      for (int k = 0; k < 4; ++k) place[k][j] = 0;
  }

  MSDA_INLINE_MEMBER void make_register(const A* locations, const A* weights, int64_t j, int64_t s) {
    using Numbers = Vec<A, W>;
    using Whole = Vec<int32_t, W>;
    const auto numbers = [&](const auto& table) MSDA_INLINE_LAMBDA { return load_raw<A, W>(&table[j]); };
    const auto whole = [&](const auto& table) MSDA_INLINE_LAMBDA { return load_raw<int32_t, W>(&table[j]); };
    const auto keep = [&](auto& table, auto v) MSDA_INLINE_LAMBDA { __builtin_memcpy(&table[s], &v, sizeof(v)); };
    const Numbers one = load_raw<A, W>(locations), two = load_raw<A, W>(locations + W);
    const Numbers attention = load_raw<A, W>(weights);
    Numbers x = every_second<A, W, 0>(one, two) * numbers(width) - A(0.5);
    Numbers y = every_second<A, W, 1>(one, two) * numbers(height) - A(0.5);
    // A location that touches no pixel, infinity and NaN among them, goes where neither of its columns exists.
    const auto touches = (x > -1) & (y > -1) & (x < numbers(width)) & (y < numbers(height));
    x = touches ? x : Numbers{} - 2;
    y = touches ? y : Numbers{};
    Whole x0 = __builtin_convertvector(x, Whole), y0 = __builtin_convertvector(y, Whole);  // towards zero
    x0 += __builtin_convertvector(__builtin_convertvector(x0, Numbers) > x, Whole);       // now down
    y0 += __builtin_convertvector(__builtin_convertvector(y0, Numbers) > y, Whole);
    const Numbers dx = x - __builtin_convertvector(x0, Numbers), dy = y - __builtin_convertvector(y0, Numbers);
    const Numbers lower = attention * dy, upper = attention - lower;
    keep(weight[0], upper - upper * dx);
    keep(weight[1], upper * dx);
    keep(weight[2], lower - lower * dx);
    keep(weight[3], lower * dx);
    keep(fx, dx);
    keep(fy, dy);
    const Whole w = whole(wide), h = whole(high), none = whole(outside);
    const auto left = (x0 >= 0) & (x0 < w), right = (x0 >= -1) & (x0 + 1 < w);
    const auto top = (y0 >= 0) & (y0 < h), bottom = (y0 >= -1) & (y0 + 1 < h);
    const Whole corner = (whole(first) + y0 * w + x0) * channels, below = corner + w * channels;
    keep(place[0], (left & top) ? corner : none);
    keep(place[1], (right & top) ? corner + channels : none);
    keep(place[2], (left & bottom) ? below : none);
    keep(place[3], (right & bottom) ? below + channels : none);
  }

  __attribute__((noinline)) void make_last(const A* locations, const A* weights, int64_t j, int64_t s, int64_t count) {
    A xy[2 * W] = {}, attention[W] = {};
    for (int64_t i = 0; i < 2 * count; ++i) xy[i] = locations[i];
    for (int64_t i = 0; i < count; ++i) attention[i] = weights[i];
    make_register(xy, attention, j, s);
  }
};

constexpr int64_t block = 1024;        // queries per visit to a head
constexpr int64_t slots = 16;          // plans alive at a time
constexpr int64_t plan_ahead = 12;     // queries between planning and gathering, fewer than slots
constexpr int64_t prefetch_ahead = 8;  // queries between prefetching pixels and gathering, at most plan_ahead

// Cover [done, channels) with registers, widest first; for each piece call work(first channel, W, R): R registers of
// W lanes.
template <int W, int R, class Work>
MSDA_INLINE void over_channels(int64_t done, int64_t channels, Work work) {
  for (; done + W * R <= channels; done += W * R) work(done, Int<W>(), Int<R>());
  if constexpr (R > 1) over_channels<W, R / 2>(done, channels, work);
  else if constexpr (W > 1) over_channels<W / 2, 1>(done, channels, work);
}

// ---- forward

// W * R channels of one query and head.
template <class V, class A, int W, int R>
MSDA_INLINE void gather(const V* value, const Plan<A>& plan, int64_t slot, int64_t next_slot, int64_t samples, V* out) {
  constexpr int chains = R <= 2 ? 4 : 2;  // independent sums, to keep the multiply-add units busy
  Vec<A, W> sum[chains][R] = {};
  const int64_t at = slot * plan.slot_size, next = next_slot * plan.slot_size;
  for (int64_t j = 0; j < samples; ++j) {
    // One corner of the four is enough: the others are neighbours, or were this one's for an earlier query.
    prefetch<R * W * int(sizeof(V))>(value + plan.place[3][next + j]);
    for (int k = 0; k < 4; ++k) {
      const V* corner = value + plan.place[k][at + j];
      for (int r = 0; r < R; ++r) sum[k % chains][r] += plan.weight[k][at + j] * load<V, A, W>(corner + r * W);
    }
  }
  for (int r = 0; r < R; ++r) {
    if constexpr (chains == 4) sum[0][r] = (sum[0][r] + sum[1][r]) + (sum[2][r] + sum[3][r]);
    else sum[0][r] += sum[1][r];
    store<V, A, W>(out + r * W, sum[0][r]);
  }
}

template <class V, class A>
void forward(const Problem& p, int64_t begin, int64_t end) {
  constexpr int W = MSDA_BYTES / sizeof(A);
  const int64_t samples = p.levels * p.points, all = p.batch * p.queries * p.heads;
  Plan<A> plan(p, slots);
  for (int64_t from = begin; from < end;) {
    const int64_t n = from / p.queries;
    int64_t to = from + block;
    to = to < end ? to : end;
    to = to < (n + 1) * p.queries ? to : (n + 1) * p.queries;
    for (int64_t m = 0; m < p.heads; ++m) {
      const V* value = static_cast<const V*>(p.value) + (n * p.heads + m) * (p.pixels + p.levels) * p.channels;
      const auto make_plan = [&](int64_t q) MSDA_INLINE_LAMBDA {
        const int64_t at = q * p.heads + m;
        const A* locations = static_cast<const A*>(p.locations) + at * samples * 2;
        const A* weights = static_cast<const A*>(p.weights) + at * samples;
        prefetch_span(locations + plan_ahead * p.heads * samples * 2, samples * 2);
        prefetch_span(weights + plan_ahead * p.heads * samples, samples);
        plan.make(q % slots, locations, weights, 0, samples, (all - at) * samples);
      };
      for (int64_t q = from; q < to && q < from + plan_ahead; ++q) make_plan(q);
      for (int64_t q = from; q < to; ++q) {
        if (q + plan_ahead < to) make_plan(q + plan_ahead);
        V* out = static_cast<V*>(p.output) + (q * p.heads + m) * p.channels;
        over_channels<W, 4>(0, p.channels, [&](int64_t c, auto w, auto r) MSDA_INLINE_LAMBDA {
          gather<V, A, w.value, r.value>(value + c, plan, q % slots, (q + prefetch_ahead) % slots, samples, out + c);
        });
      }
    }
    from = to;
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
  const int64_t at = slot * plan.slot_size, next = next_slot * plan.slot_size;
  for (int64_t j = begin; j < end; ++j) {
    prefetch<R * W * int(sizeof(A))>(value + plan.place[3][next + j]);
    prefetch<R * W * int(sizeof(A))>(grad_value + plan.place[3][next + j]);
    Vec<A, W> dot[4];
    for (int k = 0; k < 4; ++k) {
      const A* from = value + plan.place[k][at + j];
      A* to = grad_value + plan.place[k][at + j];
      const A weight = plan.weight[k][at + j];
      for (int r = 0; r < R; ++r) {
        const auto product = g[r] * load<A, A, W>(from + r * W);
        dot[k] = r ? dot[k] + product : product;
        store<A, A, W>(to + r * W, load<A, A, W>(to + r * W) + weight * g[r]);
      }
    }
    auto sums = sum_each<A, W>(dot[0], dot[1], dot[2], dot[3]);
    if (!first) sums += load<A, A, 4>(dots + 4 * j);
    store<A, A, 4>(dots + 4 * j, sums);
  }
}

// Levels [level, level_end) of one image and head: nobody else touches these pixels or these samples, so that the
// sums come in the order of the queries whatever the number of threads.
template <class A>
void backward_levels(const Problem& p, Plan<A>& plan, A* dots, int64_t n, int64_t m, int64_t level, int64_t level_end) {
  constexpr int W = MSDA_BYTES / sizeof(A);
  const int64_t samples = p.levels * p.points, begin = level * p.points, end = level_end * p.points;
  const int64_t all = p.batch * p.queries * p.heads, head = (n * p.heads + m) * (p.pixels + p.levels) * p.channels;
  const A* value = static_cast<const A*>(p.value) + head;
  A* grad_value = static_cast<A*>(p.grad_value) + head;
  for (int64_t l = level; l < level_end; ++l) {
    const int64_t* shape = p.level_table + 3 * l;
    __builtin_memset(grad_value + shape[2] * p.channels, 0, size_t(shape[0] * shape[1] * p.channels) * sizeof(A));
    __builtin_memset(grad_value + (p.pixels + l) * p.channels, 0, size_t(p.channels) * sizeof(A));
  }
  const auto make_plan = [&](int64_t q) MSDA_INLINE_LAMBDA {
    const int64_t at = q * p.heads + m;
    const A* locations = static_cast<const A*>(p.locations) + at * samples * 2;
    const A* weights = static_cast<const A*>(p.weights) + at * samples;
    prefetch_span(locations + plan_ahead * p.heads * samples * 2, samples * 2);
    prefetch_span(weights + plan_ahead * p.heads * samples, samples);
    plan.make(q % slots, locations, weights, begin, end, (all - at) * samples);
  };
  const int64_t from = n * p.queries, to = from + p.queries;
  for (int64_t q = from; q < to && q < from + plan_ahead; ++q) make_plan(q);
  for (int64_t q = from; q < to; ++q) {
    if (q + plan_ahead < to) make_plan(q + plan_ahead);
    const int64_t at = q * p.heads + m;
    const A* grad_output = static_cast<const A*>(p.grad_output) + at * p.channels;
    over_channels<W, 4>(0, p.channels, [&](int64_t c, auto w, auto r) MSDA_INLINE_LAMBDA {
      scatter<A, w.value, r.value>(value + c, grad_value + c, grad_output + c, plan, q % slots,
                                   (q + prefetch_ahead) % slots, begin, end, c == 0, dots);
    });
    const A* weights = static_cast<const A*>(p.weights) + at * samples;
    A* grad_weights = static_cast<A*>(p.grad_weights) + at * samples;
    A* grad_locations = static_cast<A*>(p.grad_locations) + at * samples * 2;
    const int64_t s = (q % slots) * plan.slot_size;
    for (int64_t j = begin; j < end; ++j) {
      const A d00 = dots[4 * j], d01 = dots[4 * j + 1], d10 = dots[4 * j + 2], d11 = dots[4 * j + 3];
      const A fx = plan.fx[s + j], fy = plan.fy[s + j];
      const A upper = d00 + fx * (d01 - d00), lower = d10 + fx * (d11 - d10);
      grad_weights[j] = upper + fy * (lower - upper);
      grad_locations[2 * j] = weights[j] * plan.width[j] * ((d01 - d00) + fy * ((d11 - d10) - (d01 - d00)));
      grad_locations[2 * j + 1] = weights[j] * plan.height[j] * (lower - upper);
    }
  }
}

template <class A>
void backward(const Problem& p, int64_t begin, int64_t end) {
  Plan<A> plan(p, slots);
  Buffer<A> dots(4 * p.levels * p.points);
  for (int64_t task = begin; task < end;) {
    const int64_t level = task % p.levels, head = task / p.levels;
    int64_t level_end = level + (end - task);
    if (level_end > p.levels) level_end = p.levels;
    backward_levels<A>(p, plan, dots.get(), head / p.heads, head % p.heads, level, level_end);
    task += level_end - level;
  }
}
