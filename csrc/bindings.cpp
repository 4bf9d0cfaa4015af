// The one file that knows Python: it checks shapes and hands pointers to the core.

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <cstdlib>
#include <memory>
#include <stdexcept>
#include <string>
#include <tuple>
#include <vector>

#include "engine.hpp"
#include "philox.hpp"
#include "stream.hpp"

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

using Access = std::tuple<std::uint16_t, std::uint16_t, bool, bool>;
using Segment = std::tuple<std::uint16_t, std::uint16_t, std::uint32_t>;
using Product =
    std::tuple<std::vector<Segment>, std::vector<std::uint16_t>, std::vector<std::int32_t>>;
using Mask = std::tuple<std::uint16_t, std::uint16_t, bool, double, double, double>;
using Instruction = std::tuple<int, std::uint16_t, std::uint16_t, std::uint16_t, std::uint16_t,
                               double, double, bool>;
using Phase =
    std::tuple<std::uint32_t, std::vector<Product>, std::vector<Mask>, std::vector<Access>,
               std::vector<Instruction>, std::vector<Access>, std::vector<Access>>;

std::vector<headgate::Access> accesses(const std::vector<Access> &list) {
  std::vector<headgate::Access> out;
  for (const auto &[slot, tensor, alone, add] : list)
    out.push_back({slot, tensor, alone, add});
  return out;
}

headgate::ProductData product(const Product &given) {
  const auto &[segments, slots, starts] = given;
  if (segments.size() > headgate::kMaxSegments || slots.size() != starts.size())
    throw std::invalid_argument("a product has too many segments, or a slot without a start");
  headgate::ProductData out{{}, slots, starts};
  for (const auto &[operand, weight, depth] : segments)
    out.segments.push_back({operand, weight, depth});
  return out;
}

