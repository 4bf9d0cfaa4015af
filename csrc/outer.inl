// The weights' gradients: sums over all steps and rows. Included by products.inl.

constexpr std::int64_t kDepthBlock = 128; // rows of a and b that are taken together, about
constexpr std::int64_t kDeepest = kDepthBlock * 3 / 2;
constexpr int kOuterRows = 6; // of c's tile, at most
constexpr int kFewPanels = 4; // of b; for more, a's columns are copied to where tiles read them
constexpr int kStripsTogether = 8; // that are copied in one pass over the rows
constexpr std::int64_t kStrip = kOuterRows * kDeepest + 8; // numbers of a copy, and past its end

// to[r][v] = from[r][v] + Σ_k rows[k][column + r] · b[k][v]: b (depth, V) compact. What lies `next`
// behind `from` is wanted by the next tile.
template <class T, int R, int V>
void outer_tile(const T *const *rows, std::int64_t column, const T *b, std::int64_t depth,
                const T *from, std::int64_t from_stride, T *to, std::int64_t to_stride,
                std::int64_t next) {
  constexpr int L = kLanes<T>;
  Vec<T> sum[R][V];
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v)
      sum[r][v] = load(from + r * from_stride + v * L);
  }
  for (int k = 0; next != 0 && k < R * V; ++k)
    __builtin_prefetch(from + next + k * L);
  for (std::int64_t k = 0; k < depth; ++k) {
    const T *a = rows[k] + column;
    Vec<T> x[V];
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v)
      x[v] = load(b + v * L);
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v)
        sum[r][v] += x[v] * a[r];
    }
    b += V * L;
  }
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v)
      store(to + r * to_stride + v * L, sum[r][v]);
  }
}

template <class T>
using OuterTile = void (*)(const T *const *, std::int64_t, const T *, std::int64_t, const T *,
                           std::int64_t, T *, std::int64_t, std::int64_t);

template <class T, int V>
constexpr OuterTile<T> kOuterTiles[kOuterRows] = {outer_tile<T, 1, V>, outer_tile<T, 2, V>,
                                                  outer_tile<T, 3, V>, outer_tile<T, 4, V>,
                                                  outer_tile<T, 5, V>, outer_tile<T, 6, V>};

template <class T> HEADGATE_INLINE OuterTile<T> outer_for(std::int64_t rows, std::int64_t vectors) {
  if constexpr (kMaxVectors == 4) {
    if (vectors == 4)
      return kOuterTiles<T, 4>[rows - 1];
    if (vectors == 3)
      return kOuterTiles<T, 3>[rows - 1];
  }
  return (vectors == 2 ? kOuterTiles<T, 2> : kOuterTiles<T, 1>)[rows - 1];
}

template <class T> HEADGATE_INLINE std::int64_t in_vectors(std::int64_t width) {
  return (width + kLanes<T> - 1) / kLanes<T> * kLanes<T>;
}

// each(i, units) for what tiles span of a row: from column i on, so many in whole vectors.
template <class T, class Each> HEADGATE_INLINE void each_panel(std::int64_t width, Each each) {
  constexpr std::int64_t most = std::int64_t(kMaxVectors) * kLanes<T>;
  const std::int64_t all = in_vectors<T>(width);
  for (std::int64_t i = 0; i < all; i += most)
    each(i, all - i < most ? all - i : most);
}

// sums[c] += Σ_k rows[k][column + c], for N vectors of columns or so many of them.
template <class T, int N>
void add_vectors(const T *const *rows, std::int64_t depth, std::int64_t column, T *sums) {
  constexpr int L = kLanes<T>;
  Vec<T> sum[N] = {};
  for (std::int64_t k = 0; k < depth; ++k) {
#pragma GCC unroll 4
    for (int n = 0; n < N; ++n)
      sum[n] += load(rows[k] + column + n * L);
  }
  for (int n = 0; n < N; ++n)
    store(sums + n * L, Vec<T>(load(sums + n * L) + sum[n]));
}

