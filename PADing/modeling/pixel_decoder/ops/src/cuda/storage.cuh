// Numbers in memory and in registers: storage types, sums, and packs that are read and written at once.
#pragma once
#include <cstdint>
#include <cstring>
#include <type_traits>

namespace pading_msda {

struct half_bits {
  uint16_t bits;
};
struct bfloat_bits {
  uint16_t bits;
};

// What sums of stored numbers are computed in.
template <class V>
struct SumOf {
  using type = float;
};
template <>
struct SumOf<double> {
  using type = double;
};

__device__ inline float to_sum(float v) { return v; }
__device__ inline double to_sum(double v) { return v; }
__device__ inline float to_sum(bfloat_bits v) { return __uint_as_float(uint32_t(v.bits) << 16); }
__device__ inline float to_sum(half_bits v) { return __half2float(__ushort_as_half(v.bits)); }

__device__ inline void from_sum(float v, float& to) { to = v; }
__device__ inline void from_sum(double v, double& to) { to = v; }
__device__ inline void from_sum(float v, half_bits& to) { to.bits = __half_as_ushort(__float2half_rn(v)); }
__device__ inline void from_sum(float v, bfloat_bits& to) { to.bits = __bfloat16_as_ushort(__float2bfloat16_rn(v)); }

// N numbers that are read and written at once.
template <class V, int N>
struct alignas(N * sizeof(V)) Pack {
  V at[N];
};

// The words of a pack as they come from memory. Numbers of 16 bits stay in pairs until they are needed: a compiler
// that has to keep 16-bit halves apart takes twice the registers.
template <class V, int N>
struct alignas(N * sizeof(V)) Words {
  static constexpr int bytes = N * sizeof(V);
  using Word = std::conditional_t<bytes % 4 == 0, uint32_t, uint16_t>;
  // Of the same size, for one load.
  using Whole = std::conditional_t<bytes == 16, uint4,
                                   std::conditional_t<bytes == 8, uint2, std::conditional_t<bytes == 4, uint32_t, uint16_t>>>;
  Word at[bytes / sizeof(Word)];

  // The i-th number; i is a constant after unrolling.
  __device__ typename SumOf<V>::type operator[](int i) const {
    if constexpr (sizeof(V) == 8) {
      return __hiloint2double(int(at[2 * i + 1]), int(at[2 * i]));
    } else if constexpr (sizeof(V) == 4) {
      return __uint_as_float(at[i]);
    } else if constexpr (bytes == 2) {
      return to_sum(V{at[i]});
    } else if constexpr (std::is_same_v<V, bfloat_bits>) {  // a bfloat16 is the upper half of a float
      return __uint_as_float(i & 1 ? at[i / 2] & 0xffff0000u : at[i / 2] << 16);
    } else {
      return to_sum(V{uint16_t(i & 1 ? at[i / 2] >> 16 : at[i / 2] & 0xffffu)});
    }
  }
};

// The pack at `from`, in global memory that no kernel writes at the same time.
template <class V, int N>
__device__ inline Words<V, N> read(const V* from) {
  using Whole = typename Words<V, N>::Whole;
  const Whole whole = __ldg(reinterpret_cast<const Whole*>(from));
  Words<V, N> words;
  memcpy(&words, &whole, sizeof(words));
  return words;
}

// `p` as a number that the compiler knows nothing about. Else it would not keep a sum of a pointer and an offset, but
// add them anew for each pixel.
template <class V>
__device__ inline V* opaque(V* p) {
#if defined(__CUDA_ARCH__)
  asm("" : "+l"(p));
#endif
  return p;
}

// The pack at `from`, or zeros. Zeros first and a load under a condition need no branch, so that several loads are on
// their way at once.
template <class V, int N>
__device__ inline Words<V, N> read_if(bool there, const V* from) {
  Words<V, N> words;
#pragma unroll
  for (int i = 0; i < int(sizeof(words) / sizeof(words.at[0])); ++i) words.at[i] = 0;
  if (there) words = read<V, N>(from);
  return words;
}

template <class V, class A, int N>
__device__ inline void write(V* to, const A (&what)[N]) {
  Pack<V, N> pack;
#pragma unroll
  for (int i = 0; i < N; ++i) from_sum(what[i], pack.at[i]);
  *reinterpret_cast<Pack<V, N>*>(to) = pack;
}

// Two neighbours, at once if the address allows it (`aligned`: it is a multiple of their size).
template <class V, class A>
__device__ inline void read_pair(const V* from, bool aligned, A& x, A& y) {
  if (aligned) {
    const Pack<V, 2> pair = *reinterpret_cast<const Pack<V, 2>*>(from);
    x = to_sum(pair.at[0]), y = to_sum(pair.at[1]);
  } else {
    x = to_sum(from[0]), y = to_sum(from[1]);
  }
}

// Whether `count` numbers can be moved at once from and to this address.
template <class V>
__host__ inline bool is_aligned(const void* address, int count) {
  return reinterpret_cast<uintptr_t>(address) % (count * sizeof(V)) == 0;
}

// The most channels, up to 16 bytes of them, that can be moved at once from all these addresses. There are kernels for
// 1 number, 2 numbers, and 16 bytes.
template <class V, class... Addresses>
__host__ inline int pack_size(int channels, Addresses... addresses) {
  for (int vec : {16 / int(sizeof(V)), 2})
    if (channels % vec == 0 && (is_aligned<V>(addresses, vec) && ...)) return vec;
  return 1;
}

}  // namespace pading_msda
