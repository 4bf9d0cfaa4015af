// The time loop for one instruction set. Included by one file for each, which defines HEADGATE_ISA.

#include <type_traits>

#include <sched.h>

#include "loop.hpp"
#include "vec.hpp"

#if defined(__x86_64__)
#include <xmmintrin.h>
#endif

namespace headgate::HEADGATE_ISA {

constexpr int kMaxVectors = kBytes == 64 ? 4 : 2;
constexpr int kMaxRows = 8;

// Denormal numbers count as zero while one of these lives.
struct FlushDenormals {
#if defined(__x86_64__)
  unsigned saved = _mm_getcsr();
  FlushDenormals() { _mm_setcsr(saved | 0x8040); }
  ~FlushDenormals() { _mm_setcsr(saved); }
#endif
};

HEADGATE_INLINE void pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
}

HEADGATE_INLINE void wait(Barrier *barrier, int parts) {
  if (barrier == nullptr)
    return;
  const std::int32_t generation = __atomic_load_n(&barrier->generation, __ATOMIC_ACQUIRE);
  if (__atomic_add_fetch(&barrier->arrived, 1, __ATOMIC_ACQ_REL) == parts) {
    __atomic_store_n(&barrier->arrived, 0, __ATOMIC_RELAXED);
    __atomic_store_n(&barrier->generation, generation + 1, __ATOMIC_RELEASE);
    return;
  }
  for (int spins = 0; __atomic_load_n(&barrier->generation, __ATOMIC_ACQUIRE) == generation;
       ++spins) {
    if (spins < 4096)
      pause();
    else
      sched_yield(); // somebody else has the processor that we wait for
  }
}

// c[r][v] += a[r][k] * b[k][v] over k, in order of k: the one matrix product of the engine.
template <class T, int R, int V>
void multiply(T *const *out, std::int64_t out_stride, const T *const *a, std::int64_t depth,
              const T *b, std::int64_t b_stride) {
  constexpr int L = kLanes<T>;
  Vec<T> c[R][V];
  const T *rows[R];
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
    rows[r] = a[r];
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v)
      c[r][v] = load(out[v] + r * out_stride);
  }
  for (std::int64_t k = 0; k < depth; ++k) {
    Vec<T> w[V];
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v)
      w[v] = load(b + v * L);
    b += b_stride;
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      const T s = rows[r][k];
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v)
        c[r][v] += w[v] * s;
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v)
      store(out[v] + r * out_stride, c[r][v]);
  }
}

template <class T>
using Multiply = void (*)(T *const *, std::int64_t, const T *const *, std::int64_t, const T *,
                          std::int64_t);

template <class T, int V>
constexpr Multiply<T> kMultiply[kMaxRows] = {
    multiply<T, 1, V>, multiply<T, 2, V>, multiply<T, 3, V>, multiply<T, 4, V>,
    multiply<T, 5, V>, multiply<T, 6, V>, multiply<T, 7, V>, multiply<T, 8, V>};

template <class T> HEADGATE_INLINE Multiply<T> multiply_for(int rows, int vectors) {
  if constexpr (kMaxVectors == 4) {
    if (vectors == 4)
      return kMultiply<T, 4>[rows - 1];
    if (vectors == 3)
      return kMultiply<T, 3>[rows - 1];
  }
  return vectors == 2 ? kMultiply<T, 2>[rows - 1] : kMultiply<T, 1>[rows - 1];
}

