// The time loop for one instruction set. Included by one file for each, which defines HEADGATE_ISA.

#include <chrono>
#include <new>
#include <type_traits>

#include <sched.h>

#include "loop.hpp"
#include "vec.hpp"

namespace headgate::HEADGATE_ISA {

#include "instructions.inl"
#include "masks.inl"
#include "tile.inl"

#include "cuts.inl"
#include "waiting.inl"

#include "record.inl"

constexpr std::int64_t kRowsTogether = tile_rows(kMaxVectors); // that fill the widest tile

struct Filled {
  std::int64_t unit, units, rows;
};

// An address, and how it moves from step to step.
template <class T> struct Pointer {
  T *at;
  Shift shift;
};

template <class T> struct Loop {
  const Share &me;
  T *slots;
  Pointer<T> *where;           // slots, or the tensors' own memory
  Filled *filled;              // what slots that last hold
  Cut *cuts;                   // of the phases before the loop and in it
  Record<T> *records[2] = {};  // of steps that go from the first panel to the last, and back
  Record<T> *record = nullptr; // of this step
  std::int64_t step = 0;       // decides which buffer of a state is read
  std::int64_t start = 0;      // the first active row, among those of a chunk of steps
  Spacing rows_apart{}, ranks_apart{}; // of the active rows of the phase
  bool near = false;                   // nobody waits for this thread, and its weights stay near
  bool far = false;                    // its weights do not stay near from step to step

  static constexpr int L = kLanes<T>;

  T *slot(int k) const { return slots + std::int64_t(k) * me.plan->slot_size; }

  // Of a state's two, in this step.
  std::int64_t buffer(bool write) const {
    return (step + std::int64_t(write != me.plan->backward)) & 1;
  }

  T *address(const Place &p, std::int64_t at, bool write) const {
    T *base = static_cast<T *>(p.base[buffer(write)]);
    if (p.ranked)
      return base + (me.step[at] - me.first_step) * p.by_time + me.rank[at] * p.by_row;
    return base + me.time[at] * p.by_time + me.row[at] * p.by_row + at * p.by_chunk +
           (at - start) * p.by_position;
  }

  Shift shift_of(const Place &p, bool write) const {
    if (p.base[0] != p.base[1]) {
      const std::int64_t there = static_cast<T *>(p.base[1]) - static_cast<T *>(p.base[0]);
      return {buffer(write) == 0 ? there : -there, true};
    }
    const bool down = me.plan->backward != (me.reverse && !p.ranked);
    return {(down ? -p.by_time : p.by_time) + p.by_chunk * record->count, false};
  }

  // The address of each row of a block, one after another.
  struct Walk {
    T *first;
    std::int64_t apart;
    bool even;
  };

  Walk walk(const Place &p, const Block &b, bool write) const {
    const Spacing &s = p.ranked ? b.ranks_apart : b.rows_apart;
    const std::int64_t apart =
        s.first * p.by_time + s.second * p.by_row + p.by_chunk + p.by_position;
    return {address(p, b.at, write), apart, s.even || (p.by_time == 0 && p.by_row == 0)};
  }

  T *row_of(const Walk &w, const Place &p, const Block &b, int r, bool write) const {
    return w.even ? w.first + r * w.apart : address(p, b.at + r, write);
  }

  void run() {
    const LoopPlan &plan = *me.plan;
    for (std::uint32_t k = 0; k < plan.slots; ++k) {
      where[k] = {slot(static_cast<int>(k)), {}};
      filled[k] = {0, 0, 0};
    }
    for (std::uint32_t k = 0; k < plan.before.size + plan.loop.size; ++k)
      cuts[k].count = -1;
    near = !me.together && plan.weights * std::int64_t(sizeof(T)) <= stays_near();
    far = plan.weights * std::int64_t(sizeof(T)) / (me.together ? me.threads : 1) > stays_near();
    make_records();
    for (std::uint32_t k = 0; k < plan.constants.size; ++k) {
      T *s = slot(plan.constants.data[k].slot);
      for (std::uint32_t i = 0; i < plan.slot_size; ++i)
        s[i] = T(plan.constants.data[k].value);
    }
    plan.backward ? backward() : forward();
  }

  void forward() {
    const LoopPlan &plan = *me.plan;
    std::int64_t active = me.row_count;
    for (std::int64_t first = 0; first < me.steps; first += me.chunk_steps) {
      std::int64_t last = first + me.chunk_steps, count = 0;
      if (last > me.steps)
        last = me.steps;
      if (me.source != nullptr)
        wait_for(me.source, last);
      for (std::int64_t s = first; s < last; ++s) {
        std::int64_t here = active;
        while (here > 0 && me.lengths[here - 1] <= s)
          --here;
        me.chunk_start[s - first] = count;
        place_rows(s, here, count);
        count += here;
      }
      if (plan.before.size > 0) {
        forget();
        phases(plan.before, cuts, 0, count);
        forget(); // the next steps read what these have made, from its beginning
      }
      for (step = first; step < last; ++step) {
        while (active > 0 && me.lengths[active - 1] <= step)
          --active;
        phases(plan.loop, cuts + plan.before.size, me.chunk_start[step - first], active);
        if (me.progress != nullptr)
          __atomic_store_n(me.progress, step + 1, __ATOMIC_RELEASE);
      }
    }
  }

  void backward() {
    const LoopPlan &plan = *me.plan;
    std::int64_t active = 0;
    std::int64_t come = 0, done = 0; // stretches from the last to the first: run, and multiplied
    for (step = me.all_steps - 1; step >= 0; --step) {
      while (active < me.row_count && me.lengths[active] > step)
        ++active;
      if (step < me.steps) {
        place_rows(step, active, 0);
        phases(plan.loop, cuts + plan.before.size, 0, active);
      }
      if (me.stretch > 0 && step % me.stretch == 0) {
        ++come;
        if (!me.together) // else all are as far
          arrive(me.arrivals[me.thread]);
        while (done < come && (me.together || all_came(me.arrivals, me.threads, done + 1)))
          multiply(done++);
      }
    }
    for (; done < come; multiply(done++))
      wait_for_all(me.arrivals, me.thread, me.threads, done + 1);
  }

  // Where weights do not stay near from step to step, every second step takes the panels from the
  // last to the first: it begins with those that the step before it has read last.
  void make_records() {
    const int lists = far && me.steps > 1 ? 2 : 1;
    for (int k = 0; k < lists; ++k)
      records[k] = new (static_cast<char *>(me.record) + k * me.record_bytes) Record<T>(me, lists);
    if (lists == 1)
      records[1] = records[0];
  }

  bool from_last() const { return record != records[0]; }

  void forget() {
    records[0]->forget();
    records[1]->forget();
  }

  // The products of a stretch of steps, counted from the last.
  void multiply(std::int64_t stretch) const {
    const std::int64_t first = (me.all_steps - 1) / me.stretch - stretch;
    const std::int64_t to = (first + 1) * me.stretch;
    me.after(me.context, me.thread, first * me.stretch, to < me.all_steps ? to : me.all_steps);
  }

  // Notes time and row number of the active rows of a step, from `first` on.
  void place_rows(std::int64_t s, std::int64_t active, std::int64_t first) const {
    for (std::int64_t r = 0; r < active; ++r) {
      me.time[first + r] = me.reverse ? me.lengths[r] - 1 - s : s;
      me.row[first + r] = me.rows[r];
      me.step[first + r] = me.first_step + s;
      if (me.ranks != nullptr)
        me.rank[first + r] = me.ranks[r];
    }
  }

  static Spacing spacing(const std::int64_t *first, const std::int64_t *second, std::int64_t at,
                         std::int64_t rows) {
    first += at;
    second += at;
    Spacing s{true, rows > 1 ? first[1] - first[0] : 0, rows > 1 ? second[1] - second[0] : 0};
    for (std::int64_t r = 2; s.even && r < rows; ++r)
      s.even = first[r] - first[r - 1] == s.first && second[r] - second[r - 1] == s.second;
    return s;
  }

  // Phases one after another; where nobody waits for this thread and the weights stay near, for a
  // few rows at a time, whose values then stay near too.
  void phases(const Span<Phase> &list, Cut *cuts, std::int64_t first, std::int64_t count) {
    record = records[step & 1];
    start = record->first = first;
    if (record->again(count)) {
      record->move_on();
      return record->run();
    }
    record->begin(count);
    rows_apart = spacing(me.time, me.row, first, count);
    ranks_apart = me.ranks == nullptr ? rows_apart : spacing(me.step, me.rank, first, count);
    std::int64_t parts = 1;
    if (near && list.size > 1 && count > kRowsTogether)
      parts = (count + kRowsTogether - 1) / kRowsTogether;
    for (std::int64_t p = 0; p < parts; ++p) {
      const std::int64_t from = share(count, p, parts), to = share(count, p + 1, parts);
      for (std::uint32_t k = 0; k < list.size; ++k) {
        sweep(list.data[k], cuts[k], first + from, to - from);
        if (me.together)
          record->next(Act::wait);
      }
    }
    record->run();
  }

  // A phase in blocks that fill the slots; what shares a panel's weights comes together.
  void sweep(const Phase &phase, Cut &cut, std::int64_t first, std::int64_t count) {
    if (count == 0)
      return;
    Block b;
    if (cut.count != count)
      cut = cut_for<T>(me, phase, count);
    const auto begins = [&](std::int64_t p) { // a block of panels
      return cut.from + share(cut.to - cut.from, p, cut.panel_blocks);
    };
    for (std::int64_t k = 0; k < cut.panel_blocks; ++k) {
      const std::int64_t p = from_last() ? cut.panel_blocks - 1 - k : k;
      b.panel = begins(p);
      b.panels = static_cast<int>(begins(p + 1) - b.panel);
      const std::int64_t q = from_last() ? p - 1 : p + 1;
      const bool last = k + 1 == cut.panel_blocks;
      b.next = last ? b.panel : begins(q);
      b.nexts = last ? 0 : begins(q + 1) - b.next;
      b.unit = b.panel * L;
      b.units = std::int64_t(b.panels) * L;
      b.valid = phase.width - b.unit < b.units ? phase.width - b.unit : b.units;
      for (std::int64_t r = 0; r < cut.row_blocks; ++r) {
        b.tile = share(cut.tiles, r, cut.row_blocks);
        b.at = first + share(count, b.tile, cut.tiles);
        b.rows = static_cast<int>(
            first + share(count, share(cut.tiles, r + 1, cut.row_blocks), cut.tiles) - b.at);
        b.rows_apart = rows_apart.even ? rows_apart : spacing(me.time, me.row, b.at, b.rows);
        b.ranks_apart = ranks_apart.even || me.ranks == nullptr
                            ? ranks_apart
                            : spacing(me.step, me.rank, b.at, b.rows);
        block(phase, b);
        if (!record->fits) // what is made then stays near until it is used
          record->flush();
      }
    }
    back_home(phase.loads);
    back_home(phase.stores);
  }

  void back_home(const Span<Access> &list) const {
    for (std::uint32_t k = 0; k < list.size; ++k)
      where[list.data[k].slot] = {slot(list.data[k].slot), {}};
  }

  // What is done with a block: block.inl.
  void block(const Phase &phase, const Block &b);
  void instruction(const Instruction &in, const Block &b) const;
  bool in_place(const Access &access, const Block &b, bool write) const;
  // Where the sums of a slot go, and where they begin: from row to row and from panel to panel.
  struct Sums {
    Pointer<T> out;
    Pointer<const T> from;
    std::int64_t apart, panel;
  };
  void product(const Product &p, const Block &b);
  void note(const Product &p, const Prepared<T> &made, const Sums *of, int here, int panels) const;
  void fetch_ahead(typename Tile<T>::Part &part, const T *weights, const Block &b,
                   std::int64_t tile) const;
  Sums begin(std::int32_t start_of, const Block &b, const Pointer<T> &out) const;
  void operands(const Place &place, const Block &b, int first, int rows, const T **found) const;
  void mask(const Mask &m, const Block &b) const;
  void keep(const Access &access, const Block &b) const;
  Action<T> &reach(Act act, const Place &p, const Block &b, bool write, T *&first) const;
  void read(const Place &place, const Block &b, const Pointer<T> &to) const;
  void write(const Access &access, const Block &b) const;
  void sum(const Access &access, const Block &b) const;
};

#include "block.inl"

template <class T> void run(const Share &share) {
  FlushDenormals guard;
  const LoopPlan &plan = *share.plan;
  T *slots = static_cast<T *>(share.slots);
  auto *where = reinterpret_cast<Pointer<T> *>(slots + std::size_t(plan.slots) * plan.slot_size);
  auto *filled = reinterpret_cast<Filled *>(where + plan.slots);
  auto *cuts = reinterpret_cast<Cut *>(filled + plan.slots);
  Loop<T>{share, slots, where, filled, cuts}.run();
}

template <class T> bool run_again(const Share &share) {
  FlushDenormals guard;
  const auto &record = *static_cast<const Record<T> *>(share.record);
  if (record.fits)
    record.run();
  return record.fits;
}

template <class T> void apply(Op op, const T *x, T *out, std::size_t count) {
  FlushDenormals guard;
  Instruction in{op, false, 0, 0, 0, 0, 0, 0};
  execute<T>(in, out, x, x, x, static_cast<int>(count) / kLanes<T>);
}

} // namespace headgate::HEADGATE_ISA
