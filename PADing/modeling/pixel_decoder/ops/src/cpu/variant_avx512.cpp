#include "variant_prelude.h"
#if defined(__x86_64__)
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c"))), \
                             apply_to = function)
#else
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c,prefer-vector-width=512")
#endif
#define MSDA_BYTES 64
#define MSDA_F16C 1
#define MSDA_VARIANT avx512
#define MSDA_VARIANT_NAME "AVX512"
#include "variant_body.h"
#if defined(__clang__)
#pragma clang attribute pop
#endif
#endif
