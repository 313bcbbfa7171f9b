// Short vectors of W numbers on the vector extensions that GCC and Clang share, and loads and stores that convert to
// and from the storage types. Included inside a variant's namespace, so that each instruction set has its own copy of
// every function.

#define MSDA_INLINE static inline __attribute__((always_inline))
#define MSDA_INLINE_MEMBER inline __attribute__((always_inline))
#define MSDA_INLINE_LAMBDA __attribute__((always_inline))

template <int n>
struct Int {
  static constexpr int value = n;
};

#if defined(__has_builtin)
#if __has_builtin(__builtin_shufflevector)  // Clang, and GCC from 12
#define MSDA_HAS_SHUFFLEVECTOR 1
#endif
#endif

struct bf16_t {
  uint16_t bits;
};
struct f16_t {
  uint16_t bits;
};

template <class T, int W>
struct VecOf {
  typedef T type __attribute__((vector_size(W * sizeof(T))));
};
template <class T, int W>
using Vec = typename VecOf<T, W>::type;

template <class To, class From>
MSDA_INLINE To bits_as(From from) {
  static_assert(sizeof(To) == sizeof(From), "bits_as needs equal sizes");
  To to;
  __builtin_memcpy(&to, &from, sizeof(to));
  return to;
}

template <class T, int W>
MSDA_INLINE Vec<T, W> load_raw(const void* from) {
  Vec<T, W> v;
  __builtin_memcpy(&v, from, sizeof(v));
  return v;
}

// ---- half precision, by integer arithmetic where the machine has no instruction for it

template <int W>
MSDA_INLINE Vec<float, W> widen_bf16(Vec<uint16_t, W> h) {
  return bits_as<Vec<float, W>>(__builtin_convertvector(h, Vec<uint32_t, W>) << 16);
}

template <int W>
MSDA_INLINE Vec<uint16_t, W> narrow_bf16(Vec<float, W> f) {
  const auto bits = bits_as<Vec<uint32_t, W>>(f);
  const auto rounded = (bits + (0x7fffu + ((bits >> 16) & 1u))) >> 16;  // to nearest, ties to even
  const auto is_nan = bits_as<Vec<uint32_t, W>>(f != f);
  return __builtin_convertvector((rounded & ~is_nan) | (is_nan & 0x7fc0u), Vec<uint16_t, W>);
}

template <int W>
MSDA_INLINE Vec<float, W> widen_f16(Vec<uint16_t, W> half) {
#if defined(MSDA_F16C)
#if MSDA_BYTES == 64
  if constexpr (W == 16) return bits_as<Vec<float, W>>(_mm512_maskz_cvtph_ps(0xffff, bits_as<__m256i>(half)));
#endif
  if constexpr (W == 8) return bits_as<Vec<float, W>>(_mm256_cvtph_ps(bits_as<__m128i>(half)));
#endif
  const auto h = __builtin_convertvector(half, Vec<uint32_t, W>);
  // Shifted into place the exponent is 112 too small, which a multiplication mends, for subnormal numbers too.
  const auto magnitude = bits_as<Vec<float, W>>((h & 0x7fffu) << 13) * 0x1p112f;
  const auto special = bits_as<Vec<uint32_t, W>>((h & 0x7fffu) >= 0x7c00u) & 0x7f800000u;  // infinity and NaN
  return bits_as<Vec<float, W>>(bits_as<Vec<uint32_t, W>>(magnitude) | special | ((h & 0x8000u) << 16));
}

MSDA_INLINE uint16_t narrow_f16_one(float f) {
  const uint32_t bits = bits_as<uint32_t>(f), sign = (bits >> 16) & 0x8000u, magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) return uint16_t(sign | 0x7e00u);
  if (magnitude >= 0x477ff000u) return uint16_t(sign | 0x7c00u);  // rounds to infinity
  if (magnitude < 0x38800000u) {                                 // subnormal: let the addition round
    const float shifted = bits_as<float>(magnitude) + 0.5f;
    return uint16_t(sign | (bits_as<uint32_t>(shifted) - bits_as<uint32_t>(0.5f)));
  }
  return uint16_t(sign | ((magnitude - 0x38000000u + 0xfffu + ((magnitude >> 13) & 1u)) >> 13));
}

template <int W>
MSDA_INLINE Vec<uint16_t, W> narrow_f16(Vec<float, W> f) {
#if defined(MSDA_F16C)
#if MSDA_BYTES == 64
  if constexpr (W == 16)
    return bits_as<Vec<uint16_t, W>>(_mm512_maskz_cvtps_ph(0xffff, bits_as<__m512>(f), _MM_FROUND_TO_NEAREST_INT));
#endif
  if constexpr (W == 8)
    return bits_as<Vec<uint16_t, W>>(_mm256_cvtps_ph(bits_as<__m256>(f), _MM_FROUND_TO_NEAREST_INT));
#endif
  Vec<uint16_t, W> half;
  for (int i = 0; i < W; ++i) half[i] = narrow_f16_one(f[i]);
  return half;
}

// ---- load and store W channels of a storage type V as numbers of the accumulation type A

template <class V, class A, int W>
MSDA_INLINE Vec<A, W> load(const V* from) {
  if constexpr (std::is_same_v<V, bf16_t>) return widen_bf16<W>(load_raw<uint16_t, W>(from));
  else if constexpr (std::is_same_v<V, f16_t>) return widen_f16<W>(load_raw<uint16_t, W>(from));
  else return load_raw<A, W>(from);
}