// One instruction on n vectors of the tile.
template <class T>
HEADGATE_INLINE void execute(const Instruction &in, T *out, const T *a, const T *b, const T *c,
                             int n) {
  constexpr int L = kLanes<T>;
  const Vec<T> zero{}, one = all(T(1));
#define HEADGATE_EACH(expression)                                                                  \
  for (int k = 0; k < n; ++k) {                                                                    \
    const Vec<T> x = load(a + k * L);                                                              \
    store(out + k * L, Vec<T>(expression));                                                        \
  }                                                                                                \
  break
#define HEADGATE_PAIR(expression)                                                                  \
  for (int k = 0; k < n; ++k) {                                                                    \
    const Vec<T> x = load(a + k * L), y = load(b + k * L);                                         \
    store(out + k * L, Vec<T>(expression));                                                        \
  }                                                                                                \
  break
  switch (in.op) {
  case Op::add:
    HEADGATE_PAIR(x + y);
  case Op::sub:
    HEADGATE_PAIR(x - y);
  case Op::mul:
    HEADGATE_PAIR(x * y);
  case Op::div:
    HEADGATE_PAIR(x / y);
  case Op::neg:
    HEADGATE_EACH(-x);
  case Op::sigmoid:
    HEADGATE_EACH(sigmoid<T>(x));
  case Op::tanh:
    HEADGATE_EACH(tangent<T>(x));
  case Op::relu:
    HEADGATE_EACH(select<T>(x < zero, zero, x));
  case Op::exp:
    HEADGATE_EACH(exponential<T>(x));
  case Op::log:
    HEADGATE_EACH(logarithm<T>(x));
  case Op::log_sigmoid:
    HEADGATE_EACH(log_sigmoid<T>(x));
  case Op::sqrt:
    HEADGATE_EACH(square_root<T>(x));
  case Op::rsqrt:
    HEADGATE_EACH(one / square_root<T>(x));
  case Op::abs:
    HEADGATE_EACH(absolute<T>(x));
  case Op::maximum:
    HEADGATE_PAIR(select<T>((x > y) | (x != x), x, y));
  case Op::minimum:
    HEADGATE_PAIR(select<T>((x < y) | (x != x), x, y));
  case Op::greater:
    HEADGATE_PAIR(select<T>(x > y, one, zero));
  case Op::greater_equal:
    HEADGATE_PAIR(select<T>(x >= y, one, zero));
  case Op::less:
    HEADGATE_PAIR(select<T>(x < y, one, zero));
  case Op::less_equal:
    HEADGATE_PAIR(select<T>(x <= y, one, zero));
  case Op::equal:
    HEADGATE_PAIR(select<T>(x == y, one, zero));
  case Op::copy:
    HEADGATE_EACH(x);
  case Op::clip: {
    const Vec<T> low = all(T(in.low)), high = all(T(in.high));
    for (int k = 0; k < n; ++k) {
      const Vec<T> x = load(a + k * L), y = select<T>(x < low, low, x);
      store(out + k * L, select<T>(y > high, high, y));
    }
    break;
  }
  case Op::where:
    for (int k = 0; k < n; ++k) {
      const Vec<T> x = load(a + k * L);
      store(out + k * L, select<T>(x != zero, load(b + k * L), load(c + k * L)));
    }
    break;
  }
#undef HEADGATE_EACH
#undef HEADGATE_PAIR
}

