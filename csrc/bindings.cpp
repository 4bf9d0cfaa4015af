// The one file that knows Python: it checks shapes and hands pointers to the core.

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <stdexcept>
#include <string>
#include <tuple>
#include <vector>

#include "engine.hpp"
#include "philox.hpp"

namespace nb = nanobind;

namespace {

using Rows = nb::ndarray<const std::int64_t, nb::numpy, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Masks = nb::ndarray<float, nb::numpy, nb::ndim<3>, nb::c_contig, nb::device::cpu>;

void uniform(std::uint64_t seed, std::uint32_t stream, const Rows &rows, std::uint32_t first_step,
             const Masks &out) {
  if (out.shape(1) != rows.shape(0)) {
    throw std::invalid_argument("uniform: out must be (steps, rows, width) with as many rows as "
                                "`rows` has; make out from rows");
  }
  nb::gil_scoped_release release;
  headgate::philox_uniform(seed, stream, rows.data(), rows.shape(0), first_step, out.shape(0),
                           out.shape(2), out.data());
}

nb::dict build_info() {
  nb::dict info;
#if defined(__clang__)
  info["compiler"] = "Clang " __clang_version__;
#elif defined(__GNUC__)
  info["compiler"] = "GCC " __VERSION__;
#elif defined(_MSC_VER)
  info["compiler"] = nb::str("MSVC {}").format(_MSC_VER);
#else
  info["compiler"] = "unknown";
#endif
#if defined(_MSVC_LANG)
  info["cxx_standard"] = static_cast<long>(_MSVC_LANG);
#else
  info["cxx_standard"] = static_cast<long>(__cplusplus);
#endif
  return info;
}

using Access = std::tuple<std::uint16_t, std::uint16_t>;
using Product = std::tuple<std::uint16_t, std::uint16_t, std::uint32_t, std::vector<std::uint16_t>>;
using Instruction =
    std::tuple<int, std::uint16_t, std::uint16_t, std::uint16_t, std::uint16_t, double, double>;
using Phase = std::tuple<std::uint32_t, std::uint32_t, std::uint32_t, std::vector<Access>,
                         std::vector<std::uint16_t>, std::vector<Product>, std::vector<Access>,
                         std::vector<Instruction>, std::vector<Access>, std::vector<Access>>;

std::vector<headgate::Access> accesses(const std::vector<Access> &list) {
  std::vector<headgate::Access> out;
  for (const auto &[slot, tensor] : list)
    out.push_back({slot, tensor});
  return out;
}

std::vector<headgate::PhaseData> phases(const std::vector<Phase> &list) {
  std::vector<headgate::PhaseData> out;
  for (const auto &[width, vectors, rows, early, zeroed, products, loads, instructions, stores,
                    sums] : list) {
    headgate::PhaseData phase;
    phase.width = width;
    phase.vectors = vectors;
    phase.tile_rows = rows;
    phase.early = accesses(early);
    phase.zeroed = zeroed;
    for (const auto &[operand, weight, depth, slots] : products) {
      phase.products.push_back({operand, weight, depth, {}});
      phase.product_slots.push_back(slots);
    }
    phase.loads = accesses(loads);
    for (const auto &[op, to, a, b, c, low, high] : instructions) {
      phase.instructions.push_back({static_cast<headgate::Op>(op), to, a, b, c, low, high});
    }
    phase.stores = accesses(stores);
    phase.sums = accesses(sums);
    out.push_back(std::move(phase));
  }
  return out;
}

void make_plan(headgate::Plan *self,
               const std::vector<std::tuple<int, std::uint32_t, std::uint32_t>> &tensors,
               const std::vector<Phase> &before, const std::vector<Phase> &loop,
               const std::vector<std::tuple<std::uint16_t, double>> &constants, std::uint32_t slots,
               std::uint32_t slot_size, bool backward) {
  std::vector<headgate::TensorSpec> specs;
  for (const auto &[kind, width, panels] : tensors) {
    specs.push_back({static_cast<headgate::Kind>(kind), width, panels});
  }
  std::vector<headgate::Constant> fixed;
  for (const auto &[slot, value] : constants)
    fixed.push_back({slot, value});
  new (self) headgate::Plan(std::move(specs), phases(before), phases(loop), std::move(fixed), slots,
                            slot_size, backward);
}

const headgate::Kernels &kernels(const std::string &name) {
  for (const headgate::Kernels *k : headgate::available_kernels()) {
    if (name == k->name)
      return *k;
  }
  throw std::invalid_argument("this machine cannot run the instruction set '" + name + "'");
}

// Addresses come as integers: they are tensors' memory, checked by the caller.
void run(
    const std::string &isa, const headgate::Plan &plan, bool is_double, std::int64_t steps,
    std::int64_t rows, std::size_t lengths, bool reverse, int threads,
    const std::vector<std::tuple<std::size_t, std::size_t, std::int64_t, std::int64_t>> &arguments,
    const std::vector<std::size_t> &weights) {
  std::vector<headgate::Argument> given;
  for (const auto &[base, out, step_stride, row_stride] : arguments) {
    given.push_back(
        {reinterpret_cast<void *>(base), reinterpret_cast<void *>(out), step_stride, row_stride});
  }
  std::vector<const void *> packed;
  for (std::size_t address : weights)
    packed.push_back(reinterpret_cast<const void *>(address));
  const headgate::Kernels &chosen = kernels(isa);
  nb::gil_scoped_release release;
  headgate::run(chosen, plan,
                {steps, rows, reinterpret_cast<const std::int64_t *>(lengths), reverse, threads,
                 is_double, given.data(), packed.data()});
}

void pack(bool is_double, std::size_t source, const std::vector<std::int64_t> &offsets,
          std::int64_t width, std::int64_t depth, std::int64_t unit_stride,
          std::int64_t depth_stride, std::int64_t unit_block, std::size_t out) {
  nb::gil_scoped_release release;
  if (is_double) {
    headgate::pack(reinterpret_cast<const double *>(source), offsets, width, depth, unit_stride,
                   depth_stride, unit_block, reinterpret_cast<double *>(out));
  } else {
    headgate::pack(reinterpret_cast<const float *>(source), offsets, width, depth, unit_stride,
                   depth_stride, unit_block, reinterpret_cast<float *>(out));
  }
}

void multiply(const std::string &isa, bool outer, bool is_double, std::size_t a,
              std::int64_t a_stride, std::size_t b, std::int64_t b_stride, std::size_t c,
              std::int64_t c_stride, std::size_t rows, std::int64_t count, std::int64_t height,
              std::int64_t width, std::int64_t vectors, int threads) {
  const headgate::Kernels &chosen = kernels(isa);
  nb::gil_scoped_release release;
  headgate::multiply(chosen,
                     {reinterpret_cast<const void *>(a), reinterpret_cast<const void *>(b),
                      reinterpret_cast<void *>(c), a_stride, b_stride, c_stride,
                      reinterpret_cast<const std::int64_t *>(rows), count, height, width, vectors},
                     outer, is_double, threads);
}

std::vector<std::tuple<std::string, int, int>> instruction_sets() {
  std::vector<std::tuple<std::string, int, int>> out;
  for (const headgate::Kernels *k : headgate::available_kernels()) {
    out.emplace_back(k->name, k->bytes, k->max_vectors);
  }
  return out;
}

} // namespace