template <class T>
void add_columns(const T *const *rows, std::int64_t depth, std::int64_t column,
                 std::int64_t columns, T *sums) {
  constexpr int L = kLanes<T>;
  for (; columns >= 4 * L; columns -= 4 * L, column += 4 * L, sums += 4 * L)
    add_vectors<T, 4>(rows, depth, column, sums);
  for (; columns >= L; columns -= L, column += L, sums += L)
    add_vectors<T, 1>(rows, depth, column, sums);
  T sum[L] = {};
  for (std::int64_t k = 0; k < depth; ++k) {
    for (std::int64_t c = 0; c < columns; ++c)
      sum[c] += rows[k][column + c];
  }
  for (std::int64_t c = 0; c < columns; ++c)
    sums[c] += sum[c];
}

// Rows first … last of b in tiles (i tile, k, units), zeros past its width.
template <class T>
void pack_columns(const Outer &p, std::int64_t first, std::int64_t last, T *out) {
  constexpr int L = kLanes<T>;
  each_panel<T>(p.width, [&](std::int64_t i, std::int64_t units) {
    const std::int64_t valid = p.width - i < units ? p.width - i : units;
    for (std::int64_t k = first; k < last; ++k, out += units) {
      const T *row = row_at<T>(p.b, k) + i;
      std::int64_t u = 0;
      for (; u + L <= valid; u += L)
        store(out + u, load(row + u));
      for (; u < valid; ++u)
        out[u] = row[u];
      for (; u < units; ++u)
        out[u] = T(0);
    }
  });
}

// Whether rows of b lie as packing would lay them.
template <class T> bool lies_packed(const Outer &p) {
  return p.b.at == nullptr && p.b.stride == p.width && p.width == in_vectors<T>(p.width) &&
         p.width <= kMaxVectors * kLanes<T>;
}

// Whether a tile's sums go straight to where c lies.
inline bool straight(const Outer &p, std::int64_t i, std::int64_t units) {
  return !p.add && i + units <= p.width;
}

// A tile's rows of c, which are columns of one of a's matrices. Tiles read column r of row k at
// from[k][at + r].
template <class T> struct Strip {
  std::int64_t matrix, column, row, rows;
  const T *const *from;
  std::int64_t at;
};

