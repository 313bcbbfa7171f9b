#include "variant_prelude.h"
#if defined(__x86_64__)
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma,f16c"))), apply_to = function)
#else
#pragma GCC target("avx2,fma,f16c")
#endif
#define MSDA_BYTES 32
#define MSDA_F16C 1
#define MSDA_VARIANT avx2
#define MSDA_VARIANT_NAME "AVX2"
#include "variant_body.h"
#if defined(__clang__)
#pragma clang attribute pop
#endif
#endif
