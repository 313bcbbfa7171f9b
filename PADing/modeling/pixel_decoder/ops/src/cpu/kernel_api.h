// What the kernel variants offer to the PyTorch binding. No PyTorch header is needed on this side of the wall.
#pragma once
#include <cstdint>

namespace pading_msda {

enum class Type : int { f32 = 0, f64 = 1, bf16 = 2, f16 = 3 };

// Sizes and addresses of one call; everything is contiguous. "acc" is double for f64 values, otherwise float.
//
// Values come packed by head, so that the few pixels a head visits for neighbouring queries share cache lines and
// pages. Behind the pixels of each head lie `levels` more pixels: what samples of level l read and write outside
// their map. In the values they are zero; in the gradient they are rubbish to be thrown away.
struct Problem {
  int64_t batch, pixels, heads, channels, queries, levels, points;
  const int64_t* level_table;  // (levels, 3): height, width, first pixel
  const void* value;           // (batch, heads, pixels + levels, channels); value type, in the backward pass acc
  const void* locations;       // acc (batch, queries, heads, levels, points, 2)
  const void* weights;         // acc (batch, queries, heads, levels, points)
  void* output;                // value type (batch, queries, heads * channels)
  const void* grad_output;     // acc, same shape
  void* grad_value;            // acc, shape of value; the pixels of every level are overwritten
  void* grad_locations;        // acc
  void* grad_weights;          // acc
};

// One compilation of kernel.h for one instruction set.
struct Variant {
  const char* name;
  // Output of the queries [begin, end) of the flattened (batch, queries).
  void (*forward)(const Problem&, Type, int64_t begin, int64_t end);
  // All gradients of the tasks [begin, end) of the flattened (batch, heads, levels).
  void (*backward)(const Problem&, Type, int64_t begin, int64_t end);
};

extern const Variant variant_baseline;
#if defined(__x86_64__)
extern const Variant variant_avx2;
extern const Variant variant_avx512;
#endif

}  // namespace pading_msda
