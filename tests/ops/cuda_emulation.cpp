// The CUDA kernels of ms_deform_attn behind plain C functions, run on the CPU.
#include "cuda_emulation.h"

#include <numeric>

#include "kernel.cuh"

using namespace pading_msda;

// The arguments of a run. `a` and `b`: locations and weights, or offsets and scores with `reference`. What the
// kernels write has the same order; `atomic_value` must be zero, and `collected_value` is that of the other way.
struct Arguments {
  const int64_t* sizes;
  const int64_t* table;
  int64_t table_on_device, threads;
  const void *value, *a, *b, *reference;
  const int64_t* reference_strides;
  void* output;
  const void* grad_output;
  void *atomic_value, *collected_value, *grad_a, *grad_b;
};

template <class V>
static Given<typename SumOf<V>::type> source_of(const Arguments& n, Given<typename SumOf<V>::type>*) {
  using A = typename SumOf<V>::type;
  return {static_cast<const A*>(n.a), static_cast<const A*>(n.b), is_aligned<A>(n.a, 2)};
}
template <class V>
static Projected<V> source_of(const Arguments& n, Projected<V>*) {
  using A = typename SumOf<V>::type;
  const int64_t* strides = n.reference_strides;
  bool pairs = is_aligned<A>(n.reference, 2);
  for (int i = 0; i < 3; ++i) pairs = pairs && strides[i] % 2 == 0;
  return {static_cast<const V*>(n.a), static_cast<const V*>(n.b), static_cast<const A*>(n.reference),
          strides[0], strides[1], strides[2], is_aligned<V>(n.a, 2), pairs};
}
template <class A>
static GivenGradients<A> gradients_of(const Arguments& n, GivenGradients<A>*) {
  return {static_cast<A*>(n.grad_a), static_cast<A*>(n.grad_b)};
}
template <class V>
static ProjectedGradients<V> gradients_of(const Arguments& n, ProjectedGradients<V>*) {
  return {static_cast<V*>(n.grad_a), static_cast<V*>(n.grad_b)};
}

template <class V, int VEC, class Source, class Gradients>
static void run(const Arguments& n) {
  using A = typename SumOf<V>::type;
  const int64_t* size = n.sizes;
  Sizes s{};
  s.batch = int(size[0]), s.pixels = int(size[1]), s.heads = int(size[2]), s.channels = int(size[3]);
  s.queries = int(size[4]), s.levels = int(size[5]), s.points = int(size[6]);
  Levels levels{};
  if (n.table_on_device) levels.on_device = n.table;
  else std::copy(n.table, n.table + 3 * s.levels, levels.table);
  const Source source = source_of<V>(n, static_cast<Source*>(nullptr));
  const Gradients gradients = gradients_of(n, static_cast<Gradients*>(nullptr));
  const V *value = static_cast<const V*>(n.value), *grad = static_cast<const V*>(n.grad_output);
  const auto start = [&](const Launch& launch, auto kernel) {
    emulation::launch({launch.runs, s.heads, s.batch}, launch.threads, launch.shared_bytes, kernel);
  };
  start(forward_launch<V>(s, VEC, int(n.threads)),
        [&] { forward_kernel<V, VEC>(s, levels, source, value, static_cast<V*>(n.output)); });
  const Launch backward = backward_launch<V, Gradients>(s, VEC, int(n.threads));
  start(backward, [&] {
    backward_kernel<V, VEC>(s, levels, source, grad, value, static_cast<A*>(n.atomic_value), Sorting<A>{}, gradients);
  });
  const int64_t samples = int64_t(s.batch) * s.queries * s.heads * s.samples();
  std::vector<int> keys(samples), starts(4 * size_t(s.batch) * s.heads * s.pixels + 1);
  std::vector<Sample<A>> of_cells(samples);
  start(backward, [&] {
    backward_kernel<V, VEC>(s, levels, source, grad, value, static_cast<A*>(nullptr),
                            Sorting<A>{keys.data(), of_cells.data()}, gradients);
  });
  std::vector<int64_t> order(samples);
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int64_t i, int64_t j) { return keys[i] < keys[j]; });
  std::sort(keys.begin(), keys.end());
  for (size_t c = 0; c < starts.size(); ++c)
    starts[c] = int(std::lower_bound(keys.begin(), keys.end(), int(c)) - keys.begin());
  start(collect_launch<V>(s, VEC, int(n.threads)), [&] {
    collect_kernel<V, VEC>(s, levels, starts.data(), order.data(), of_cells.data(), grad,
                           static_cast<V*>(n.collected_value));
  });
}

// Returns the numbers that are moved at once.
template <class V>
static int run_type(const Arguments& n, bool projected) {
  using A = typename SumOf<V>::type;
  const auto run_pack = [&](auto vec) {
    constexpr int VEC = decltype(vec)::value;
    if (projected) run<V, VEC, Projected<V>, ProjectedGradients<V>>(n);
    else run<V, VEC, Given<A>, GivenGradients<A>>(n);
    return VEC;
  };
  const auto *value = static_cast<const V*>(n.value), *grad = static_cast<const V*>(n.grad_output);
  switch (pack_size<V>(int(n.sizes[3]), value, grad, static_cast<const V*>(n.output))) {
    case 1: return run_pack(std::integral_constant<int, 1>());
    case 2: return run_pack(std::integral_constant<int, 2>());
    default: return run_pack(std::integral_constant<int, 16 / sizeof(V)>());
  }
}

extern "C" int float32(const Arguments* n, int projected) { return run_type<float>(*n, projected); }
extern "C" int float64(const Arguments* n, int projected) { return run_type<double>(*n, projected); }
extern "C" int float16(const Arguments* n, int projected) { return run_type<half_bits>(*n, projected); }
extern "C" int bfloat16(const Arguments* n, int projected) { return run_type<bfloat_bits>(*n, projected); }
