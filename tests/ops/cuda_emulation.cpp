// The CUDA kernels of ms_deform_attn behind plain C functions, run on the CPU.
#include "cuda_emulation.h"

#include "kernel.cuh"

using namespace pading_msda;

template <class V, int VEC>
static void run(const int64_t* n, const int64_t* table, int table_on_device, int threads, const V* value,
                const typename SumOf<V>::type* locations, const typename SumOf<V>::type* weights, V* output,
                const V* grad_output, typename SumOf<V>::type* grad_value, typename SumOf<V>::type* grad_locations,
                typename SumOf<V>::type* grad_weights) {
  using A = typename SumOf<V>::type;
  Sizes s{};
  s.batch = n[0], s.pixels = n[1], s.heads = int(n[2]), s.channels = int(n[3]);
  s.queries = n[4], s.levels = int(n[5]), s.points = int(n[6]);
  Levels levels{};
  if (table_on_device) levels.on_device = table;
  else std::memcpy(levels.table, table, sizeof(int64_t) * 3 * s.levels);
  Launch launch = plan_launch<A>(s, VEC, false, threads);
  emulation::launch(launch.blocks, launch.threads, launch.shared_bytes,
                    [&] { forward_kernel<V, VEC>(s, levels, value, locations, weights, output); });
  launch = plan_launch<A>(s, VEC, true, threads);
  emulation::launch(launch.blocks, launch.threads, launch.shared_bytes, [&] {
    backward_kernel<V, VEC>(s, levels, grad_output, value, locations, weights, grad_value, grad_locations,
                            grad_weights);
  });
}

#define EXPORT(name, V, A, VEC)                                                                                    \
  extern "C" void name##_##VEC(const int64_t* n, const int64_t* table, int on_device, int threads, const V* value, \
                               const A* locations, const A* weights, V* output, const V* grad_output,              \
                               A* grad_value, A* grad_locations, A* grad_weights) {                                \
    run<V, VEC>(n, table, on_device, threads, value, locations, weights, output, grad_output, grad_value,          \
                grad_locations, grad_weights);                                                                     \
  }
EXPORT(float32, float, float, 1)
EXPORT(float32, float, float, 2)
EXPORT(float32, float, float, 4)
EXPORT(float64, double, double, 1)
EXPORT(float64, double, double, 2)
EXPORT(float16, half_bits, float, 1)
EXPORT(float16, half_bits, float, 8)
EXPORT(bfloat16, bfloat_bits, float, 2)
EXPORT(bfloat16, bfloat_bits, float, 8)
