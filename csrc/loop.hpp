#pragma once

#include <cstddef>
#include <cstdint>

// The time loop of a Plan: phases of grouped matrix products and elementwise instructions, run on
// tiles of a few rows and a block of units while they are hot in cache. Knows neither Python nor
// torch, and nothing here is specific to a cell.
//
// Everything in this header is plain data, shared by the builds for each instruction set.

namespace headgate {

enum class Op : std::uint8_t {
  add,
  sub,
  mul,
  div,
  neg,
  sigmoid,
  tanh,
  relu,
  exp,
  log,
  log_sigmoid,
  sqrt,
  rsqrt,
  abs,
  maximum,
  minimum,
  greater,
  greater_equal,
  less,
  less_equal,
  equal,
  where,
  clip,
  copy,
};

// How the address of row n at time t is found in a tensor.
enum class Kind : std::uint8_t {
  step,          // (T, N, width): base + t * step_stride + n * row_stride
  row,           // (N, width): base + n * row_stride
  vector,        // (width): the same for every row
  state,         // two (N, width) buffers that alternate: one is read, the other written
  chunk,         // (rows of a chunk of steps, width): scratch of one thread
  partial,       // (N, panels): sums over the units of each panel, added up when read
  chunk_partial, // (rows of a chunk of steps, panels): the same for work before the loop
};

template <class T> struct Span {
  const T *data;
  std::uint32_t size;
};

struct Instruction {
  Op op;
  std::uint16_t out, a, b, c;
  double low, high;
};

// A tensor's values into a slot, or back. Of width 1: one number a row, which fills the block when
// read and is taken from the first unit when written.
struct Access {
  std::uint16_t slot, tensor;
};

// slots[k] += (block k's weights) · operand. The packed weights are (panel, depth, block, unit).
struct Product {
  std::uint16_t operand, weight;
  std::uint32_t depth;
  Span<std::uint16_t> slots;
};

struct Phase {
  std::uint32_t width;   // units
  std::uint32_t vectors; // vectors of units that a tile spans
  std::uint32_t tile_rows;
  Span<Access> early;         // read before the products
  Span<std::uint16_t> zeroed; // slots that products add to from zero
  Span<Product> products;
  Span<Access> loads;
  Span<Instruction> instructions;
  Span<Access> stores;
  Span<Access> sums; // a slot's sum over its units, to a tensor of kind partial
};

struct Constant {
  std::uint16_t slot;
  double value;
};

struct TensorSpec {
  Kind kind;
  std::uint32_t width;
  std::uint32_t panels; // of kind partial: how many sums a row has
};

// What is compiled once for a Program and its sizes.
struct LoopPlan {
  Span<TensorSpec> tensors;
  Span<Phase> before; // on a chunk of steps at once
  Span<Phase> loop;   // each step
  Span<Constant> constants;
  std::uint32_t slots;
  std::uint32_t slot_size; // elements
  bool backward;           // steps run from the last to the first
};

// One tensor as one thread addresses it; strides count elements. `other` is a state's second
// buffer; the step stride of kind partial is its number of panels.
struct Place {
  Kind kind;
  std::uint32_t width;
  void *base, *other;
  std::int64_t step_stride, row_stride;
};

// One thread's share: its rows, longest first, and its memory.
struct Share {
  const LoopPlan *plan;
  const Place *places;
  const void *const *weights; // packed
  const std::int64_t *rows;   // row numbers
  const std::int64_t *lengths;
  std::int64_t row_count;
  std::int64_t steps, chunk_steps;
  bool reverse;              // a row's step s is at time length - 1 - s
  std::int64_t *time, *row;  // (chunk_steps * row_count), scratch
  std::int64_t *chunk_start; // (chunk_steps), scratch
  void *slots;
  int part, parts;         // this thread's part of the units, where those are split
  struct Barrier *barrier; // null where rows are split
};

struct Barrier {
  alignas(64) std::int32_t arrived;
  alignas(64) std::int32_t generation;
};

// Products over all steps at once, after the loop. Matrices are row-major with a row stride; `rows`
// lists the K (outer) or M (packed) rows that count, null for all of them in order.
//
// outer:  c[j, i] += Σ_k a[k, j] · b[k, i]          (J × I), in order of k
// packed: c[m, i] += Σ_k a[m, k] · weights(k, i)     (M × width), weights packed with one block
struct Matrices {
  const void *a, *b;
  void *c;
  std::int64_t a_stride, b_stride, c_stride;
  const std::int64_t *rows;
  std::int64_t count;         // K of outer, M of packed
  std::int64_t total;         // rows that b has in memory (outer)
  std::int64_t height, width; // outer: J and I; packed: depth and width
  std::int64_t vectors;       // packed: vectors of a panel
};

// One instruction set's build of the loop.
struct Kernels {
  const char *name;
  int bytes;       // of a vector
  int max_vectors; // that a product's tile spans
  void (*run_float)(const Share &);
  void (*run_double)(const Share &);
  void (*outer_float)(const Matrices &, int part, int parts);
  void (*outer_double)(const Matrices &, int part, int parts);
  void (*packed_float)(const Matrices &, int part, int parts);
  void (*packed_double)(const Matrices &, int part, int parts);
  // out[k] = f(x[k]); count a multiple of the lanes. For tests of the functions' error.
  void (*apply_float)(Op, const float *x, float *out, std::size_t count);
  void (*apply_double)(Op, const double *x, double *out, std::size_t count);
};

extern const Kernels kernels_baseline;
#if defined(HEADGATE_X86)
extern const Kernels kernels_avx2;
extern const Kernels kernels_avx512;
#endif

} // namespace headgate