template <class T> struct Loop {
  const Share &me;
  T *slots;
  std::int64_t step = 0;  // decides which buffer of a state is read
  bool even = true;       // the tile's rows are of one time and evenly apart
  std::int64_t apart = 0; // by so many row numbers

  T *slot(int k) const { return slots + std::int64_t(k) * me.plan->slot_size; }

  // Address of a tensor's row.
  T *address(const Place &p, std::int64_t time, std::int64_t row, std::int64_t chunk_row,
             bool write) const {
    T *base = static_cast<T *>(p.base);
    switch (p.kind) {
    case Kind::step:
      return base + time * p.step_stride + row * p.row_stride;
    case Kind::row:
    case Kind::partial:
      return base + row * p.row_stride;
    case Kind::vector:
      return base;
    case Kind::chunk:
    case Kind::chunk_partial:
      return base + chunk_row * p.row_stride;
    case Kind::state: {
      const bool second = (step + std::int64_t(write != me.plan->backward)) & 1;
      return (second ? static_cast<T *>(p.other) : base) + row * p.row_stride;
    }
    }
    return base;
  }

  void run() {
    const LoopPlan &plan = *me.plan;
    for (std::uint32_t k = 0; k < plan.constants.size; ++k) {
      T *s = slot(plan.constants.data[k].slot);
      for (std::uint32_t i = 0; i < plan.slot_size; ++i)
        s[i] = T(plan.constants.data[k].value);
    }
    if (plan.backward) {
      std::int64_t active = 0;
      for (step = me.steps - 1; step >= 0; --step) {
        while (active < me.row_count && me.lengths[active] > step)
          ++active;
        place_rows(step, active, 0);
        phases(plan.loop, 0, active);
      }
      return;
    }
    std::int64_t active = me.row_count;
    for (std::int64_t first = 0; first < me.steps; first += me.chunk_steps) {
      std::int64_t last = first + me.chunk_steps, count = 0;
      if (last > me.steps)
        last = me.steps;
      for (std::int64_t s = first; s < last; ++s) {
        std::int64_t here = active;
        while (here > 0 && me.lengths[here - 1] <= s)
          --here;
        me.chunk_start[s - first] = count;
        place_rows(s, here, count);
        count += here;
      }
      phases(plan.before, 0, count);
      for (step = first; step < last; ++step) {
        while (active > 0 && me.lengths[active - 1] <= step)
          --active;
        phases(plan.loop, me.chunk_start[step - first], active);
      }
    }
  }

  // Notes time and row number of the active rows of a step, from `start` on.
  void place_rows(std::int64_t s, std::int64_t active, std::int64_t start) const {
    for (std::int64_t r = 0; r < active; ++r) {
      me.time[start + r] = me.reverse ? me.lengths[r] - 1 - s : s;
      me.row[start + r] = me.rows[r];
    }
  }

  void phases(const Span<Phase> &list, std::int64_t start, std::int64_t count) {
    for (std::uint32_t k = 0; k < list.size; ++k) {
      const Phase &phase = list.data[k];
      const std::int64_t block = std::int64_t(phase.vectors) * kLanes<T>;
      const std::int64_t panels = (phase.width + block - 1) / block;
      const std::int64_t from = panels * me.part / me.parts, to = panels * (me.part + 1) / me.parts;
      const std::int64_t tiles = (count + phase.tile_rows - 1) / phase.tile_rows;
      for (std::int64_t panel = from; panel < to; ++panel) {
        for (std::int64_t t = 0; t < tiles; ++t) {
          const std::int64_t a = count * t / tiles, b = count * (t + 1) / tiles;
          tile(phase, panel, start + a, static_cast<int>(b - a));
        }
      }
      wait(me.barrier, me.parts);
    }
  }

  void tile(const Phase &phase, std::int64_t panel, std::int64_t at, int rows) {
    const std::int64_t block = std::int64_t(phase.vectors) * kLanes<T>, unit = panel * block;
    const std::int64_t valid = phase.width - unit < block ? phase.width - unit : block;
    apart = rows > 1 ? me.row[at + 1] - me.row[at] : 0;
    even = true;
    for (int r = 1; r < rows; ++r) {
      even = even && me.time[at + r] == me.time[at] && me.row[at + r] - me.row[at + r - 1] == apart;
    }
    for (std::uint32_t k = 0; k < phase.early.size; ++k)
      read(phase.early.data[k], at, rows, unit, block, valid);
    for (std::uint32_t k = 0; k < phase.zeroed.size; ++k) {
      T *s = slot(phase.zeroed.data[k]);
      for (std::int64_t i = 0; i < rows * block; i += kLanes<T>)
        store(s + i, Vec<T>{});
    }
    for (std::uint32_t k = 0; k < phase.products.size; ++k) {
      product(phase.products.data[k], static_cast<int>(phase.vectors), panel, at, rows);
    }
    for (std::uint32_t k = 0; k < phase.loads.size; ++k)
      read(phase.loads.data[k], at, rows, unit, block, valid);
    const int n = rows * static_cast<int>(phase.vectors);
    for (std::uint32_t k = 0; k < phase.instructions.size; ++k) {
      const Instruction &in = phase.instructions.data[k];
      execute<T>(in, slot(in.out), slot(in.a), slot(in.b), slot(in.c), n);
    }
    for (std::uint32_t k = 0; k < phase.stores.size; ++k)
      write(phase.stores.data[k], at, rows, unit, block, valid);
    for (std::uint32_t k = 0; k < phase.sums.size; ++k)
      sum(phase.sums.data[k], at, rows, panel, block, valid);
  }

  void product(const Product &p, int vectors, std::int64_t panel, std::int64_t at, int rows) {
    constexpr int L = kLanes<T>;
    const T *operand[kMaxRows];
    const Place &place = me.places[p.operand];
    for (int r = 0; r < rows; ++r) {
      operand[r] = address(place, me.time[at + r], me.row[at + r], at + r, false);
    }
    const int total = static_cast<int>(p.slots.size) * vectors;
    const std::int64_t stride = std::int64_t(total) * L;
    const T *weights = static_cast<const T *>(me.weights[p.weight]) + panel * stride * p.depth;
    for (int done = 0; done < total; done += kMaxVectors) {
      const int here = total - done < kMaxVectors ? total - done : kMaxVectors;
      T *out[kMaxVectors];
      for (int v = 0; v < here; ++v) {
        out[v] = slot(p.slots.data[(done + v) / vectors]) + (done + v) % vectors * L;
      }
      multiply_for<T>(rows, here)(out, std::int64_t(vectors) * L, operand, p.depth,
                                  weights + done * L, stride);
    }
  }

  // What lies between a tensor's addresses for two rows of the tile.
  std::int64_t stride(const Place &p) const {
    switch (p.kind) {
    case Kind::vector:
      return 0;
    case Kind::chunk:
    case Kind::chunk_partial:
      return p.row_stride;
    default:
      return p.row_stride * apart;
    }
  }

  T *row_of(const Place &place, T *first, std::int64_t step_, std::int64_t at, int r,
            bool write) const {
    if (even)
      return first + r * step_;
    return address(place, me.time[at + r], me.row[at + r], at + r, write);
  }

  void read(const Access &access, std::int64_t at, int rows, std::int64_t unit, std::int64_t block,
            std::int64_t valid) const {
    constexpr int L = kLanes<T>;
    const Place &place = me.places[access.tensor];
    T *first = address(place, me.time[at], me.row[at], at, false);
    const std::int64_t between = stride(place);
    for (int r = 0; r < rows; ++r) {
      const T *from = row_of(place, first, between, at, r, false);
      T *to = slot(access.slot) + r * block;
      if (place.width == 1) {
        T total = from[0];
        if (place.kind == Kind::partial || place.kind == Kind::chunk_partial) {
          for (std::int64_t k = 1; k < place.step_stride; ++k)
            total += from[k];
        }
        for (std::int64_t i = 0; i < block; i += L)
          store(to + i, all(total));
      } else if (valid == block) {
        for (std::int64_t i = 0; i < block; i += L)
          store(to + i, load(from + unit + i));
      } else {
        for (std::int64_t i = 0; i < valid; ++i)
          to[i] = from[unit + i];
        for (std::int64_t i = valid; i < block; ++i)
          to[i] = T(0);
      }
    }
  }

  void write(const Access &access, std::int64_t at, int rows, std::int64_t unit, std::int64_t block,
             std::int64_t valid) const {
    constexpr int L = kLanes<T>;
    const Place &place = me.places[access.tensor];
    if (place.width == 1 && unit != 0)
      return;
    T *first = address(place, me.time[at], me.row[at], at, true);
    const std::int64_t between = stride(place);
    for (int r = 0; r < rows; ++r) {
      T *to = row_of(place, first, between, at, r, true);
      const T *from = slot(access.slot) + r * block;
      if (place.width == 1) {
        to[0] = from[0];
      } else if (valid == block) {
        for (std::int64_t i = 0; i < block; i += L)
          store(to + unit + i, load(from + i));
      } else {
        for (std::int64_t i = 0; i < valid; ++i)
          to[unit + i] = from[i];
      }
    }
  }

  void sum(const Access &access, std::int64_t at, int rows, std::int64_t panel, std::int64_t block,
           std::int64_t valid) const {
    const Place &place = me.places[access.tensor];
    for (int r = 0; r < rows; ++r) {
      const T *from = slot(access.slot) + r * block;
      T total = T(0);
      for (std::int64_t i = 0; i < valid; ++i)
        total += from[i];
      address(place, me.time[at + r], me.row[at + r], at + r, true)[panel] = total;
    }
  }
};

template <class T> void run(const Share &share) {
  FlushDenormals guard;
  Loop<T>{share, static_cast<T *>(share.slots)}.run();
}

template <class T> void apply(Op op, const T *x, T *out, std::size_t count) {
  FlushDenormals guard;
  Instruction in{op, 0, 0, 0, 0, 0, 0};
  execute<T>(in, out, x, x, x, static_cast<int>(count) / kLanes<T>);
}

} // namespace headgate::HEADGATE_ISA