template <class V, class A, int W>
MSDA_INLINE void store(V* to, Vec<A, W> v) {
  if constexpr (std::is_same_v<V, bf16_t>) {
    const auto bits = narrow_bf16<W>(v);
    __builtin_memcpy(to, &bits, sizeof(bits));
  } else if constexpr (std::is_same_v<V, f16_t>) {
    const auto bits = narrow_f16<W>(v);
    __builtin_memcpy(to, &bits, sizeof(bits));
  } else {
    __builtin_memcpy(to, &v, sizeof(v));
  }
}

// ---- across lanes

// Lanes `lane...` of a followed by b.
template <int... lane, class V>
MSDA_INLINE V shuffle(V a, V b) {
#if defined(MSDA_HAS_SHUFFLEVECTOR)
  return __builtin_shufflevector(a, b, lane...);
#else
  return __builtin_shuffle(a, b, decltype(a < b){lane...});
#endif
}

// Lanes start, start + 2, ... of a followed by b.
template <class A, int W, int start, int... lane>
MSDA_INLINE Vec<A, W> every_second(Vec<A, W> a, Vec<A, W> b, std::integer_sequence<int, lane...>) {
  return shuffle<(2 * lane + start)...>(a, b);
}
template <class A, int W, int start>
MSDA_INLINE Vec<A, W> every_second(Vec<A, W> a, Vec<A, W> b) {
  return every_second<A, W, start>(a, b, std::make_integer_sequence<int, W>());
}

// Within every group of four lanes: numbers `half` and `half + 1` of a and b, as (a, b, a, b) or as (a, a, b, b).
template <int W, bool pairs, int half>
constexpr int zip_index(int lane) {
  const int group = lane & ~3, r = lane & 3;
  return pairs ? group + half + (r >> 1) + (r & 1) * W : group + half + (r & 1) + (r >> 1) * W;
}
template <class A, int W, bool pairs, int half, int... lane>
MSDA_INLINE Vec<A, W> zip(Vec<A, W> a, Vec<A, W> b, std::integer_sequence<int, lane...>) {
  return shuffle<zip_index<W, pairs, half>(lane)...>(a, b);
}

// Four registers of one number of every sample each -> the four numbers of a sample side by side, register i with the
// samples i, 4 + i, 8 + i, ...; or below four lanes, in the order of the samples. Its own inverse from four lanes on.
template <class A, int W>
MSDA_INLINE void transpose(Vec<A, W> (&v)[4]) {
  if constexpr (W >= 4) {
    constexpr std::make_integer_sequence<int, W> all{};
    const auto a = zip<A, W, true, 0>(v[0], v[1], all), b = zip<A, W, true, 2>(v[0], v[1], all);
    const auto c = zip<A, W, true, 0>(v[2], v[3], all), d = zip<A, W, true, 2>(v[2], v[3], all);
    v[0] = zip<A, W, false, 0>(a, c, all);
    v[1] = zip<A, W, false, 2>(a, c, all);
    v[2] = zip<A, W, false, 0>(b, d, all);
    v[3] = zip<A, W, false, 2>(b, d, all);
  } else {
    A to[4 * W];
    for (int i = 0; i < W; ++i)
      for (int k = 0; k < 4; ++k) to[4 * i + k] = v[k][i];
    __builtin_memcpy(v, to, sizeof(v));
  }
}

// Upper half plus lower half.
template <class A, int W, int... lane>
MSDA_INLINE Vec<A, W / 2> fold(Vec<A, W> a, std::integer_sequence<int, lane...>) {
#if defined(MSDA_HAS_SHUFFLEVECTOR)
  return __builtin_shufflevector(a, a, lane...) + __builtin_shufflevector(a, a, (lane + W / 2)...);
#else
  return Vec<A, W / 2>{a[lane]...} + Vec<A, W / 2>{a[lane + W / 2]...};
#endif
}
template <class A, int W>
MSDA_INLINE Vec<A, 4> fold_to_4(Vec<A, W> a) {
  if constexpr (W == 4) return a;
  else return fold_to_4<A, W / 2>(fold<A, W>(a, std::make_integer_sequence<int, W / 2>()));
}

// The sums of four vectors.
template <class A, int W>
MSDA_INLINE Vec<A, 4> sum_each(Vec<A, W> a, Vec<A, W> b, Vec<A, W> c, Vec<A, W> d) {
  if constexpr (W >= 4) {
    constexpr std::make_integer_sequence<int, W> all{};
    const auto ab = zip<A, W, true, 0>(a, b, all) + zip<A, W, true, 2>(a, b, all);
    const auto cd = zip<A, W, true, 0>(c, d, all) + zip<A, W, true, 2>(c, d, all);
    return fold_to_4<A, W>(zip<A, W, false, 0>(ab, cd, all) + zip<A, W, false, 2>(ab, cd, all));
  } else {
    Vec<A, 4> sum = {a[0], b[0], c[0], d[0]};
    for (int i = 1; i < W; ++i) sum += Vec<A, 4>{a[i], b[i], c[i], d[i]};
    return sum;
  }
}

// ---- prefetching; any address will do, it is never read

template <int bytes>
MSDA_INLINE void prefetch(const void* from) {
  for (int at = 0; at < bytes; at += 64) __builtin_prefetch(static_cast<const char*>(from) + at, 0, 3);
}
template <class T>
MSDA_INLINE void prefetch_span(const T* from, int64_t count) {
  for (int64_t at = 0; at < count; at += 64 / int64_t(sizeof(T))) __builtin_prefetch(from + at);
  __builtin_prefetch(from + count - 1);
}
