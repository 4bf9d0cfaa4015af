// The one file that knows Python: it checks shapes and hands pointers to the core.

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <stdexcept>

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

} // namespace

NB_MODULE(_native, module) {
  module.doc() = "The compiled part of Headgate.";
  module.def("uniform", &uniform, nb::arg("seed"), nb::arg("stream"), nb::arg("rows"),
             nb::arg("first_step"), nb::arg("out"),
             "Fill out (T, N, H) with Philox4x32-10 numbers in [0, 1), rows (N,) being row "
             "numbers.");
  module.def("build_info", &build_info, "The compiler and C++ standard that built this module.");
}
