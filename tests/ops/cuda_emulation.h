// CUDA's words on a CPU, for running a kernel thread by thread: every thread of a block is a fibre that runs until a
// barrier. A thread that misses a barrier which others wait at, undefined on a GPU, ends the program.
#pragma once
#include <ucontext.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <vector>

#define __device__
#define __host__
#define __global__
#define __launch_bounds__(...)
#define MSDA_SHARED(name) unsigned char* name = emulation::shared.get()

using std::exp;
using std::floor;
using std::fmax;
using std::min;
struct Index {
  int64_t x, y, z;
};
static Index blockIdx, blockDim, threadIdx;

namespace emulation {
struct Fibre {
  ucontext_t context;
  std::vector<char> stack = std::vector<char>(64 << 10);
  bool finished = false;
};
struct Free {
  void operator()(void* p) const { std::free(p); }
};
static std::unique_ptr<unsigned char[], Free> shared;
static std::vector<Fibre> fibres;
static ucontext_t scheduler;
static std::vector<double> exchanged;
static std::function<void()> kernel;

static void run() {
  kernel();
  fibres[threadIdx.x].finished = true;
  swapcontext(&fibres[threadIdx.x].context, &scheduler);
}

static void run_block(int threads, int shared_bytes);

static void launch(Index blocks, int threads, int shared_bytes, std::function<void()> body) {
  kernel = std::move(body);
  blockDim = {threads, 1, 1};
  exchanged.resize(threads);
  for (blockIdx.z = 0; blockIdx.z < blocks.z; ++blockIdx.z)
    for (blockIdx.y = 0; blockIdx.y < blocks.y; ++blockIdx.y)
      for (blockIdx.x = 0; blockIdx.x < blocks.x; ++blockIdx.x) run_block(threads, shared_bytes);
}

static void run_block(int threads, int shared_bytes) {
  // Exactly what was asked for (rounded to the alignment), filled with rubbish.
  const size_t bytes = (shared_bytes + 15) / 16 * 16;
  shared.reset(static_cast<unsigned char*>(std::aligned_alloc(16, bytes ? bytes : 16)));
  std::memset(shared.get(), 0xa5, bytes);
  fibres = std::vector<Fibre>(threads);
  for (Fibre& fibre : fibres) {
    getcontext(&fibre.context);
    fibre.context.uc_stack.ss_sp = fibre.stack.data();
    fibre.context.uc_stack.ss_size = fibre.stack.size();
    fibre.context.uc_link = &scheduler;
    makecontext(&fibre.context, run, 0);
  }
  for (int finished = 0; finished < threads;) {
    finished = 0;
    for (threadIdx.x = 0; threadIdx.x < threads; ++threadIdx.x) {
      swapcontext(&scheduler, &fibres[threadIdx.x].context);
      finished += fibres[threadIdx.x].finished;
    }
    if (finished != 0 && finished != threads) {
      std::fprintf(stderr, "%d of %d threads left while the others wait at a barrier\n", finished, threads);
      std::abort();
    }
  }
}
}  // namespace emulation

static inline void __syncthreads() {
  const Index self = threadIdx;
  swapcontext(&emulation::fibres[self.x].context, &emulation::scheduler);
  threadIdx = self;
}

// Of a warp on a GPU; here a barrier of the block, at which all its warps arrive the same number of times.
static inline void __syncwarp() { __syncthreads(); }
static inline int __ffs(int v) { return __builtin_ffs(v); }

template <class T>
static inline T __shfl_xor_sync(unsigned mask, T value, int step) {
  if (mask != 0xffffffffu) std::abort();
  emulation::exchanged[threadIdx.x] = double(value);
  __syncthreads();
  const T other = T(emulation::exchanged[threadIdx.x ^ step]);
  __syncthreads();
  return other;
}

struct alignas(8) uint2 {
  uint32_t x, y;
};
struct alignas(16) uint4 {
  uint32_t x, y, z, w;
};
template <class T>
static inline T __ldg(const T* from) {
  return *from;
}

struct float4 {
  float x, y, z, w;
};
static inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
static inline void atomicAdd(float4* to, float4 v) { *to = {to->x + v.x, to->y + v.y, to->z + v.z, to->w + v.w}; }
template <class T>
static inline void atomicAdd(T* to, T value) {
  *to += value;
}

template <class To, class From>
static inline To bits_of(From from) {
  To to;
  std::memcpy(&to, &from, sizeof(to));
  return to;
}
static inline float __uint_as_float(uint32_t v) { return bits_of<float>(v); }
static inline uint32_t __float_as_uint(float v) { return bits_of<uint32_t>(v); }

static inline double __hiloint2double(int high, int low) {
  return bits_of<double>(uint64_t(uint32_t(high)) << 32 | uint32_t(low));
}

struct __nv_bfloat16 {
  uint16_t bits;
};
static inline uint16_t __bfloat16_as_ushort(__nv_bfloat16 v) { return v.bits; }
static inline __nv_bfloat16 __float2bfloat16_rn(float v) {
  const uint32_t bits = __float_as_uint(v);
  return {v != v ? uint16_t(0x7fff) : uint16_t((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16)};
}

struct __half {
  uint16_t bits;
};
static inline __half __ushort_as_half(uint16_t bits) { return {bits}; }
static inline uint16_t __half_as_ushort(__half h) { return h.bits; }
static inline float __half2float(__half h) {
  const int exponent = (h.bits >> 10) & 31, fraction = h.bits & 1023;
  float v = exponent == 31 ? (fraction ? NAN : INFINITY)
            : exponent     ? std::ldexp(float(1024 + fraction), exponent - 25)
                           : std::ldexp(float(fraction), -24);
  return h.bits & 0x8000 ? -v : v;
}
static inline __half __float2half_rn(float v) {  // by search: slow and obviously right
  const uint16_t sign = std::signbit(v) ? 0x8000 : 0;
  if (v != v) return {0x7fff};
  const float wanted = std::fabs(v);
  uint16_t below = 0, above = 0x7c00;  // infinity
  while (above - below > 1) {
    const uint16_t middle = uint16_t((below + above) / 2);
    (__half2float({middle}) <= wanted ? below : above) = middle;
  }
  // Infinity is as far from the largest number as if there was a next one.
  const double low = __half2float({below}), high = above == 0x7c00 ? 65536.0 : __half2float({above});
  const bool up = wanted - low > high - wanted || (wanted - low == high - wanted && below % 2);
  return {uint16_t(sign | (up ? above : below))};
}
