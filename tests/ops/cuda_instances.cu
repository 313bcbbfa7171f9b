// Every instance of the CUDA kernels, for compiling them where PyTorch has no CUDA.
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#define MSDA_SHARED(name) extern __shared__ __align__(16) unsigned char name[]
#include "kernel.cuh"

namespace pading_msda {
template <class V>
using Sum = typename SumOf<V>::type;

#define OF_SOURCE(V, VEC, SOURCE, GRADIENTS)                                                                         \
  template __global__ void forward_kernel<V, VEC, SOURCE>(Sizes, Levels, SOURCE, const V*, V*);                      \
  template __global__ void backward_kernel<V, VEC, SOURCE, GRADIENTS>(Sizes, Levels, SOURCE, const V*, const V*,     \
                                                                      Sum<V>*, Sorting<Sum<V>>, GRADIENTS);
#define INSTANCE(V, VEC)                                                                                             \
  OF_SOURCE(V, VEC, Given<Sum<V>>, GivenGradients<Sum<V>>)                                                           \
  OF_SOURCE(V, VEC, Projected<V>, ProjectedGradients<V>)                                                             \
  template __global__ void collect_kernel<V, VEC>(Sizes, Levels, const int*, const int64_t*, const Sample<Sum<V>>*, \
                                                  const V*, V*);
INSTANCE(float, 1)
INSTANCE(float, 2)
INSTANCE(float, 4)
INSTANCE(double, 1)
INSTANCE(double, 2)
INSTANCE(half_bits, 1)
INSTANCE(half_bits, 2)
INSTANCE(half_bits, 8)
INSTANCE(bfloat_bits, 1)
INSTANCE(bfloat_bits, 2)
INSTANCE(bfloat_bits, 8)
}  // namespace pading_msda
