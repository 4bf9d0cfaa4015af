#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "loop.hpp"

// What owns a LoopPlan and runs it on threads. Baseline code: no instruction set's flags here.

namespace headgate {

constexpr std::int64_t kPad = 16; // elements; a multiple of every vector's

inline std::int64_t padded(std::int64_t width) { return (width + kPad - 1) / kPad * kPad; }

struct ProductData {
  std::vector<Segment> segments;
  std::vector<std::uint16_t> slots;
  std::vector<std::int32_t> starts;
};

struct PhaseData {
  std::uint32_t width = 0;
  std::vector<ProductData> products;
  std::vector<Mask> masks;
  std::vector<Access> loads, stores, sums;
  std::vector<Instruction> instructions;
};

// Not copyable: the view points into it.
class Plan {
public:
  Plan(std::vector<TensorSpec> tensors, std::vector<PhaseData> before, std::vector<PhaseData> loop,
       std::vector<Constant> constants, std::uint32_t slots, std::uint32_t slot_size,
       bool backward);
  Plan(const Plan &) = delete;
  Plan &operator=(const Plan &) = delete;

  const LoopPlan &view() const { return view_; }
  std::int64_t depth_work() const { return work_; }          // multiply-adds a row and step
  std::int64_t weight_elements() const { return elements_; } // read each step

private:
  void look_at(const std::vector<PhaseData> &phases, std::vector<Phase> &views,
               std::vector<std::vector<Product>> &products);

  std::vector<TensorSpec> tensors_;
  std::vector<PhaseData> before_, loop_;
  std::vector<std::vector<Product>> before_products_, loop_products_;
  std::vector<Phase> before_view_, loop_view_;
  std::vector<Constant> constants_;
  LoopPlan view_{};
  std::int64_t work_ = 0, elements_ = 0;
};

// A tensor of a call is found by the number of its memory among the call's bases and an offset in
// elements. Base -1: none.
struct Found {
  int base = -1;
  std::int64_t offset = 0, by_time = 0, by_row = 0;
};

// One tensor of a plan. A state is found (N, width) contiguous, and its final value goes to base
// `final`. Kinds chunk, partial, chunk_partial, and row without a base, are scratch, allocated
// inside and not cleared.
struct Bound {
  Found place;
  int final = -1;
};

// The T + 1 values of a state in order of time. Written before the loop: the first, from base
// `start` (N, width); read after it: each row's last, to base `final`.
struct History {
  Found place; // of time 0
  std::int64_t width;
  int start, final;
};

// A tensor (T, N, width) that is zero past each row's end.
struct Tail {
  Found place;
  std::int64_t width;
};

// How a matrix is packed into (panel, depth, block, unit): element (block, unit, k) is read at
// base + offsets[block] + unit * unit_stride + k * depth_stride; units past `width` are zero.
struct Packing {
  int base;
  std::int64_t elements; // that the base has: all are looked at to notice a change
  std::vector<std::int64_t> offsets;
  std::int64_t width, depth, unit_stride, depth_stride, unit_block;
};

// Products over all steps after the loop; a tensor (T, N, width) counts as a matrix (T · N, width).
struct OuterTerm {
  Found b, c;
  std::int64_t c_stride, width;
  bool add;
};

struct ColumnsData {
  Found place;
  std::int64_t width;
};

struct OuterData {
  std::vector<ColumnsData> a;
  std::vector<OuterTerm> products;
  Found sums;
  bool add_sums;
  bool per_row; // a is of (N, width), and there are no products
};

struct ThroughTerm {
  Found a;
  int packing;
};

struct ThroughData {
  std::vector<ThroughTerm> segments;
  Found c;
  std::int64_t width, vectors;
  bool add;
};

// A plan for given numbers of steps and rows. The plan's weights are the first packings.
struct Binding {
  std::shared_ptr<const Plan> plan;
  bool is_double, reverse;
  std::int64_t steps, rows;
  std::vector<Bound> tensors;
  std::vector<History> histories;
  std::vector<Tail> tails;
  std::vector<Tail> zeroed; // (N, width), zero before the loop
  std::vector<Packing> packings;
  std::vector<OuterData> outers;
  std::vector<ThroughData> throughs;
  std::vector<int> own; // bases of what only this call and its way back read
  Found ranks;          // (2, rows) integers of 64 bits, written forward and read backward; or none
};

struct Call {
  const Binding *binding;
  void *const *bases;
  const std::int64_t *lengths; // (rows), 0 … steps; null where every row has all steps
  std::uint64_t seed;          // of masks
  std::int64_t first_step;     // what the masks number the first step
  const std::uint32_t *streams;
};

// Runs calls that do not depend on each other, or, in a `chain`, forward loops each of which reads
// what the one before writes. No sum's order depends on `threads`.
void run(const Kernels &kernels, const Call *calls, std::size_t count, int threads, bool chain);

// That threads of the calling one's pool took so many seconds each for equal work. For tests of
// what does not depend on it; the engine finds it out by itself.
void remember_seconds(const std::vector<double> &seconds);

// Packed weights, kept until the bits they were made from change. Throws std::bad_alloc.
std::shared_ptr<const void> packed(const Packing &packing, const void *matrix, bool is_double,
                                   int threads);

// A number that changes when any bit of the memory changes (with probability 1 - 2^-64).
std::uint64_t fingerprint(const void *data, std::size_t bytes, int threads);

// Bytes of the slots of one thread, and of its tables about slots and phases.
std::size_t slots_bytes(const LoopPlan &view, std::size_t size);

// The builds that this machine can run, best first.
std::vector<const Kernels *> available_kernels();

} // namespace headgate