std::vector<headgate::PhaseData> phases(const std::vector<Phase> &list) {
  std::vector<headgate::PhaseData> out;
  for (const auto &[width, products, masks, loads, instructions, stores, sums] : list) {
    headgate::PhaseData phase;
    phase.width = width;
    for (const Product &given : products)
      phase.products.push_back(product(given));
    for (const auto &[slot, number, stepped, rate, hit, miss] : masks)
      phase.masks.push_back({slot, number, stepped, rate, hit, miss});
    phase.loads = accesses(loads);
    for (const auto &[op, to, a, b, c, low, high, narrow] : instructions) {
      phase.instructions.push_back({static_cast<headgate::Op>(op), narrow, to, a, b, c, low, high});
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
  static const std::vector<const headgate::Kernels *> available = headgate::available_kernels();
  for (const headgate::Kernels *k : available) {
    if (name == k->name)
      return *k;
  }
  throw std::invalid_argument("this machine cannot run the instruction set '" + name + "'");
}

// (base, offset, by time, by row)
using Found = std::tuple<int, std::int64_t, std::int64_t, std::int64_t>;
using Bound = std::tuple<Found, int>;
using History = std::tuple<Found, std::int64_t, int, int>;
using Tail = std::tuple<Found, std::int64_t>;
using Packing = std::tuple<int, std::int64_t, std::vector<std::int64_t>, std::int64_t, std::int64_t,
                           std::int64_t, std::int64_t, std::int64_t>;
using OuterTerm = std::tuple<Found, Found, std::int64_t, std::int64_t, bool>;
using OuterData = std::tuple<std::vector<Tail>, std::vector<OuterTerm>, Found, bool, bool>;
using ThroughData =
    std::tuple<std::vector<std::tuple<Found, int>>, Found, std::int64_t, std::int64_t, bool>;

headgate::Found found(const Found &given) {
  const auto &[base, offset, by_time, by_row] = given;
  return {base, offset, by_time, by_row};
}

headgate::Packing packing(const Packing &given) {
  const auto &[base, elements, offsets, width, depth, unit_stride, depth_stride, block] = given;
  return {base, elements, offsets, width, depth, unit_stride, depth_stride, block};
}

void make_binding(headgate::Binding *self, std::shared_ptr<headgate::Plan> plan, bool is_double,
                  bool reverse, std::int64_t steps, std::int64_t rows,
                  const std::vector<Bound> &tensors, const std::vector<History> &histories,
                  const std::vector<Tail> &tails, const std::vector<Tail> &zeroed,
                  const std::vector<Packing> &packings, const std::vector<OuterData> &outers,
                  const std::vector<ThroughData> &throughs, const std::vector<int> &own,
                  const Found &ranks) {
  headgate::Binding b{
      std::move(plan), is_double, reverse, steps, rows, {}, {}, {}, {}, {}, {}, {}, own,
      found(ranks)};
  for (const auto &[place, final] : tensors)
    b.tensors.push_back({found(place), final});
  for (const auto &[place, width, start, final] : histories)
    b.histories.push_back({found(place), width, start, final});
  for (const auto &[place, width] : tails)
    b.tails.push_back({found(place), width});
  for (const auto &[place, width] : zeroed)
    b.zeroed.push_back({found(place), width});
  for (const Packing &given : packings)
    b.packings.push_back(packing(given));
  for (const auto &[a, products, sums, add, per_row] : outers) {
    headgate::OuterData data{{}, {}, found(sums), add, per_row};
    for (const auto &[place, width] : a)
      data.a.push_back({found(place), width});
    for (const auto &[right, c, stride, width, adds] : products)
      data.products.push_back({found(right), found(c), stride, width, adds});
    b.outers.push_back(std::move(data));
  }
  for (const auto &[segments, c, width, vectors, add] : throughs) {
    if (segments.size() > headgate::kMaxSegments)
      throw std::invalid_argument("a product after the loop has too many segments");
    headgate::ThroughData data{{}, found(c), width, vectors, add};
    for (const auto &[a, at] : segments)
      data.segments.push_back({found(a), at});
    b.throughs.push_back(std::move(data));
  }
  new (self) headgate::Binding(std::move(b));
}

using Call = std::tuple<const headgate::Binding *, std::vector<std::size_t>, std::size_t,
                        std::uint64_t, std::int64_t, std::vector<std::uint32_t>>;

// Addresses come as integers: they are tensors' memory, checked by the caller.
void run(const std::string &isa, const std::vector<Call> &given, int threads, bool chain) {
  std::vector<headgate::Call> calls;
  std::vector<std::vector<void *>> bases(given.size());
  for (std::size_t k = 0; k < given.size(); ++k) {
    const auto &[binding, addresses, lengths, seed, first_step, streams] = given[k];
    for (std::size_t address : addresses)
      bases[k].push_back(reinterpret_cast<void *>(address));
    calls.push_back({binding, bases[k].data(), reinterpret_cast<const std::int64_t *>(lengths),
                     seed, first_step, streams.data()});
  }
  const headgate::Kernels &chosen = kernels(isa);
  nb::gil_scoped_release release;
  headgate::run(chosen, calls.data(), calls.size(), threads, chain);
}

using GivenLayer =
    std::tuple<std::shared_ptr<headgate::Plan>, std::vector<std::tuple<std::size_t, std::int64_t>>,
               std::vector<std::tuple<Packing, std::size_t>>, int, int, std::vector<int>, bool>;

std::vector<headgate::StreamLayer> stream_layers(const std::vector<GivenLayer> &given,
                                                 bool is_double) {
  std::vector<headgate::StreamLayer> layers;
  for (const auto &[plan, tensors, weights, input, output, states, residual] : given) {
    headgate::StreamLayer layer{plan, {}, {}, input, output, states, residual};
    for (const auto &[base, by_row] : tensors)
      layer.tensors.push_back({reinterpret_cast<void *>(base), by_row});
    for (const auto &[how, address] : weights) {
      layer.weights.push_back(
          headgate::packed(packing(how), reinterpret_cast<const void *>(address), is_double, 1));
    }
    layers.push_back(std::move(layer));
  }
  return layers;
}

// A matrix in a NumPy array, borrowed for a call; null where the object is anything else.
class Matrix {
public:
  Matrix(nb::handle array, const char *format, const Py_ssize_t *shape, bool writable) {
    const int flags = PyBUF_C_CONTIGUOUS | PyBUF_FORMAT | (writable ? PyBUF_WRITABLE : 0);
    if (PyObject_GetBuffer(array.ptr(), &view_, flags) != 0) {
      PyErr_Clear();
      return;
    }
    held_ = true;
    fits_ = view_.ndim == 2 && view_.shape[0] == shape[0] && view_.shape[1] == shape[1] &&
            view_.format != nullptr && view_.format[0] == format[0] && view_.format[1] == 0;
  }
  Matrix(const Matrix &) = delete;
  Matrix &operator=(const Matrix &) = delete;
  ~Matrix() {
    if (held_)
      PyBuffer_Release(&view_);
  }
  void *data() const { return fits_ ? view_.buf : nullptr; }

private:
  Py_buffer view_{};
  bool held_ = false, fits_ = false;
};

class Stream {
public:
  // `kept` owns the memory behind the addresses; `empty` makes an array (N, H) of
  // a shape and a dtype.
  Stream(const std::string &isa, bool is_double, std::int64_t rows, std::int64_t input_size,
         const std::vector<GivenLayer> &layers, int threads, nb::object kept, nb::object empty,
         nb::tuple shape, nb::object dtype)
      : stream_(kernels(isa), is_double, rows, stream_layers(layers, is_double), threads),
        kept_(std::move(kept)), empty_(std::move(empty)), shape_(std::move(shape)),
        dtype_(std::move(dtype)), format_(is_double ? "d" : "f"), x_shape_{rows, input_size},
        y_shape_{nb::cast<Py_ssize_t>(shape_[0]), nb::cast<Py_ssize_t>(shape_[1])} {}

  // None where an array is not as it must be: the caller says what is wrong.
  nb::object step(nb::handle x, nb::handle out) {
    const Matrix input(x, format_, x_shape_, false);
    if (input.data() == nullptr)
      return nb::none();
    nb::object y = out.is_none() ? make() : nb::borrow(out);
    const Matrix output(y, format_, y_shape_, true);
    if (output.data() == nullptr)
      return nb::none();
    stream_.step(input.data(), output.data());
    return y;
  }

  void read(std::size_t layer, std::size_t state, std::size_t out) const {
    stream_.read(layer, state, reinterpret_cast<void *>(out));
  }

  void write(std::size_t layer, std::size_t state, std::size_t values) {
    stream_.write(layer, state, reinterpret_cast<const void *>(values));
  }

private:
  nb::object make() const {
    PyObject *arguments[] = {shape_.ptr(), dtype_.ptr()};
    PyObject *made = PyObject_Vectorcall(empty_.ptr(), arguments, 2, nullptr);
    if (made == nullptr)
      throw nb::python_error();
    return nb::steal(made);
  }

  headgate::Stream stream_;
  nb::object kept_, empty_;
  nb::tuple shape_;
  nb::object dtype_;
  const char *format_;
  Py_ssize_t x_shape_[2], y_shape_[2];
};

void apply(const std::string &isa, int op, bool is_double, std::size_t x, std::size_t out,
           std::size_t count) {
  const headgate::Kernels &chosen = kernels(isa);
  const auto which = static_cast<headgate::Op>(op);
  nb::gil_scoped_release release;
  if (is_double) {
    chosen.apply_double(which, reinterpret_cast<const double *>(x), reinterpret_cast<double *>(out),
                        count);
  } else {
    chosen.apply_float(which, reinterpret_cast<const float *>(x), reinterpret_cast<float *>(out),
                       count);
  }
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
  nb::class_<headgate::Binding>(module, "Binding", "A Plan for given numbers of steps and rows.")
      .def("__init__", &make_binding, nb::arg("plan"), nb::arg("is_double"), nb::arg("reverse"),
           nb::arg("steps"), nb::arg("rows"), nb::arg("tensors"), nb::arg("histories"),
           nb::arg("tails"), nb::arg("zeroed"), nb::arg("packings"), nb::arg("outers"),
           nb::arg("throughs"), nb::arg("own"), nb::arg("ranks"));
  module.def("run", &run,
             "Run calls (binding, bases, lengths, seed, first step, streams) over all steps; in a "
             "chain each reads what the one before writes.");
  nb::class_<Stream>(module, "Stream", "Layers that run one step at a time.")
      .def(nb::init<const std::string &, bool, std::int64_t, std::int64_t,
                    const std::vector<GivenLayer> &, int, nb::object, nb::object, nb::tuple,
                    nb::object>())
      .def("step", &Stream::step, nb::arg().none(), nb::arg().none(),
           "y of one step, or None where x or out is not as it must be.")
      .def("read", &Stream::read, "A state's values to an address.")
      .def("write", &Stream::write, "A state's values from an address.");
  module.def("apply", &apply, "out = f(x), for tests of one elementwise operation's error.");
  module.def(
      "fingerprint",
      [](std::size_t data, std::size_t bytes) {
        return headgate::fingerprint(reinterpret_cast<const void *>(data), bytes, 1);
      },
      "A number that changes when the memory changes.");
  module.def(
      "environment",
      [](const char *name) {
        const char *value = std::getenv(name);
        return std::string(value == nullptr ? "" : value);
      },
      "An environment variable's value now, or an empty string; os.environ takes ten times longer "
      "to say that there is none.");
  module.def("remember_seconds", &headgate::remember_seconds,
             "That this thread's pool took so many seconds for equal work, for tests of what does "
             "not depend on how work is shared.");
  module.def("instruction_sets", &instruction_sets,
             "(name, bytes of a vector, most vectors of a product's tile), best first.");
  module.def("build_info", &build_info, "The compiler and C++ standard that built this module.");
}
