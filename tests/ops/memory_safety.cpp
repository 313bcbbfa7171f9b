// Drives every CPU variant that this machine can run over many shapes and hostile locations, with every array at its
// exact size, so that AddressSanitizer sees any access outside. No PyTorch.
#include <cmath>
#include <cstdio>
#include <limits>
#include <memory>
#include <random>
#include <vector>

#include "kernel_api.h"

using namespace pading_msda;

template <class T>
std::unique_ptr<T[]> filled(std::mt19937& random, int64_t n, double low, double high) {
  std::unique_ptr<T[]> data(new T[n]);
  std::uniform_real_distribution<double> number(low, high);
  for (int64_t i = 0; i < n; ++i) data[i] = T(number(random));
  return data;
}

template <class V, class A>
void run(const Variant& variant, Type type, std::mt19937& random, std::vector<int64_t> shapes, int64_t channels,
         int64_t points, int64_t heads, int64_t batch, int64_t queries) {
  const int64_t levels = int64_t(shapes.size()) / 2;
  std::vector<Level> maps;
  int64_t pixels = 0, cells = 0;
  for (int64_t l = 0; l < levels; ++l) {
    maps.push_back({shapes[2 * l], shapes[2 * l + 1], pixels, cells});
    pixels += shapes[2 * l] * shapes[2 * l + 1];
    cells += map_cells(shapes[2 * l], shapes[2 * l + 1]);
  }
  const int64_t samples = batch * queries * heads * levels * points, numbers = batch * pixels * heads * channels;
  const auto value = filled<V>(random, numbers, 0, 100);
  const auto grad_output = filled<A>(random, batch * queries * heads * channels, -1, 1);
  const auto locations = filled<A>(random, 2 * samples, -0.5, 1.5), weights = filled<A>(random, samples, 0, 1);
  const double tiny = std::numeric_limits<A>::denorm_min();
  const double hostile[] = {NAN, INFINITY, -INFINITY, 1e30, -1e30, 1e9, 0, 1, -0.0, tiny};
  for (int64_t i = 0; i < 2 * samples; i += 3) locations[i] = A(hostile[random() % 10]);
  auto packed = filled<V>(random, batch * heads * cells * channels, 0, 0);
  auto output = filled<V>(random, batch * queries * heads * channels, 0, 0);
  auto grad_value = filled<V>(random, numbers, 0, 0);
  auto grad_locations = filled<A>(random, 2 * samples, 0, 0), grad_weights = filled<A>(random, samples, 0, 0);
  Problem p{};
  p.batch = batch, p.pixels = pixels, p.heads = heads, p.channels = channels;
  p.queries = queries, p.levels = levels, p.points = points, p.cells = cells, p.level = maps.data();
  p.batch_stride = pixels * heads * channels, p.pixel_stride = heads * channels, p.head_stride = channels;
  p.value = value.get(), p.packed = packed.get(), p.locations = locations.get(), p.weights = weights.get();
  p.output = output.get(), p.grad_output = grad_output.get(), p.grad_value = grad_value.get();
  p.grad_locations = grad_locations.get(), p.grad_weights = grad_weights.get();
  for (int64_t head = 0; head < batch * heads; ++head) {
    for (int64_t level = 0; level < levels; ++level) variant.pack(p, type, head, level);
    variant.forward(p, type, head, 0, queries / 3);
    variant.forward(p, type, head, queries / 3, queries);
    for (int64_t level = 0; level < levels; ++level) {
      auto scratch = filled<A>(random, 2 * map_cells(maps[level].height, maps[level].width) * channels, 0, 0);
      variant.backward(p, type, head, level, scratch.get());
    }
  }
}

int main() {
  std::vector<const Variant*> variants{&variant_baseline};
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) variants.push_back(&variant_avx2);
  if (__builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw"))
    variants.push_back(&variant_avx512);
#endif
  int runs = 0;
  for (const Variant* variant : variants) {
    std::mt19937 random(1);
    for (const auto& shapes : {std::vector<int64_t>{1, 1}, {5, 7}, {3, 4, 6, 8, 1, 9}, {1, 7, 9, 1, 3, 3, 2, 5}})
      for (int64_t channels : {1, 4, 7, 30, 32, 33, 64, 71})
        for (int64_t points : {1, 4, 5})
          for (int64_t queries : {1, 2, 23}) {
            run<float, float>(*variant, Type::f32, random, shapes, channels, points, 3, 2, queries);
            run<double, double>(*variant, Type::f64, random, shapes, channels, points, 2, 1, queries);
            run<uint16_t, float>(*variant, Type::bf16, random, shapes, channels, points, 2, 2, queries);
            run<uint16_t, float>(*variant, Type::f16, random, shapes, channels, points, 1, 2, queries);
            runs += 4;
          }
  }
  std::printf("%d runs of %zu variants\n", runs, variants.size());
  return 0;
}
