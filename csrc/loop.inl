// The time loop for one instruction set. Included by one file for each, which defines HEADGATE_ISA.

#include <chrono>
#include <new>
#include <type_traits>

#include <sched.h>

#include "loop.hpp"
#include "vec.hpp"

#if defined(__x86_64__)
#include <xmmintrin.h>
#endif

namespace headgate::HEADGATE_ISA {

#include "instructions.inl"
#include "masks.inl"
#include "tile.inl"

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

// Until another thread has counted so far. Returns the nanoseconds that it took, about.
HEADGATE_INLINE std::int64_t wait_for(const std::int64_t *count, std::int64_t enough) {
  if (__atomic_load_n(count, __ATOMIC_ACQUIRE) >= enough)
    return 0;
  const auto began = std::chrono::steady_clock::now();
  auto now = began; // read while there is nothing else to do
  for (int spins = 0; __atomic_load_n(count, __ATOMIC_ACQUIRE) < enough; ++spins) {
    if (spins < 4096)
      pause();
    else
      sched_yield(); // somebody else has the processor that we wait for
    now = std::chrono::steady_clock::now();
  }
  return std::chrono::nanoseconds(now - began).count();
}

// Counts that this thread has come.
HEADGATE_INLINE void arrive(Arrivals &mine) {
  __atomic_store_n(&mine.count, mine.count + 1, __ATOMIC_RELEASE);
}

// Until all threads have come as often.
HEADGATE_INLINE void wait_for_all(Arrivals *arrivals, int thread, int threads, std::int64_t often) {
  for (int other = 0; other < threads; ++other)
    arrivals[thread].waited += wait_for(&arrivals[other].count, often);
}

HEADGATE_INLINE bool all_came(const Arrivals *arrivals, int threads, std::int64_t often) {
  for (int other = 0; other < threads; ++other) {
    if (__atomic_load_n(&arrivals[other].count, __ATOMIC_ACQUIRE) < often)
      return false;
  }
  return true;
}

#include "record.inl"

constexpr std::int64_t kRowsTogether = tile_rows(kMaxVectors); // that fill the widest tile

// Whether rows are evenly apart in two lists, and by how much in each.
struct Spacing {
  bool even;
  std::int64_t first, second;
};

// A block of a phase: some rows, some panels, which are vectors of units. In a slot it is (row,
// panel, unit), compact.
struct Block {
  std::int64_t at;          // its first row: position + start
  std::int64_t panel, unit; // its first
  int rows, panels;
  std::int64_t tile;         // tiles of rows before it
  std::int64_t next, nexts;  // the first panel of the block after it, and how many; none: 0
  std::int64_t units, valid; // of a row: in the slot, and in the tensors
  Spacing rows_apart, ranks_apart;
};

// How the rows and panels of a phase are cut into blocks, for a number of rows.
struct Cut {
  std::int64_t count;
  std::int64_t from, to; // this thread's panels
  std::int64_t tiles;    // of rows
  std::int64_t row_blocks, panel_blocks;
};

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
    if (plan.backward) {
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
      return;
    }
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
      cut = cut_for(phase, count);
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

  // Where the k-th of some parts of a whole begins.
  static std::int64_t share(std::int64_t whole, std::int64_t k, std::int64_t parts) {
    return parts == 1 ? k * whole : whole * k / parts;
  }