NB_MODULE(_native, module) {
  module.doc() = "The compiled part of Headgate.";
  nb::set_leak_warnings(false); // plans live in a cache until the process ends
  module.def("uniform", &uniform, nb::arg("seed"), nb::arg("stream"), nb::arg("rows"),
             nb::arg("first_step"), nb::arg("out"),
             "Fill out (T, N, H) with Philox4x32-10 numbers in [0, 1), rows (N,) being row "
             "numbers.");
  nb::class_<headgate::Plan>(module, "Plan", "A time loop in instructions, for given sizes.")
      .def("__init__", &make_plan, nb::arg("tensors"), nb::arg("before"), nb::arg("loop"),
           nb::arg("constants"), nb::arg("slots"), nb::arg("slot_size"), nb::arg("backward"));
  module.def("run", &run, "Run a time loop over all steps and rows.");
  module.def("multiply", &multiply, "c += aᵀ b over rows (outer), or c += a · packed weights.");
  module.def("pack", &pack, "Pack blocks of a matrix for the product kernel.");
  module.def(
      "fingerprint",
      [](std::size_t data, std::size_t bytes) {
        return headgate::fingerprint(reinterpret_cast<const void *>(data), bytes);
      },
      "A number that changes when the memory changes.");
  module.def("instruction_sets", &instruction_sets,
             "(name, bytes of a vector, most vectors of a product's tile), best first.");
  module.def("build_info", &build_info, "The compiler and C++ standard that built this module.");
}
