// Everything a variant needs from elsewhere, included before the compiler is told about its instruction set.
#pragma once
#include <cstddef>
#include <cstdint>
#include <new>
#include <type_traits>
#include <utility>
#if defined(__x86_64__)
#include <immintrin.h>
#endif
#include "kernel_api.h"
