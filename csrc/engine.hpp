#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "loop.hpp"

// What owns a LoopPlan and runs it on threads. Baseline code: no instruction set's flags here.

namespace headgate {

struct PhaseData {
  std::uint32_t width = 0, vectors = 1, tile_rows = 1;
  std::vector<Access> early, loads, stores, sums;
  std::vector<std::uint16_t> zeroed;
  std::vector<Product> products; // their slots lie in product_slots
  std::vector<std::vector<std::uint16_t>> product_slots;
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
  std::vector<TensorSpec> tensors_;
  std::vector<PhaseData> before_, loop_;
  std::vector<Phase> before_view_, loop_view_;
  std::vector<Constant> constants_;
  LoopPlan view_{};
  std::int64_t work_ = 0, elements_ = 0;
};

// One tensor of a call. Strides count elements. A state's `base` is its initial value and `out`
// receives its final one, both (N, width) contiguous. Kinds chunk, partial and row without a base
// are scratch, allocated inside and not cleared.
struct Argument {
  void *base, *out;
  std::int64_t step_stride, row_stride;
};

struct Call {
  std::int64_t steps, rows;
  const std::int64_t *lengths; // (rows), 0 … steps; null where every row has all steps
  bool reverse;                // a row's step s is at time length - 1 - s
  int threads;                 // at most
  bool is_double;
  const Argument *arguments;  // one for each tensor of the plan
  const void *const *weights; // packed
};

void run(const Kernels &kernels, const Plan &plan, const Call &call);

// Runs `outer` or `packed` (see Matrices) on threads; each element of c is one thread's.
void multiply(const Kernels &kernels, const Matrices &job, bool outer, bool is_double, int threads);

// Packs blocks of a matrix into (panel, depth, block, unit): element (block, unit, k) is read at
// source[offsets[block] + unit * unit_stride + k * depth_stride]; units past `width` are zero.
// out: panels * depth * blocks * unit_block elements, every one written; may not overlap source.
template <class T>
void pack(const T *source, const std::vector<std::int64_t> &offsets, std::int64_t width,
          std::int64_t depth, std::int64_t unit_stride, std::int64_t depth_stride,
          std::int64_t unit_block, T *out);

// A number that changes when any bit of the memory changes (with probability 1 - 2^-64).
std::uint64_t fingerprint(const void *data, std::size_t bytes);

// The builds that this machine can run, best first.
std::vector<const Kernels *> available_kernels();

} // namespace headgate
