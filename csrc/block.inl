// What a step does with a block of rows and units, as a list for the record. Included by loop.inl.

template <class T> void Loop<T>::block(const Phase &phase, const Block &b) {
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

template <class T> void Loop<T>::instruction(const Instruction &in, const Block &b) const {
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
template <class T> bool Loop<T>::in_place(const Access &access, const Block &b, bool write) const {
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

template <class T> void Loop<T>::product(const Product &p, const Block &b) {
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
template <class T>
void Loop<T>::note(const Product &p, const Prepared<T> &made, const Sums *of, int here,
                   int panels) const {
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
template <class T>
void Loop<T>::fetch_ahead(typename Tile<T>::Part &part, const T *weights, const Block &b,
                          std::int64_t tile) const {
  constexpr std::int64_t kLine = 64 / sizeof(T);
  const std::int64_t from = tile * part.depth * kLine;
  const bool some = far && from + part.depth * kLine <= b.nexts * part.panel;
  part.ahead = some ? weights + b.next * part.panel + from : part.weights;
  part.ahead_stride = some ? kLine : 0;
}

template <class T>
typename Loop<T>::Sums Loop<T>::begin(std::int32_t start_of, const Block &b,
                                      const Pointer<T> &out) const {
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

template <class T>
void Loop<T>::operands(const Place &place, const Block &b, int first, int rows,
                       const T **found) const {
  const Walk w = walk(place, b, false);
  for (int r = 0; r < rows; ++r)
    found[r] = row_of(w, place, b, first + r, false);
  for (int r = rows; r < kMaxRows; ++r)
    found[r] = found[0];
}

template <class T> void Loop<T>::mask(const Mask &m, const Block &b) const {
  Action<T> &a = record->next(Act::mask);
  a.mask = &m;
  a.to = where[m.slot].at;
  a.rows = b.rows;
  a.row = b.at - start;
  a.units = b.units;
  a.unit = b.unit;
  record->moves(a.to, where[m.slot].shift);
}

// Reads once what is the same at all times.
template <class T> void Loop<T>::keep(const Access &access, const Block &b) const {
  Filled &f = filled[access.slot];
  if (f.unit == b.unit && f.units == b.units && f.rows >= b.rows)
    return;
  f = {b.unit, b.units, b.rows};
  record->once = true;
  read(me.places[access.tensor], b, where[access.slot]);
}

// An action on the block's rows of a tensor; `first`: the address of the first of them.
template <class T>
Action<T> &Loop<T>::reach(Act act, const Place &p, const Block &b, bool write, T *&first) const {
  const Walk w = walk(p, b, write);
  Action<T> &a = record->next(act, w.even ? 0 : b.rows);
  for (int r = 0; !w.even && r < b.rows; ++r)
    a.in_tensor.list[r] = address(p, b.at + r, write) - w.first;
  a.in_tensor.apart = w.apart;
  a.rows = b.rows;
  a.units = b.units;
  a.valid = b.valid;
  first = w.first;
  return a;
}

template <class T>
void Loop<T>::read(const Place &place, const Block &b, const Pointer<T> &to) const {
  const bool number = place.width == 1;
  T *first;
  Action<T> &a = reach(number ? Act::read_number : Act::read, place, b, false, first);
  a.to = to.at;
  a.from = first + (number ? 0 : b.unit);
  if (number)
    a.valid = place.panels;
  record->moves(a.to, to.shift);
  record->moves(a.from, shift_of(place, false));
}

template <class T> void Loop<T>::write(const Access &access, const Block &b) const {
  const Place &place = me.places[access.tensor];
  const Pointer<T> &from = where[access.slot];
  const bool in_place = access.alone && from.at != slot(access.slot);
  const bool number = place.width == 1;
  if (in_place || (number && b.unit != 0))
    return;
  const Act wide = access.add ? Act::add : Act::write;
  const Act narrow = access.add ? Act::add_number : Act::write_number;
  T *first;
  Action<T> &a = reach(number ? narrow : wide, place, b, true, first);
  a.to = first + (number ? 0 : b.unit);
  a.from = from.at;
  record->moves(a.to, shift_of(place, true));
  record->moves(a.from, from.shift);
}

template <class T> void Loop<T>::sum(const Access &access, const Block &b) const {
  const Place &place = me.places[access.tensor];
  const Pointer<T> &from = where[access.slot];
  T *first;
  Action<T> &a = reach(Act::sum, place, b, true, first);
  a.to = first + b.panel;
  a.from = from.at;
  record->moves(a.to, shift_of(place, true));
  record->moves(a.from, from.shift);
}
