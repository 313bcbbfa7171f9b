// What the kernel variants offer to the PyTorch binding. No PyTorch header is needed on this side of the wall.
#pragma once
#include <cstdint>

namespace pading_msda {

enum class Type : int { f32 = 0, f64 = 1, bf16 = 2, f16 = 3 };

// Sizes and addresses of one call; everything is contiguous. "acc" is double for f64 values, otherwise float.
//
// The kernel reads values packed by head, so that the few pixels a head visits for neighbouring queries share cache
// lines and pages, and every map comes with a margin of zeros, so that no sample needs a test for where its corners
// lie. A map of height h and width w takes map_cells(h, w) cells of `channels` numbers, w + 1 to a row: a row of zeros
// above, then each row of the map with one zero cell before it (which is also the one behind the row before), a row of
// zeros below, and two more cells, so that from cell (h + 1, 0), where samples outside the map go, all four corners
// are margin.
// The value's gradient is summed in the same form; what comes to lie in its margins is thrown away.
struct Level {
  int64_t height, width;  // both zero if the map has no pixel
  int64_t pixel;          // its first pixel in the value
  int64_t first;          // its first cell in a packed head
};

inline int64_t map_cells(int64_t height, int64_t width) { return (height + 2) * (width + 1) + 2; }

struct Problem {
  int64_t batch, pixels, heads, channels, queries, levels, points;
  int64_t cells;            // of all levels of a head
  const Level* level;       // (levels)
  const void* value;        // value type (batch, pixels, heads, channels), with these strides in numbers, the last 1:
  int64_t batch_stride, pixel_stride, head_stride;
  void* packed;             // forward only: value type (batch, heads, cells, channels)
  const void* locations;    // acc (batch, queries, heads, levels, points, 2)
  const void* weights;      // acc (batch, queries, heads, levels, points)
  void* output;             // value type (batch, queries, heads * channels)
  const void* grad_output;  // acc, same shape
  void* grad_value;         // value type (batch, pixels, heads, channels), contiguous; only the pixels of maps are set
  void* grad_locations;     // acc
  void* grad_weights;       // acc
};

// One compilation of kernel.h for one instruction set. `head` counts through (batch, heads).
struct Variant {
  const char* name;
  // Copy one map of one head to p.packed. The forward pass of a head needs all of its maps there.
  void (*pack)(const Problem&, Type, int64_t head, int64_t level);
  // One head's output for the queries [begin, end) of its image.
  void (*forward)(const Problem&, Type, int64_t head, int64_t begin, int64_t end);
  // All gradients of one level of one head. Nobody else touches these pixels or these samples, so that the sums come
  // in the order of the queries, however many threads there are. `scratch`: 2 * map_cells * channels acc numbers,
  // aligned to 64 bytes.
  void (*backward)(const Problem&, Type, int64_t head, int64_t level, void* scratch);
};

extern const Variant variant_baseline;
#if defined(__x86_64__)
extern const Variant variant_avx2;
extern const Variant variant_avx512;
#endif

}  // namespace pading_msda