  Cut cut_for(const Phase &phase, std::int64_t count) const {
    Cut c{};
    c.count = count;
    const std::int64_t all = (phase.width + L - 1) / L;
    c.from = me.units.first(all);
    c.to = me.units.last(all);
    const std::int64_t mine = c.to - c.from;
    if (mine == 0)
      return c;
    const std::int64_t room = me.plan->slot_size / L; // rows × panels of a block
    // Whole rows where they leave room for a tile of them and the weights stay near: values may
    // then remain where they lie.
    const std::int64_t weights = std::int64_t(phase.weight) * mine * L;
    const bool whole = mine * (phase.products.size ? 4 : 1) <= room &&
                       weights * std::int64_t(sizeof(T)) <= stays_near();
    // Panels that fill a tile: as many at the least, and no more than several tiles find near.
    const std::int64_t slots = widest(phase);
    std::int64_t least = slots == 0 || slots > kMaxVectors ? 1 : kMaxVectors / slots;
    least = least < mine ? least : mine;
    const std::int64_t rows = room / (whole ? mine : least);
    std::int64_t tall = slots == 0 ? 1 : tile_rows(static_cast<int>(least * slots));
    if (tall > rows)
      tall = rows;
    c.tiles = (count + tall - 1) / tall;
    c.row_blocks = (c.tiles + rows / tall - 1) / (rows / tall);
    const std::int64_t together = (c.tiles + c.row_blocks - 1) / c.row_blocks; // tiles
    const std::int64_t most = together * ((count + c.tiles - 1) / c.tiles);
    const std::int64_t panel = std::int64_t(phase.weight) * L * std::int64_t(sizeof(T)); // bytes
    std::int64_t panels = room / most < mine ? room / most : mine;
    if (panels * panel > stays_near())
      panels = stays_near() / panel > least ? stays_near() / panel : least;
    c.panel_blocks = (mine + panels - 1) / panels;
    return c;
  }

  // Slots of the widest product.
  static std::int64_t widest(const Phase &phase) {
    std::int64_t found = 0;
    for (std::uint32_t k = 0; k < phase.products.size; ++k) {
      const std::int64_t slots = phase.products.data[k].slots.size;
      found = slots > found ? slots : found;
    }
    return found;
  }

  void back_home(const Span<Access> &list) const {
    for (std::uint32_t k = 0; k < list.size; ++k)
      where[list.data[k].slot] = {slot(list.data[k].slot), {}};
  }

  void block(const Phase &phase, const Block &b) {
    for (std::uint32_t k = 0; k < phase.loads.size; ++k) {
      const Access &access = phase.loads.data[k];
      if (access.add)
        keep(access, b);
      else if (!in_place(access, b, false))
        read(me.places[access.tensor], b, where[access.slot]);
    }
    for (std::uint32_t k = 0; k < phase.stores.size; ++k)
      in_place(phase.stores.data[k], b, true);
    for (std::uint32_t k = 0; k < phase.products.size; ++k)
      product(phase.products.data[k], b);
    for (std::uint32_t k = 0; k < phase.masks.size; ++k)
      mask(phase.masks.data[k], b);
    for (std::uint32_t k = 0; k < phase.instructions.size; ++k)
      instruction(phase.instructions.data[k], b);
    for (std::uint32_t k = 0; k < phase.stores.size; ++k)
      write(phase.stores.data[k], b);
    for (std::uint32_t k = 0; k < phase.sums.size; ++k)
      sum(phase.sums.data[k], b);
  }

  void instruction(const Instruction &in, const Block &b) const {
    const bool expands = in.op == Op::expand;
    Action<T> &a = record->next(expands ? Act::expand : Act::execute);
    a.instruction = &in;
    a.rows = expands || in.narrow ? b.rows : b.rows * b.panels;
    a.units = b.units;
    const Pointer<T> out = where[in.out], first = where[in.a];
    const Pointer<T> second = where[in.b], third = where[in.c];
    a.to = out.at;
    a.from = first.at;
    a.second = second.at;
    a.third = third.at;
    record->moves(a.to, out.shift);
    record->moves(a.from, first.shift);
    record->moves(a.second, second.shift);
    record->moves(a.third, third.shift);
  }

  // Lets a slot be the tensor's own memory where that is laid out as the block is, be it with room
  // for the units past the tensor's width.
  bool in_place(const Access &access, const Block &b, bool write) const {
    if (!access.alone)
      return false;
    const Place &place = me.places[access.tensor];
    const Walk w = walk(place, b, write);
    const bool fits = (b.valid == b.units || place.by_position >= b.unit + b.units) &&
                      place.width != 1 && w.even && (b.rows == 1 || w.apart == b.units);
    if (fits)
      where[access.slot] = {w.first + b.unit, shift_of(place, write)};
    else
      where[access.slot] = {slot(access.slot), {}};
    return fits;
  }

  // Where the sums of a slot go, and where they begin: from row to row and from panel to panel.
  struct Sums {
    Pointer<T> out;
    Pointer<const T> from;
    std::int64_t apart, panel;
  };

