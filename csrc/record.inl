// What a step does, as a list. A step fills it and runs it; steps alike run it again, for which
// addresses alone move on. Included by loop.inl.

enum class Act : std::uint8_t {
  multiply,
  execute,
  expand,
  read,
  read_number, // sums of panels, or one number, to a narrow slot
  write,
  write_number,
  add,
  add_number,
  sum,
  mask,
  wait,
};

// How an address moves from one step to the next, in elements. A state's turns back at each.
struct Shift {
  std::int64_t by = 0;
  bool turns = false;
};

template <class T> struct Prepared {
  Tile<T> tile;
  Multiply<T> multiply;
};

// How far a row lies from the first: evenly apart, or as a list tells.
struct Distance {
  std::int64_t apart;
  std::int64_t *list; // or null
  std::int64_t operator()(int row) const { return list == nullptr ? row * apart : list[row]; }
};

// Of each row so many units, by which rows lie apart in slots; so many are valid in tensors.
template <class T> struct Action {
  Act act;
  int rows; // of an instruction: its vectors
  union {
    const Instruction *instruction;
    const Mask *mask;
    Prepared<T> *product;
  };
  T *to;
  const T *from, *second, *third;
  std::int64_t units, valid;
  Distance in_tensor;
  std::int64_t row, unit; // of a mask: the first
};