// One thread's tiles of a job.
template <class T> struct OuterTiles {
  static constexpr int L = kLanes<T>;

  const OuterJob &job;
  std::int64_t first, last; // tiles
  std::int64_t columns;     // of all products' b, in whole vectors
  // Memory of a call: b's columns (i tile, k, unit), copies of strips (strip, k, 6), addresses of
  // a's rows (matrix, k) and of the copies', strips.
  T *packed = nullptr, *copies = nullptr;
  const T **rows = nullptr;
  Strip<T> *strips = nullptr;
  // From the first stretch to the last: sums (strip, product, i tile, row, unit), and those of a.
  T *c = nullptr, *sums = nullptr;

  OuterTiles(const OuterJob &job, const Portion &mine) : job(job) {
    std::int64_t tiles = 0;
    for (std::uint32_t m = 0; m < job.a.size; ++m)
      tiles += strips_of(job.a.data[m]);
    first = mine.first(tiles);
    last = mine.last(tiles);
    columns = 0;
    for (std::uint32_t p = 0; p < job.products.size; ++p)
      columns += in_vectors<T>(job.products.data[p].width);
  }

  static std::int64_t strips_of(const Columns &a) {
    return (a.width + kOuterRows - 1) / kOuterRows;
  }
  std::int64_t count() const { return last - first; }
  std::int64_t between() const { return kOuterRows * columns; } // strips' sums
  bool copied() const { return columns > kFewPanels * kMaxVectors * L; }
  std::int64_t packed_numbers() const { return columns * kDeepest; }
  std::int64_t copies_numbers() const { return copied() ? count() * kStrip : 0; }
  std::int64_t addresses() const { return (job.a.size + 1) * kDeepest; }

  Scratch scratch() const {
    return {std::size_t(packed_numbers() + copies_numbers()) * sizeof(T) +
                std::size_t(addresses()) * sizeof(T *) + std::size_t(count()) * sizeof(Strip<T>),
            std::size_t(count() * kOuterRows * (columns + 1)) * sizeof(T)};
  }

  void lie_at(void *memory, void *kept) {
    packed = static_cast<T *>(memory);
    copies = packed + packed_numbers();
    rows = reinterpret_cast<const T **>(copies + copies_numbers());
    strips = reinterpret_cast<Strip<T> *>(rows + addresses());
    c = static_cast<T *>(kept);
    sums = c + count() * between();
    list_strips();
    for (std::int64_t k = 0; copied() && k < kDeepest; ++k)
      rows[job.a.size * kDeepest + k] = copies + k * kOuterRows;
  }

  void list_strips() {
    std::int64_t tile = 0, before = 0;
    Strip<T> *found = strips;
    for (std::uint32_t m = 0; m < job.a.size; ++m) {
      const std::int64_t width = job.a.data[m].width, all = strips_of(job.a.data[m]);
      for (std::int64_t k = 0; k < all; ++k, ++tile) {
        if (tile < first || tile >= last)
          continue;
        const std::int64_t column = width * k / all, end = width * (k + 1) / all;
        const T *const *from = rows + (copied() ? job.a.size : m) * kDeepest;
        const std::int64_t at = copied() ? (found - strips) * kStrip : column;
        *found++ = {m, column, before + column, end - column, from, at};
      }
      before += width;
    }
  }

  // A few rows of a and b to the sums so far.
  void add(const Stretch &range) {
    const std::int64_t depth = range.to - range.from;
    for (std::uint32_t m = 0; m < job.a.size; ++m) {
      for (std::int64_t k = 0; k < depth; ++k)
        rows[m * kDeepest + k] = row_at<T>(job.a.data[m].rows, range.from + k);
    }
    add_all_columns(depth);
    if (copied())
      copy_strips(depth);
    std::int64_t before = 0; // columns of products done
    for (std::uint32_t q = 0; q < job.products.size; ++q) {
      const Outer &p = job.products.data[q];
      const bool lies = lies_packed<T>(p);
      if (!lies)
        pack_columns<T>(p, range.from, range.to, packed);
      multiply(p, before, lies ? row_at<T>(p.b, range.from) : packed, range);
      before += in_vectors<T>(p.width);
    }
  }

  // Strips of a matrix lie side by side.
  void add_all_columns(std::int64_t depth) {
    for (std::int64_t t = 0; t < count();) {
      const Strip<T> &begin = strips[t];
      std::int64_t wide = 0;
      for (; t < count() && strips[t].matrix == begin.matrix; ++t)
        wide += strips[t].rows;
      add_columns<T>(rows + begin.matrix * kDeepest, depth, begin.column, wide,
                     sums + begin.row - strips[0].row);
    }
  }

  // Eight columns at a time where there are so many: two too many, which the next row writes over.
  void copy_strips(std::int64_t depth) {
    typedef T Eight __attribute__((vector_size(8 * sizeof(T)), aligned(sizeof(T)), may_alias));
    for (std::int64_t t = 0; t < count();) {
      const Strip<T> &begin = strips[t];
      const T *const *from = rows + begin.matrix * kDeepest;
      const std::int64_t width = job.a.data[begin.matrix].width;
      const auto whole = [&](const Strip<T> &s) {
        return s.matrix == begin.matrix && s.column + 8 <= width;
      };
      std::int64_t n = 0;
      while (n < kStripsTogether && t + n < count() && whole(strips[t + n]))
        ++n;
      for (std::int64_t k = 0; k < depth; ++k) {
        T *to = copies + t * kStrip + k * kOuterRows;
        for (std::int64_t s = 0; s < n; ++s)
          *reinterpret_cast<Eight *>(to + s * kStrip) =
              *reinterpret_cast<const Eight *>(from[k] + strips[t + s].column);
        for (std::int64_t r = 0; n == 0 && r < begin.rows; ++r)
          to[r] = from[k][begin.column + r];
      }
      t += n == 0 ? 1 : n;
    }
  }

  void multiply(const Outer &p, std::int64_t before, const T *b, const Stretch &range) {
    static const T zeros[kMaxVectors * L] = {};
    const std::int64_t depth = range.to - range.from;
    const bool far = count() * between() * std::int64_t(sizeof(T)) > stays_near();
    const std::int64_t next = far && !range.begins ? between() : 0;
    each_panel<T>(p.width, [&](std::int64_t i, std::int64_t units) {
      for (std::int64_t t = 0; t < count(); ++t) {
        const Strip<T> &strip = strips[t];
        T *kept = c + t * between() + kOuterRows * (before + i), *to = kept;
        std::int64_t stride = units;
        if (range.ends && straight(p, i, units)) {
          to = static_cast<T *>(p.c) + strip.row * p.c_stride + i;
          stride = p.c_stride;
        }
        outer_for<T>(strip.rows, units / L)(strip.from, strip.at, b + i * depth, depth,
                                            range.begins ? zeros : kept, range.begins ? 0 : units,
                                            to, stride, next);
      }
    });
  }

  // From the tiles to where c lies, for those that did not go straight there.
  void unpack(const Outer &p, std::int64_t before) const {
    each_panel<T>(p.width, [&](std::int64_t i, std::int64_t units) {
      if (straight(p, i, units))
        return;
      const std::int64_t valid = p.width - i < units ? p.width - i : units;
      for (std::int64_t t = 0; t < count(); ++t) {
        const Strip<T> &strip = strips[t];
        for (std::int64_t r = 0; r < strip.rows; ++r) {
          const T *from = c + t * between() + kOuterRows * (before + i) + r * units;
          T *to = static_cast<T *>(p.c) + (strip.row + r) * p.c_stride + i;
          for (std::int64_t u = 0; u < valid; ++u)
            put(to + u, from[u], p.add);
        }
      }
    });
  }

  void run(const Stretch &range) {
    if (count() == 0)
      return;
    const Strip<T> &end = strips[count() - 1];
    const std::int64_t row = strips[0].row, height = end.row + end.rows - row;
    for (std::int64_t j = 0; range.begins && j < height; ++j)
      sums[j] = T(0);
    const std::int64_t depth = range.to - range.from;
    if (depth == 0 && !range.begins && !range.ends)
      return;
    std::int64_t blocks = (depth + kDepthBlock / 2) / kDepthBlock;
    if (blocks == 0) // without rows c is zero
      blocks = 1;
    for (std::int64_t k = 0; k < blocks; ++k) {
      add({range.from + depth * k / blocks, range.from + depth * (k + 1) / blocks,
           range.begins && k == 0, range.ends && k + 1 == blocks});
    }
    if (!range.ends)
      return;
    std::int64_t before = 0;
    for (std::uint32_t q = 0; q < job.products.size; ++q) {
      unpack(job.products.data[q], before);
      before += in_vectors<T>(job.products.data[q].width);
    }
    for (std::int64_t j = 0; job.sums != nullptr && j < height; ++j)
      put(static_cast<T *>(job.sums) + row + j, sums[j], job.add_sums);
  }
};

inline Scratch outer_scratch(const OuterJob &job, const Portion &mine) {
  const Scratch a = OuterTiles<float>(job, mine).scratch();
  const Scratch b = OuterTiles<double>(job, mine).scratch();
  return {a.packed > b.packed ? a.packed : b.packed, a.sums > b.sums ? a.sums : b.sums};
}

template <class T>
void outer(const OuterJob &job, const Stretch &range, const Portion &mine, void *packed,
           void *kept) {
  FlushDenormals guard;
  OuterTiles<T> tiles(job, mine);
  tiles.lie_at(packed, kept);
  tiles.run(range);
}