  void product(const Product &p, const Block &b) {
    const int blocks = static_cast<int>(p.slots.size);
    if (!record->fits) // what it reads must be there, since it runs at once
      record->flush();
    for (int done = 0; done < blocks; done += kMaxVectors) {
      const int here = blocks - done < kMaxVectors ? blocks - done : kMaxVectors;
      Sums of[kMaxVectors];
      for (int v = 0; v < here; ++v)
        of[v] = begin(p.starts.data[done + v], b, where[p.slots.data[done + v]]);
      if (!record->fits)
        record->flush();
      Prepared<T> made;
      Tile<T> &tile = made.tile;
      tile.out_stride = b.units;
      tile.segments = static_cast<int>(p.segments.size);
      for (int s = 0; s < tile.segments; ++s) {
        tile.parts[s].depth = p.segments.data[s].depth;
        tile.parts[s].stride = std::int64_t(blocks) * L;
        tile.parts[s].panel = tile.parts[s].stride * tile.parts[s].depth;
      }
      const int most = (b.rows == 1 ? kWidest : kMaxVectors) / here;
      const int groups = (b.panels + most - 1) / most; // of panels
      const int tall = tile_rows((b.panels + groups - 1) / groups * here);
      const int tiles = (b.rows + tall - 1) / tall;
      for (int t = 0; t < tiles; ++t) {
        const int r0 = static_cast<int>(share(b.rows, t, tiles));
        const int rows = static_cast<int>(share(b.rows, t + 1, tiles)) - r0;
        for (int s = 0; s < tile.segments; ++s)
          operands(me.places[p.segments.data[s].operand], b, r0, rows, tile.parts[s].rows);
        for (int group = 0; group < groups; ++group) {
          const int g0 = static_cast<int>(share(b.panels, group, groups));
          const int panels = static_cast<int>(share(b.panels, group + 1, groups)) - g0;
          for (int s = 0; s < tile.segments; ++s) {
            auto &part = tile.parts[s];
            const T *weights = static_cast<const T *>(me.weights[p.segments.data[s].weight]);
            part.weights = weights + done * L + (b.panel + g0) * part.panel;
            fetch_ahead(part, weights, b, (b.tile + t) * groups + group);
          }
          for (int g = 0; g < panels; ++g) {
            for (int v = 0; v < here; ++v) {
              const int w = g * here + v;
              tile.out[w] = of[v].out.at + r0 * b.units + (g0 + g) * L;
              tile.start[w] = of[v].from.at + r0 * of[v].apart + (g0 + g) * of[v].panel;
              tile.start_stride[w] = of[v].apart;
            }
          }
          made.multiply = multiply_for<T>(rows, here, panels);
          if (record->fits)
            note(p, made, of, here, panels);
          else
            made.multiply(tile);
        }
      }
    }
  }

  // A product's tile, for this step and for others.
  void note(const Product &p, const Prepared<T> &made, const Sums *of, int here, int panels) const {
    Tile<T> &tile = (record->next_product() = made).tile;
    for (int s = 0; s < tile.segments; ++s) {
      const Shift shift = shift_of(me.places[p.segments.data[s].operand], false);
      record->moves(tile.parts[s].rows[0], shift, true);
    }
    for (int g = 0; g < panels; ++g) {
      for (int v = 0; v < here; ++v) {
        record->moves(tile.out[g * here + v], of[v].out.shift);
        record->moves(tile.start[g * here + v], of[v].from.shift);
      }
    }
  }

  // A part of the next panels, as much as there are steps k in the tile.
  void fetch_ahead(typename Tile<T>::Part &part, const T *weights, const Block &b,
                   std::int64_t tile) const {
    constexpr std::int64_t kLine = 64 / sizeof(T);
    const std::int64_t from = tile * part.depth * kLine;
    const bool some = far && from + part.depth * kLine <= b.nexts * part.panel;
    part.ahead = some ? weights + b.next * part.panel + from : part.weights;
    part.ahead_stride = some ? kLine : 0;
  }

