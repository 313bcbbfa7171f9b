// CUDA's words on a CPU, for running a kernel thread by thread: every thread of a block is a fibre that runs until a
// barrier. A thread that misses a barrier which others wait at, undefined on a GPU, ends the program.
#pragma once
#include <ucontext.h>

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
#define __launch_bounds__(threads)
#define MSDA_SHARED(name) unsigned char* name = emulation::shared.get()

using std::floor;
struct Index {
  int64_t x;
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

static void launch(int64_t blocks, int threads, int shared_bytes, std::function<void()> body) {
  kernel = std::move(body);
  blockDim.x = threads;
  exchanged.resize(threads);
  for (blockIdx.x = 0; blockIdx.x < blocks; ++blockIdx.x) {
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
}
}  // namespace emulation

static inline void __syncthreads() {
  const Index self = threadIdx;
  swapcontext(&emulation::fibres[self.x].context, &emulation::scheduler);
  threadIdx = self;
}

template <class T>
static inline T __shfl_xor_sync(unsigned mask, T value, int step) {
  if (mask != 0xffffffffu) std::abort();
  emulation::exchanged[threadIdx.x] = double(value);
  __syncthreads();
  const T other = T(emulation::exchanged[threadIdx.x ^ step]);
  __syncthreads();
  return other;
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
  uint16_t best = 0;
  for (uint32_t bits = 0; bits <= 0x7c00; ++bits) {
    const float here = std::fabs(__half2float({uint16_t(bits)}) - std::fabs(v));
    const float there = std::fabs(__half2float({best}) - std::fabs(v));
    if (here < there || (here == there && (bits & 1) == 0)) best = uint16_t(bits);
  }
  return {uint16_t(best | (std::signbit(v) ? 0x8000 : 0))};
}