template <class T> struct Record {
  struct Moving {
    const T **first;
    bool rows; // kMaxRows of them side by side; else one
    bool turns;
    std::int64_t by;
  };
  static constexpr int kActions = 6, kMoving = 16, kUneven = 8; // for each tile

  const Share &me;
  int apart; // steps from one that runs it to the next
  int room;  // tiles
  Prepared<T> *tile;
  Action<T> *action;
  Moving *move;
  std::int64_t *distance; // of rows unevenly apart
  int tiles = 0, actions = 0, moving = 0, distances = 0;
  std::int64_t count = -1; // active rows of the steps that fill it; -1: none
  bool once = false;       // it reads what stays, which a second such step need not do again
  bool second = false;     // it is of a second such step
  bool fits = true;        // all that a step does
  std::int64_t first = 0;  // the step's first row, among those of a chunk of steps

  // Lies where it has its memory.
  Record(const Share &share, int steps_apart) : me(share), apart(steps_apart) {
    constexpr std::size_t each = sizeof(Prepared<T>) + kActions * sizeof(Action<T>) +
                                 kMoving * sizeof(Moving) + kUneven * sizeof(std::int64_t);
    room = static_cast<int>((me.record_bytes - sizeof(Record)) / each);
    tile = reinterpret_cast<Prepared<T> *>(this + 1);
    action = reinterpret_cast<Action<T> *>(tile + room);
    move = reinterpret_cast<Moving *>(action + room * kActions);
    distance = reinterpret_cast<std::int64_t *>(move + room * kMoving);
  }

  // Whether the list is that of a step alike.
  bool again(std::int64_t active) const { return fits && count == active && (second || !once); }

  // The next step is not like the one before.
  void forget() {
    count = -1;
    fits = true;
  }

  void begin(std::int64_t active) {
    second = count == active;
    once = false;
    count = active;
    clear();
  }

  // With room for the distances of so many rows.
  Action<T> &next(Act act, int uneven = 0) {
    if (actions == room * kActions || distances + uneven > room * kUneven)
      spill();
    Action<T> &a = action[actions++];
    a.act = act;
    a.in_tensor.list = uneven == 0 ? nullptr : distance + distances;
    distances += uneven;
    return a;
  }

  Prepared<T> &next_product() {
    if (tiles == room || actions == room * kActions)
      spill();
    return *(next(Act::multiply).product = &tile[tiles++]);
  }

  // An address, or those of all rows, in the list.
  template <class P> void moves(P *&address, const Shift &shift, bool rows = false) {
    const bool back = shift.turns && apart == 2; // where it was
    if (shift.by == 0 || back || !fits)
      return;
    if (moving == room * kMoving) {
      fits = false;
      return;
    }
    move[moving++] = {const_cast<const T **>(&address), rows, shift.turns, shift.by * apart};
  }

  void spill() {
    fits = false;
    flush();
  }

  void flush() {
    run();
    clear();
  }

  void clear() { tiles = actions = moving = distances = 0; }

  void move_on() {
    for (Moving *m = move, *end = move + moving; m < end; ++m) {
      *m->first += m->by;
      for (int k = 1; m->rows && k < kMaxRows; ++k)
        m->first[k] += m->by;
      if (m->turns)
        m->by = -m->by;
    }
  }

  void run() const {
    for (const Action<T> *a = action, *end = action + actions; a < end; ++a)
      run(*a);
  }

  HEADGATE_INLINE void run(const Action<T> &a) const {
    constexpr int L = kLanes<T>;
    const Distance in_slot{a.units, nullptr};
    switch (a.act) {
    case Act::multiply:
      return a.product->multiply(a.product->tile);
    case Act::execute:
      return execute<T>(*a.instruction, a.to, a.from, a.second, a.third, a.rows);
    case Act::expand:
      return expand(a);
    case Act::read:
      move_rows<false>(a.from, a.in_tensor, a.to, in_slot, a.rows, a.valid);
      return clear_past(a.to, a);
    case Act::read_number:
      for (int r = 0; r < a.rows; ++r) {
        const T *from = a.from + a.in_tensor(r);
        T number = from[0];
        for (std::int64_t k = 1; k < a.valid; ++k)
          number += from[k];
        store(a.to + r * L, all(number));
      }
      return;
    case Act::write:
      return move_rows<false>(a.from, in_slot, a.to, a.in_tensor, a.rows, a.valid);
    case Act::add:
      return move_rows<true>(a.from, in_slot, a.to, a.in_tensor, a.rows, a.valid);
    case Act::write_number:
      for (int r = 0; r < a.rows; ++r)
        a.to[a.in_tensor(r)] = a.from[r * L];
      return;
    case Act::add_number:
      for (int r = 0; r < a.rows; ++r)
        a.to[a.in_tensor(r)] += a.from[r * L];
      return;
    case Act::sum:
      return sum(a);
    case Act::mask:
      return mask(a);
    case Act::wait:
      arrive(me.arrivals[me.thread]);
      return wait_for_all(me.arrivals, me.thread, me.threads, me.arrivals[me.thread].count);
    }
  }

  static void expand(const Action<T> &a) {
    constexpr int L = kLanes<T>;
    T *to = a.to;
    const T *from = a.from;
    for (int r = 0; r < a.rows; ++r, from += L) {
      const Vec<T> number = load(from);
      for (std::int64_t i = 0; i < a.units; i += L, to += L)
        store(to, number);
    }
  }

  // Each panel's sum by itself, so that no bit depends on how units are shared among threads.
  static void sum(const Action<T> &a) {
    constexpr int L = kLanes<T>;
    clear_past(const_cast<T *>(a.from), a);
    for (int r = 0; r < a.rows; ++r) {
      const T *from = a.from + r * a.units;
      for (std::int64_t i = 0; i < a.units; i += L)
        a.to[a.in_tensor(r) + i / L] = total<T>(load(from + i));
    }
  }

  // For rows that count from the step's first.
  void mask(const Action<T> &a) const {
    for (int r = 0; r < a.rows; ++r) {
      const std::int64_t at = first + a.row + r;
      fill_mask<T>(*a.mask, me.seed, me.streams[a.mask->number], me.row[at], me.step[at], a.unit,
                   a.units, a.to + r * a.units);
    }
  }

  // Units past a tensor's width, in a slot.
  static void clear_past(T *slot, const Action<T> &a) {
    for (int r = 0; a.valid < a.units && r < a.rows; ++r) {
      for (std::int64_t i = a.valid; i < a.units; ++i)
        slot[r * a.units + i] = T(0);
    }
  }

  // So many numbers of some rows from one place to another, or to what is there.
  template <bool Add>
  static HEADGATE_APART void move_rows(const T *first, Distance from_first, T *out,
                                       Distance from_out, int rows, std::int64_t numbers) {
    constexpr int L = kLanes<T>;
    const std::int64_t whole = numbers / L * L;
    for (int r = 0; r < rows; ++r) {
      const T *from = first + from_first(r);
      T *to = out + from_out(r);
      for (std::int64_t i = 0; i < whole; i += L)
        store(to + i, Add ? Vec<T>(load(to + i) + load(from + i)) : load(from + i));
      for (std::int64_t i = whole; i < numbers; ++i)
        to[i] = Add ? to[i] + from[i] : from[i];
    }
  }
};