  Sums begin(std::int32_t start_of, const Block &b, const Pointer<T> &out) const {
    static const T zeros[L] = {};
    if (start_of == kFromZero)
      return {out, {zeros, {}}, 0, 0};
    const Sums itself{out, {out.at, out.shift}, b.units, L};
    if (start_of == kFromSlot)
      return itself;
    const Place &place = me.places[static_cast<std::uint16_t>(start_of)];
    const Walk w = walk(place, b, false);
    if (b.valid == b.units && place.width != 1 && w.even)
      return {out, {w.first + b.unit, shift_of(place, false)}, w.apart, L};
    read(place, b, out);
    return itself;
  }

  void operands(const Place &place, const Block &b, int first, int rows, const T **found) const {
    const Walk w = walk(place, b, false);
    for (int r = 0; r < rows; ++r)
      found[r] = row_of(w, place, b, first + r, false);
    for (int r = rows; r < kMaxRows; ++r)
      found[r] = found[0];
  }

  void mask(const Mask &m, const Block &b) const {
    Action<T> &a = record->next(Act::mask);
    a.mask = &m;
    a.to = where[m.slot].at;
    a.rows = b.rows;
    a.from_apart = b.at - start;
    a.units = b.units;
    a.valid = b.unit;
    record->moves(a.to, where[m.slot].shift);
  }

  // Reads once what is the same at all times.
  void keep(const Access &access, const Block &b) const {
    Filled &f = filled[access.slot];
    if (f.unit == b.unit && f.units == b.units && f.rows >= b.rows)
      return;
    f = {b.unit, b.units, b.rows};
    record->once = true;
    read(me.places[access.tensor], b, where[access.slot]);
  }

  // Rows of a tensor, evenly apart all together, or else one by one: their first, its address.
  template <class Each> void evenly(const Place &p, const Block &b, bool write, Each each) const {
    const Walk w = walk(p, b, write);
    if (w.even)
      return each(0, b.rows, w.first, w.apart);
    for (int r = 0; r < b.rows; ++r)
      each(r, 1, address(p, b.at + r, write), std::int64_t(0));
  }

  void read(const Place &place, const Block &b, const Pointer<T> &to) const {
    const bool number = place.width == 1;
    evenly(place, b, false, [&](int r, int rows, const T *from, std::int64_t apart) {
      Action<T> &a = record->next(number ? Act::read_number : Act::read);
      a.rows = rows;
      a.to = to.at + r * (number ? L : b.units);
      a.from = from + (number ? 0 : b.unit);
      a.to_apart = a.units = b.units;
      a.from_apart = apart;
      a.valid = number ? place.panels : b.valid;
      record->moves(a.to, to.shift);
      record->moves(a.from, shift_of(place, false));
    });
  }

  void write(const Access &access, const Block &b) const {
    const Place &place = me.places[access.tensor];
    const Pointer<T> &from = where[access.slot];
    const bool in_place = access.alone && from.at != slot(access.slot);
    const bool number = place.width == 1;
    if (in_place || (number && b.unit != 0))
      return;
    const Act wide = access.add ? Act::add : Act::write;
    const Act narrow = access.add ? Act::add_number : Act::write_number;
    evenly(place, b, true, [&](int r, int rows, T *to, std::int64_t apart) {
      Action<T> &a = record->next(number ? narrow : wide);
      a.rows = rows;
      a.to = to + (number ? 0 : b.unit);
      a.from = from.at + r * (number ? L : b.units);
      a.to_apart = apart;
      a.from_apart = b.units;
      a.valid = b.valid;
      record->moves(a.to, shift_of(place, true));
      record->moves(a.from, from.shift);
    });
  }

  void sum(const Access &access, const Block &b) const {
    const Place &place = me.places[access.tensor];
    const Pointer<T> &from = where[access.slot];
    evenly(place, b, true, [&](int r, int rows, T *to, std::int64_t apart) {
      Action<T> &a = record->next(Act::sum);
      a.rows = rows;
      a.to = to + b.panel;
      a.from = from.at + r * b.units;
      a.to_apart = apart;
      a.units = b.units;
      a.valid = b.valid;
      record->moves(a.to, shift_of(place, true));
      record->moves(a.from, from.shift);
    });
  }
};

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
