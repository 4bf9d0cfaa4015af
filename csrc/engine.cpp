#include "engine.hpp"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <numeric>

#if defined(_OPENMP)
#include <omp.h>
#endif

#if !defined(_WIN32)
#include <pthread.h>
#endif

namespace headgate {

namespace {

constexpr std::int64_t kPad = 64; // elements; a multiple of every tile's units
constexpr std::int64_t kSecondLevelCache = 768 * 1024;

std::int64_t padded(std::int64_t width) { return (width + kPad - 1) / kPad * kPad; }

template <class T> Span<T> span(const std::vector<T> &v) {
  return {v.data(), static_cast<std::uint32_t>(v.size())};
}

std::vector<Phase> views(std::vector<PhaseData> &list) {
  std::vector<Phase> out;
  for (PhaseData &p : list) {
    for (std::size_t k = 0; k < p.products.size(); ++k)
      p.products[k].slots = span(p.product_slots[k]);
    out.push_back({p.width, p.vectors, p.tile_rows, span(p.early), span(p.zeroed), span(p.products),
                   span(p.loads), span(p.instructions), span(p.stores), span(p.sums)});
  }
  return out;
}

// Memory of a calling thread that is kept between calls, so that a call allocates nothing.
class Arena {
public:
  void *take(std::size_t bytes) {
    const std::size_t at = used_;
    used_ += (bytes + 127) / 128 * 128;
    return data_ == nullptr ? nullptr : static_cast<char *>(data_) + at;
  }
  // Measure with `take` on an empty arena, then `reserve`, then take the same again.
  void reserve() {
    if (used_ > size_) {
      std::free(store_);
      store_ = std::aligned_alloc(128, (used_ + 127) / 128 * 128);
      size_ = store_ == nullptr ? 0 : used_;
    }
    used_ = 0;
    data_ = store_;
  }
  void clear() {
    used_ = 0;
    data_ = nullptr;
  }
  bool empty() const { return store_ == nullptr; }
  ~Arena() { std::free(store_); }

private:
  void *store_ = nullptr, *data_ = nullptr;
  std::size_t size_ = 0, used_ = 0;
};

// A forked process has OpenMP's pool without its threads, and would wait for them for ever.
bool forked = false;
#if !defined(_WIN32)
[[maybe_unused]] const int watched = pthread_atfork(nullptr, nullptr, [] { forked = true; });
#endif

enum class Split { none, rows, units };

Split choose_split(const Plan &plan, const Call &call, std::int64_t total_steps) {
  if (call.threads < 2 || forked)
    return Split::none;
  const std::int64_t work = plan.depth_work();
  if (work * total_steps < 400000)
    return Split::none;
  const std::int64_t bytes = plan.weight_elements() * (call.is_double ? 8 : 4);
  const bool rows_suffice = call.rows >= 2 * call.threads;
  if (rows_suffice && (bytes <= kSecondLevelCache || call.rows >= 32 * call.threads))
    return Split::rows;
  const std::int64_t each_step = work * total_steps / std::max<std::int64_t>(call.steps, 1);
  if (each_step >= 30000)
    return Split::units;
  return rows_suffice ? Split::rows : Split::none;
}

struct Memory {
  std::vector<std::vector<Place>> places; // by thread
  std::vector<Share> shares;
  std::vector<std::int64_t> rows, lengths;
  std::vector<std::int64_t> starts; // where each thread's rows begin
  Barrier barrier{};
};

// Lays out the memory of all threads; run twice, first to measure it.
void lay_out(Memory &m, Arena &arena, const Plan &plan, const Call &call, Split split,
             int threads) {
  const LoopPlan &view = plan.view();
  const std::size_t size = call.is_double ? 8 : 4;
  const bool by_rows = split == Split::rows;
  const std::int64_t local_rows = by_rows ? (call.rows + threads - 1) / threads : call.rows;
  const std::int64_t chunk_steps =
      view.before.size == 0
          ? 16
          : std::clamp<std::int64_t>(96 / std::max<std::int64_t>(local_rows, 1), 1, 64);
  const std::int64_t chunk_rows = chunk_steps * local_rows;
  m.places.assign(static_cast<std::size_t>(threads), std::vector<Place>(view.tensors.size));
  for (std::uint32_t k = 0; k < view.tensors.size; ++k) {
    const TensorSpec &spec = view.tensors.data[k];
    const Argument &given = call.arguments[k];
    const std::int64_t width = padded(spec.width);
    Place place{spec.kind, spec.width, given.base, nullptr, given.step_stride, given.row_stride};
    const auto shared = [&](std::int64_t elements) {
      return arena.take(static_cast<std::size_t>(elements) * size);
    };
    if (spec.kind == Kind::state) {
      place.base = shared(call.rows * width);
      place.other = shared(call.rows * width);
      place.row_stride = width;
    } else if (spec.kind == Kind::partial) {
      place.base = shared(call.rows * spec.panels);
      place.step_stride = place.row_stride = spec.panels;
    } else if (spec.kind == Kind::row && given.base == nullptr) {
      place.base = shared(call.rows * width);
      place.row_stride = width;
    }
    const bool chunk = spec.kind == Kind::chunk || spec.kind == Kind::chunk_partial;
    if (chunk) {
      place.row_stride = spec.kind == Kind::chunk ? width : spec.panels;
      place.step_stride = spec.panels;
      if (!by_rows)
        place.base = shared(chunk_rows * place.row_stride);
    }
    for (auto &mine : m.places) {
      if (chunk && by_rows)
        place.base = shared(chunk_rows * place.row_stride);
      mine[k] = place;
    }
  }
  m.shares.clear();
  for (int t = 0; t < threads; ++t) {
    Share s{};
    s.plan = &view;
    s.places = m.places[static_cast<std::size_t>(t)].data();
    s.weights = call.weights;
    const std::int64_t first = by_rows ? m.starts[static_cast<std::size_t>(t)] : 0;
    const std::int64_t last = by_rows ? m.starts[static_cast<std::size_t>(t) + 1] : call.rows;
    s.rows = m.rows.data() + first;
    s.lengths = m.lengths.data() + first;
    s.row_count = last - first;
    s.steps = s.row_count == 0 ? 0 : s.lengths[0];
    s.chunk_steps = chunk_steps;
    s.reverse = call.reverse;
    s.time = static_cast<std::int64_t *>(arena.take(static_cast<std::size_t>(chunk_rows) * 8));
    s.row = static_cast<std::int64_t *>(arena.take(static_cast<std::size_t>(chunk_rows) * 8));
    s.chunk_start =
        static_cast<std::int64_t *>(arena.take(static_cast<std::size_t>(chunk_steps) * 8));
    s.slots = arena.take(static_cast<std::size_t>(view.slots) * view.slot_size * size);
    s.part = by_rows ? 0 : t;
    s.parts = by_rows ? 1 : threads;
    s.barrier = split == Split::units ? &m.barrier : nullptr;
    m.shares.push_back(s);
  }
}

// Rows by length, longest first; for threads that split the rows, dealt out in turn so that each
// has its share of the long ones.
void order_rows(Memory &m, const Call &call, int dealt) {
  const auto n = static_cast<std::size_t>(call.rows);
  std::vector<std::int64_t> sorted(n);
  std::iota(sorted.begin(), sorted.end(), 0);
  const auto length = [&](std::int64_t r) {
    return call.lengths == nullptr ? call.steps : call.lengths[r];
  };
  if (call.lengths != nullptr) {
    std::stable_sort(sorted.begin(), sorted.end(),
                     [&](std::int64_t a, std::int64_t b) { return length(a) > length(b); });
  }
  m.rows.clear();
  m.starts.assign(1, 0);
  for (int t = 0; t < dealt; ++t) {
    if (call.lengths == nullptr) {
      const std::int64_t end = call.rows * (t + 1) / dealt;
      for (auto r = static_cast<std::int64_t>(m.rows.size()); r < end; ++r)
        m.rows.push_back(r);
      m.starts.push_back(end);
      continue;
    }
    for (auto r = static_cast<std::size_t>(t); r < n; r += static_cast<std::size_t>(dealt)) {
      m.rows.push_back(sorted[r]);
    }
    m.starts.push_back(static_cast<std::int64_t>(m.rows.size()));
  }
  m.lengths.clear();
  for (std::int64_t r : m.rows)
    m.lengths.push_back(length(r));
}

void start_states(const Memory &m, const Plan &plan, const Call &call) {
  const std::size_t size = call.is_double ? 8 : 4;
  const LoopPlan &view = plan.view();
  for (std::uint32_t k = 0; k < view.tensors.size; ++k) {
    if (view.tensors.data[k].kind != Kind::state)
      continue;
    const Place &place = m.places[0][k];
    const std::size_t bytes = place.width * size;
    for (std::size_t i = 0; i < m.rows.size(); ++i) {
      const bool second = view.backward && (m.lengths[i] & 1);
      char *to = static_cast<char *>(second ? place.other : place.base);
      const std::int64_t row = m.rows[i];
      std::memcpy(to + static_cast<std::size_t>(row * place.row_stride) * size,
                  static_cast<const char *>(call.arguments[k].base) +
                      static_cast<std::size_t>(row) * bytes,
                  bytes);
    }
  }
}

void finish_states(const Memory &m, const Plan &plan, const Call &call) {
  const std::size_t size = call.is_double ? 8 : 4;
  const LoopPlan &view = plan.view();
  for (std::uint32_t k = 0; k < view.tensors.size; ++k) {
    if (view.tensors.data[k].kind != Kind::state)
      continue;
    const Place &place = m.places[0][k];
    const std::size_t bytes = place.width * size;
    for (std::size_t i = 0; i < m.rows.size(); ++i) {
      const bool second = !view.backward && (m.lengths[i] & 1);
      const char *from = static_cast<const char *>(second ? place.other : place.base);
      const std::int64_t row = m.rows[i];
      std::memcpy(static_cast<char *>(call.arguments[k].out) +
                      static_cast<std::size_t>(row) * bytes,
                  from + static_cast<std::size_t>(row * place.row_stride) * size, bytes);
    }
  }
}

} // namespace

Plan::Plan(std::vector<TensorSpec> tensors, std::vector<PhaseData> before,
           std::vector<PhaseData> loop, std::vector<Constant> constants, std::uint32_t slots,
           std::uint32_t slot_size, bool backward)
    : tensors_(std::move(tensors)), before_(std::move(before)), loop_(std::move(loop)),
      constants_(std::move(constants)) {
  before_view_ = views(before_);
  loop_view_ = views(loop_);
  view_ = {span(tensors_), span(before_view_), span(loop_view_), span(constants_),
           slots,          slot_size,          backward};
  for (const auto *list : {&before_, &loop_}) {
    for (const PhaseData &phase : *list) {
      for (std::size_t k = 0; k < phase.products.size(); ++k) {
        const std::int64_t n = std::int64_t(phase.products[k].depth) * phase.width *
                               static_cast<std::int64_t>(phase.product_slots[k].size());
        work_ += n;
        elements_ += n;
      }
      work_ += static_cast<std::int64_t>(phase.instructions.size()) * phase.width * 4;
    }
  }
}

void run(const Kernels &kernels, const Plan &plan, const Call &call) {
  static thread_local Arena arena;
  static thread_local Memory memory;
  std::int64_t total = call.steps * call.rows;
  if (call.lengths != nullptr)
    total = std::accumulate(call.lengths, call.lengths + call.rows, std::int64_t{0});
  const Split split = choose_split(plan, call, total);
  const int threads = split == Split::none ? 1 : call.threads;
  memory.barrier.arrived = memory.barrier.generation = 0;
  order_rows(memory, call, split == Split::rows ? threads : 1);
  arena.clear();
  lay_out(memory, arena, plan, call, split, threads);
  arena.reserve();
  lay_out(memory, arena, plan, call, split, threads);
  start_states(memory, plan, call);
  const auto work = call.is_double ? kernels.run_double : kernels.run_float;
  if (threads == 1) {
    work(memory.shares[0]);
  } else {
    const Share *shares = memory.shares.data();
    bool enough = false;
#if defined(_OPENMP)
#pragma omp parallel num_threads(threads)
    {
      if (omp_get_num_threads() == threads) {
        if (omp_get_thread_num() == 0)
          enough = true;
        work(shares[omp_get_thread_num()]);
      }
    }
#endif
    if (!enough) { // inside another parallel region, say: alone then
      Call alone = call;
      alone.threads = 1;
      return run(kernels, plan, alone);
    }
  }
  finish_states(memory, plan, call);
}

void multiply(const Kernels &kernels, const Matrices &job, bool outer, bool is_double,
              int threads) {
  const auto work = outer ? (is_double ? kernels.outer_double : kernels.outer_float)
                          : (is_double ? kernels.packed_double : kernels.packed_float);
  if (forked || job.count * job.height * job.width < 400000)
    threads = 1;
  if (threads == 1)
    return work(job, 0, 1);
#if defined(_OPENMP)
#pragma omp parallel for num_threads(threads) schedule(static, 1)
  for (int t = 0; t < threads; ++t)
    work(job, t, threads);
#else
  work(job, 0, 1);
#endif
}

template <class T>
void pack(const T *source, const std::vector<std::int64_t> &offsets, std::int64_t width,
          std::int64_t depth, std::int64_t unit_stride, std::int64_t depth_stride,
          std::int64_t unit_block, T *out) {
  for (std::int64_t first = 0; first < width; first += unit_block) {
    const std::int64_t valid = std::min(unit_block, width - first);
    const std::int64_t blocks = static_cast<std::int64_t>(offsets.size());
    for (std::int64_t b = 0; b < blocks; ++b) {
      const T *from = source + offsets[static_cast<std::size_t>(b)] + first * unit_stride;
      T *to = out + b * unit_block;
      const std::int64_t stride = blocks * unit_block;
      if (unit_stride == 1) {
        for (std::int64_t k = 0; k < depth; ++k) {
          std::copy(from + k * depth_stride, from + k * depth_stride + valid, to + k * stride);
          std::fill(to + k * stride + valid, to + k * stride + unit_block, T(0));
        }
      } else {
        for (std::int64_t k0 = 0; k0 < depth; k0 += 16) {
          const std::int64_t k1 = std::min(depth, k0 + 16);
          for (std::int64_t u = 0; u < unit_block; ++u) {
            for (std::int64_t k = k0; k < k1; ++k) {
              to[k * stride + u] = u < valid ? from[u * unit_stride + k * depth_stride] : T(0);
            }
          }
        }
      }
    }
    out += depth * blocks * unit_block;
  }
}

template void pack<float>(const float *, const std::vector<std::int64_t> &, std::int64_t,
                          std::int64_t, std::int64_t, std::int64_t, std::int64_t, float *);
template void pack<double>(const double *, const std::vector<std::int64_t> &, std::int64_t,
                           std::int64_t, std::int64_t, std::int64_t, std::int64_t, double *);

std::uint64_t fingerprint(const void *data, std::size_t bytes) {
  const char *p = static_cast<const char *>(data);
  std::uint64_t lanes[8] = {1, 2, 3, 4, 5, 6, 7, 8};
  std::size_t at = 0;
  for (; at + 64 <= bytes; at += 64) {
    for (std::size_t k = 0; k < 8; ++k) {
      std::uint64_t word;
      std::memcpy(&word, p + at + 8 * k, 8);
      lanes[k] = (lanes[k] ^ word) * 0x9E3779B97F4A7C15u;
      lanes[k] ^= lanes[k] >> 29;
    }
  }
  std::uint64_t hash = bytes;
  for (; at < bytes; ++at)
    hash = (hash ^ static_cast<unsigned char>(p[at])) * 0x100000001B3u;
  for (std::uint64_t lane : lanes)
    hash = (hash ^ lane ^ (lane >> 31)) * 0xBF58476D1CE4E5B9u;
  return hash ^ (hash >> 32);
}

std::vector<const Kernels *> available_kernels() {
  std::vector<const Kernels *> found;
#if defined(HEADGATE_X86)
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512bw")) {
    found.push_back(&kernels_avx512);
  }
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
    found.push_back(&kernels_avx2);
#endif
  found.push_back(&kernels_baseline);
  return found;
}

} // namespace headgate
