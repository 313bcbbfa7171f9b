// The classic kernels behind a plain C function, run on the CPU.
#include "cuda_emulation.h"

#include "benchmark_im2col.cuh"

// n: batch, pixels, heads, channels, queries, levels, points.
extern "C" void run_im2col(const int64_t* n, const int64_t* shapes, const int64_t* starts, const double* value,
                       const double* locations, const double* weights, double* output, const double* grad,
                       double* grad_value, double* grad_locations, double* grad_weights) {
  const im2col::Sizes s{int(n[0]), int(n[1]), int(n[2]), int(n[3]), int(n[4]), int(n[5]), int(n[6])};
  const int64_t outputs = int64_t(s.batch) * s.queries * s.heads * s.channels;
  emulation::launch({(outputs + 31) / 32, 1, 1}, 32, 0, [&] {
    im2col::forward_kernel<double, double>(s, value, shapes, starts, locations, weights, output);
  });
  int threads = 1;
  while (threads < s.channels) threads *= 2;
  emulation::launch({int64_t(s.batch) * s.queries * s.heads, 1, 1}, threads, 3 * threads * int(sizeof(double)), [&] {
    im2col::backward_kernel<double, double>(s, grad, value, shapes, starts, locations, weights, grad_value,
                                            grad_locations, grad_weights);
  });
}
