// How a phase is cut into blocks of rows and units. Included by loop.inl.

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

// Where the k-th of some parts of a whole begins.
inline std::int64_t share(std::int64_t whole, std::int64_t k, std::int64_t parts) {
  return parts == 1 ? k * whole : whole * k / parts;
}

// Slots of the widest product.
inline std::int64_t widest(const Phase &phase) {
  std::int64_t found = 0;
  for (std::uint32_t k = 0; k < phase.products.size; ++k) {
    const std::int64_t slots = phase.products.data[k].slots.size;
    found = slots > found ? slots : found;
  }
  return found;
}

// A thread's part of a phase, for so many rows.
template <class T> Cut cut_for(const Share &me, const Phase &phase, std::int64_t count) {
  constexpr int L = kLanes<T>;
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
