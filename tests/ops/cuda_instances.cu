// Every instance of the CUDA kernels, for compiling them where PyTorch has no CUDA.
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#define MSDA_SHARED(name) extern __shared__ __align__(16) unsigned char name[]
#include "kernel.cuh"

namespace pading_msda {
#define INSTANCE(V, VEC)                                                                                               \
  template __global__ void forward_kernel<V, VEC>(Sizes, Levels, const V*, const SumOf<V>::type*,                      \
                                                  const SumOf<V>::type*, V*);                                          \
  template __global__ void backward_kernel<V, VEC>(Sizes, Levels, const V*, const V*, const SumOf<V>::type*,           \
                                                   const SumOf<V>::type*, SumOf<V>::type*, SumOf<V>::type*,            \
                                                   SumOf<V>::type*);
INSTANCE(float, 1)
INSTANCE(float, 2)
INSTANCE(float, 4)
INSTANCE(double, 1)
INSTANCE(double, 2)
INSTANCE(half_bits, 1)
INSTANCE(half_bits, 2)
INSTANCE(half_bits, 4)
INSTANCE(half_bits, 8)
INSTANCE(bfloat_bits, 1)
INSTANCE(bfloat_bits, 2)
INSTANCE(bfloat_bits, 4)
INSTANCE(bfloat_bits, 8)
}  // namespace pading_msda
