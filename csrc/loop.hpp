#pragma once

#include <cstddef>
#include <cstdint>

// The time loop of a Plan: phases of grouped matrix products and elementwise instructions, run on
// blocks of a few rows and units while they are hot in cache. Knows neither Python nor torch, and
// nothing here is specific to a cell.
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
  standard,      // (a - b) * c
  expand,        // a number of each row, to all its units
  muladd,        // a * b + c
  submul,        // c - a * b
  sigmoid_slope, // a * (b * (1 - b))
  tanh_slope,    // a * (1 - b * b)
};

// How the address of row n at time t is found in a tensor.
enum class Kind : std::uint8_t {
  step,          // (T, N, width), given with its strides
  row,           // (N, width): the same at every step; scratch of the loop where none is given
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

// A narrow instruction is on one number a row: such a slot is (row, one vector of equal lanes).
struct Instruction {
  Op op;
  bool narrow;
  std::uint16_t out, a, b, c;
  double low, high;
};

// A tensor's values into a slot, or back. Of width 1: one number a row, in a narrow slot. A slot of
// nobody else may be the tensor's own memory.
struct Access {
  std::uint16_t slot, tensor;
  bool alone;
  bool add; // written: to what the tensor holds; read: it stays, being the same at all times
};

// A slot of zeros and ones drawn at random: `hit` with the probability `rate`, else `miss`. The
// draw depends on the number of the mask in the call, row, step (where `stepped`) and unit alone.
struct Mask {
  std::uint16_t slot, number;
  bool stepped;
  double rate, hit, miss;
};

// One operand's part of a product. The packed weights are (panel, depth, block, unit).
struct Segment {
  std::uint16_t operand, weight;
  std::uint32_t depth;
};

constexpr std::int32_t kFromZero = -1, kFromSlot = -2;
constexpr std::uint32_t kMaxSegments = 4;

// slots[k] = starts[k] + Σ over segments (block k's weights) · operand, in order of segments and
// depth. A start is the number of a tensor, kFromZero or kFromSlot.
struct Product {
  Span<Segment> segments;
  Span<std::uint16_t> slots;
  Span<std::int32_t> starts;
};

struct Phase {
  std::uint32_t width;  // units
  std::uint32_t weight; // numbers of packed weights for each unit
  Span<Product> products;
  Span<Mask> masks;
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
  std::int64_t weights;    // numbers that the loop reads each step
  bool backward;           // steps run from the last to the first
};

// One tensor as one thread addresses it: the row at position p of those active in a step, which is
// row n at time t and the c-th of a chunk of steps, lies at
//   base + t * by_time + n * by_row + c * by_chunk + p * by_position    (elements)
// A state has two bases, which alternate from step to step. Where a place is ranked, t is the step
// and n the row's rank, so that rows which a thread takes together lie together.
struct Place {
  void *base[2];
  std::int64_t by_time, by_row, by_chunk, by_position;
  std::uint32_t width;
  std::uint32_t panels; // of kind partial and chunk_partial; else 0
  bool ranked = false;
};

// How often a thread has come to where all wait for each other. Each thread writes its own and
// reads the others', so that a wait costs one journey of a cache line and not three.
struct alignas(128) Arrivals {
  std::int64_t count;
  alignas(128) std::int64_t waited; // nanoseconds
};

// What one of several threads does of n things in a row: those from first(n) to last(n).
struct Portion {
  static constexpr std::int64_t kWhole = 1 << 16;
  std::int64_t from = 0, to = kWhole;
  std::int64_t first(std::int64_t n) const { return (n * from + kWhole / 2) / kWhole; }
  std::int64_t last(std::int64_t n) const { return (n * to + kWhole / 2) / kWhole; }
};

// One thread's share: its rows, longest first, and its memory.
struct Share {
  const LoopPlan *plan;
  const Place *places;
  const void *const *weights; // packed
  const std::int64_t *rows;   // row numbers
  const std::int64_t *lengths;
  const std::int64_t *ranks; // null where no place is ranked
  std::int64_t row_count;
  std::int64_t steps, chunk_steps;
  bool reverse;                    // a row's step s is at time length - 1 - s
  std::int64_t *time, *row, *step; // (chunk_steps * row_count), scratch
  std::int64_t *rank;              // the same, or null
  std::int64_t *chunk_start;       // (chunk_steps), scratch
  void *slots;
  void *record; // of what a step does, for the steps alike after it; two of them for several steps
  std::size_t record_bytes;     // of each
  std::uint64_t seed;           // of masks
  std::int64_t first_step;      // what the masks number the first step
  const std::uint32_t *streams; // one for each mask
  Portion units;                // that are this thread's
  bool together;                // all threads have the same rows, and wait after each phase
  const std::int64_t *source;   // steps that what this reads has done, and null where it is there
  std::int64_t *progress;       // steps done, for others; or null
  // Backward: the steps of the whole call, and what is done after every few of them, counted from
  // step 0, when all threads have come so far. No stretch: nothing.
  std::int64_t all_steps, stretch;
  void (*after)(void *context, int thread, std::int64_t from, std::int64_t to);
  void *context;
  Arrivals *arrivals; // of all threads
  int thread, threads;
};

// A matrix whose row k lies at base + (at == null ? k : at[k]) * stride    (elements)
struct Rows {
  const void *base;
  std::int64_t stride;
  const std::int64_t *at;
};

// c[j, i] = Σ_k a[k, j] · b[k, i], in order of k: J × I. `add`: to what c holds.
struct Outer {
  Rows b;
  void *c;
  std::int64_t c_stride, width; // width: I
  bool add;
};

// Columns of a matrix that lie together.
struct Columns {
  Rows rows;
  std::int64_t width;
};

// Rows from … to of a job's matrices. What it adds up begins with the first and ends with the last
// stretch.
struct Stretch {
  std::int64_t from, to;
  bool begins, ends;
};

// Several such products with one a, whose columns are those of some matrices side by side, and the
// sums of a over k. The order of c's sums and their bits do not depend on how the work is shared
// among threads.
struct OuterJob {
  Span<Columns> a;
  std::int64_t height; // J
  Span<Outer> products;
  void *sums; // (J), or null
  bool add_sums;
};

// c[m, i] = Σ over segments Σ_k a_s[m, k] · weights_s(k, i), weights packed with one block.
struct Through {
  Rows a;
  const void *weights;
  std::int64_t depth;
};

struct ThroughJob {
  Span<Through> segments; // at most kMaxSegments
  Rows c;                 // written
  std::int64_t width, vectors;
  bool add;
};

// Bytes that a thread needs for an OuterJob: while it runs, and from its first stretch to its last.
struct Scratch {
  std::size_t packed, sums;
};

// One instruction set's build of the loop.
struct Kernels {
  const char *name;
  int bytes;       // of a vector
  int max_vectors; // that a product's tile spans
  void (*run_float)(const Share &);
  void (*run_double)(const Share &);
  // The last step of such a run once more, from and to the same memory, in a share that has not
  // moved since. False, and nothing done, where it did not fit in the record.
  bool (*again_float)(const Share &);
  bool (*again_double)(const Share &);
  void (*outer_float)(const OuterJob &, const Stretch &, const Portion &, void *packed, void *sums);
  void (*outer_double)(const OuterJob &, const Stretch &, const Portion &, void *packed,
                       void *sums);
  Scratch (*outer_scratch)(const OuterJob &, const Portion &);
  void (*through_float)(const ThroughJob &, const Stretch &, const Portion &);
  void (*through_double)(const ThroughJob &, const Stretch &, const Portion &);
  // out[k] = f(x[k]); count a multiple of the lanes. For tests of the functions' error.
  void (*apply_float)(Op, const float *x, float *out, std::size_t count);
  void (*apply_double)(Op, const double *x, double *out, std::size_t count);
};

// Bytes of a core's second-level cache. Decides what is done together, never in which order a sum
// is taken.
extern const std::int64_t second_level_cache;

extern const Kernels kernels_baseline;
#if defined(HEADGATE_X86)
extern const Kernels kernels_avx2;
extern const Kernels kernels_avx512;
#endif

} // namespace headgate
