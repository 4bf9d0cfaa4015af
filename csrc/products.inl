// Products over all steps at once, after the loop. Included after loop.inl.

namespace headgate::HEADGATE_ISA {

constexpr std::int64_t kDepthBlock = 128; // rows of a and b that are taken together, about
constexpr std::int64_t kDeepest = kDepthBlock * 3 / 2;
constexpr int kOuterRows = 6;        // of c's tile
constexpr int kTilesTogether = 8;    // that are packed in one pass over the rows
constexpr std::int64_t kBeyond = 64; // room for what is written past packed tiles
template <class T> constexpr std::int64_t kOuterUnits = std::int64_t(kMaxVectors) * kLanes<T>;

template <class T> HEADGATE_INLINE const T *row_at(const Rows &m, std::int64_t k) {
  return static_cast<const T *>(m.base) + (m.at == nullptr ? k : m.at[k]) * m.stride;
}

// to[r][v] = from[r][v] + Σ_k a[k][r] · b[k][v]: a (depth, 6) and b (depth, V) compact. What lies
// `next` behind `from` is wanted by the next tile.
template <class T, int V>
void outer_tile(const T *a, const T *b, std::int64_t depth, const T *from, std::int64_t from_stride,
                T *to, std::int64_t to_stride, std::int64_t next) {
  constexpr int L = kLanes<T>, R = kOuterRows;
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
    a += R;
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
using OuterTile = void (*)(const T *, const T *, std::int64_t, const T *, std::int64_t, T *,
                           std::int64_t, std::int64_t);

template <class T> HEADGATE_INLINE OuterTile<T> outer_for(std::int64_t vectors) {
  if constexpr (kMaxVectors == 4) {
    if (vectors == 4)
      return outer_tile<T, 4>;
    if (vectors == 3)
      return outer_tile<T, 3>;
  }
  return vectors == 2 ? outer_tile<T, 2> : outer_tile<T, 1>;
}

template <class T> HEADGATE_INLINE void put(T *to, T value, bool add) {
  *to = add ? *to + value : value;
}

inline std::int64_t vectors_over(std::int64_t width, int lanes) {
  return (width + lanes - 1) / lanes;
}

// Threads share c's rows, in whole tiles.
inline void outer_range(const OuterJob &job, const Portion &mine, std::int64_t &from,
                        std::int64_t &to) {
  const std::int64_t tiles = (job.height + kOuterRows - 1) / kOuterRows;
  from = mine.first(tiles);
  to = mine.last(tiles);
}

template <class T> std::int64_t outer_columns(const OuterJob &job) {
  std::int64_t all = 0;
  for (std::uint32_t p = 0; p < job.products.size; ++p)
    all += vectors_over(job.products.data[p].width, kLanes<T>) * kLanes<T>;
  return all;
}

template <class T> Scratch scratch_of(const OuterJob &job, const Portion &mine) {
  std::int64_t from, to;
  outer_range(job, mine, from, to);
  const std::int64_t tiles = to - from;
  const std::int64_t columns = outer_columns<T>(job);
  return {std::size_t((tiles * kOuterRows + columns) * kDeepest + kBeyond) * sizeof(T),
          std::size_t(tiles * kOuterRows * (columns + 1)) * sizeof(T)};
}

inline Scratch outer_scratch(const OuterJob &job, const Portion &mine) {
  const Scratch a = scratch_of<float>(job, mine), b = scratch_of<double>(job, mine);
  return {a.packed > b.packed ? a.packed : b.packed, a.sums > b.sums ? a.sums : b.sums};
}

// Tiles from column j on, read eight columns at a time: two too many, which the next row writes
// over.
template <class T, int N>
void pack_whole(const Rows &a, std::int64_t j, std::int64_t first, std::int64_t depth, T *out,
                T *sums) {
  typedef T Eight __attribute__((vector_size(8 * sizeof(T)), aligned(sizeof(T)), may_alias));
  Eight sum[N] = {};
  for (std::int64_t k = 0; k < depth; ++k) {
    const T *row = row_at<T>(a, first + k) + j;
#pragma GCC unroll 8
    for (int n = 0; n < N; ++n) {
      const Eight numbers = *reinterpret_cast<const Eight *>(row + n * kOuterRows);
      *reinterpret_cast<Eight *>(out + (n * depth + k) * kOuterRows) = numbers;
      sum[n] += numbers;
    }
  }
  for (int n = 0; n < N; ++n) {
    for (int r = 0; r < kOuterRows; ++r)
      sums[n * kOuterRows + r] += sum[n][r];
    for (int r = 0; n > 0 && depth > 0 && r < 2; ++r) // the tile before wrote over these
      out[n * depth * kOuterRows + r] = row_at<T>(a, first)[j + n * kOuterRows + r];
  }
}

// A tile that reaches over the end of a matrix, or past a's height.
template <class T>
void pack_edge(const OuterJob &job, std::int64_t t, std::int64_t first, std::int64_t depth, T *out,
               T *sums) {
  for (int r = 0; r < kOuterRows; ++r) {
    std::int64_t j = t * kOuterRows + r;
    const bool valid = j < job.height;
    const Columns *at = job.a.data;
    for (; valid && j >= at->width; ++at)
      j -= at->width;
    T sum{};
    for (std::int64_t k = 0; k < depth; ++k) {
      const T number = valid ? row_at<T>(at->rows, first + k)[j] : T(0);
      out[k * kOuterRows + r] = number;
      sum += number;
    }
    sums[r] += sum;
  }
}

// Columns of tiles t0 … t1 of rows first … last of a, as (tile, k, 6), zeros past its height.
template <class T>
void pack_tiles(const OuterJob &job, std::int64_t t0, std::int64_t t1, std::int64_t first,
                std::int64_t last, T *out, T *sums) {
  const std::int64_t depth = last - first;
  for (std::int64_t t = t0; t < t1;) {
    std::int64_t j = t * kOuterRows;
    const Columns *at = job.a.data;
    while (j >= at->width) {
      j -= at->width;
      ++at;
    }
    std::int64_t whole = (at->width - j - 8) / kOuterRows + 1; // tiles that end in this matrix
    if (at->width - j < 8)
      whole = 0;
    else if (whole > t1 - t)
      whole = t1 - t;
    std::int64_t n = 1;
    if (whole >= kTilesTogether) {
      pack_whole<T, kTilesTogether>(at->rows, j, first, depth, out, sums);
      n = kTilesTogether;
    } else if (whole > 0) {
      pack_whole<T, 1>(at->rows, j, first, depth, out, sums);
    } else {
      pack_edge<T>(job, t, first, depth, out, sums);
    }
    t += n;
    out += n * depth * kOuterRows;
    sums += n * kOuterRows;
  }
}

// Rows first … last of b in tiles (i tile, k, units), zeros past its width.
template <class T>
void pack_columns(const Outer &p, std::int64_t first, std::int64_t last, T *out) {
  constexpr int L = kLanes<T>;
  const std::int64_t all = vectors_over(p.width, L);
  for (std::int64_t v0 = 0; v0 < all; v0 += kMaxVectors) {
    const std::int64_t vectors = all - v0 < kMaxVectors ? all - v0 : kMaxVectors;
    const std::int64_t i = v0 * L, units = vectors * L;
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
  }
}

// Whether rows of b lie as packing would lay them.
template <class T> bool lies_packed(const Outer &p) {
  const std::int64_t units = vectors_over(p.width, kLanes<T>) * kLanes<T>;
  return p.b.at == nullptr && p.b.stride == p.width && p.width == units &&
         units <= kMaxVectors * kLanes<T>;
}

// Whether a tile's sums go straight to where c lies.
inline bool straight(const OuterJob &job, const Outer &p, std::int64_t t, std::int64_t i,
                     std::int64_t units) {
  return !p.add && (t + 1) * kOuterRows <= job.height && i + units <= p.width;
}

// From tiles (j tile, i tile, row, unit) to where c lies, for those that did not go straight there.
template <class T>
void unpack(const OuterJob &job, const Outer &p, std::int64_t t0, std::int64_t t1, const T *tiles,
            std::int64_t between) {
  constexpr int L = kLanes<T>;
  const std::int64_t all = vectors_over(p.width, L);
  for (std::int64_t t = t0; t < t1; ++t, tiles += between) {
    for (std::int64_t v0 = 0; v0 < all; v0 += kMaxVectors) {
      const std::int64_t units = (all - v0 < kMaxVectors ? all - v0 : kMaxVectors) * L;
      const std::int64_t i = v0 * L, valid = p.width - i < units ? p.width - i : units;
      if (straight(job, p, t, i, units))
        continue;
      for (int r = 0; r < kOuterRows && t * kOuterRows + r < job.height; ++r) {
        const T *from = tiles + kOuterRows * i + r * units;
        T *c = static_cast<T *>(p.c) + (t * kOuterRows + r) * p.c_stride + i;
        for (std::int64_t u = 0; u < valid; ++u)
          put(c + u, from[u], p.add);
      }
    }
  }
}

// A few rows of a and b to the sums so far: `packed` is (a's tiles, b's columns).
template <class T>
void outer_block(const OuterJob &job, const Stretch &rows, std::int64_t t0, std::int64_t t1,
                 std::int64_t between, T *packed, T *c, T *sums) {
  constexpr int L = kLanes<T>;
  static const T zeros[kMaxVectors * L] = {};
  const std::int64_t tiles = t1 - t0, depth = rows.to - rows.from;
  const bool far = tiles * between * std::int64_t(sizeof(T)) > stays_near();
  const std::int64_t next = far && !rows.begins ? between : 0;
  T *a = packed, *b = a + tiles * kOuterRows * depth + kBeyond;
  pack_tiles<T>(job, t0, t1, rows.from, rows.to, a, sums);
  std::int64_t before = 0; // columns of products done
  for (std::uint32_t q = 0; q < job.products.size; ++q) {
    const Outer &p = job.products.data[q];
    const std::int64_t all = vectors_over(p.width, L);
    const T *columns = row_at<T>(p.b, rows.from);
    if (!lies_packed<T>(p)) {
      pack_columns<T>(p, rows.from, rows.to, b);
      columns = b;
    }
    for (std::int64_t v0 = 0; v0 < all; v0 += kMaxVectors) {
      const std::int64_t vectors = all - v0 < kMaxVectors ? all - v0 : kMaxVectors;
      const std::int64_t i = v0 * L, units = vectors * L;
      for (std::int64_t t = 0; t < tiles; ++t) {
        T *kept = c + t * between + kOuterRows * (before + i), *to = kept;
        std::int64_t stride = units;
        if (rows.ends && straight(job, p, t0 + t, i, units)) {
          to = static_cast<T *>(p.c) + (t0 + t) * kOuterRows * p.c_stride + i;
          stride = p.c_stride;
        }
        outer_for<T>(vectors)(a + t * depth * kOuterRows, columns + i * depth, depth,
                              rows.begins ? zeros : kept, rows.begins ? 0 : units, to, stride,
                              next);
      }
    }
    before += all * L;
  }
}

template <class T>
void outer(const OuterJob &job, const Stretch &rows, const Portion &mine, void *packed,
           void *kept) {
  FlushDenormals guard;
  std::int64_t t0, t1;
  outer_range(job, mine, t0, t1);
  const std::int64_t tiles = t1 - t0, between = kOuterRows * outer_columns<T>(job);
  T *c = static_cast<T *>(kept), *sums = c + tiles * between;
  for (T *at = sums; rows.begins && at < sums + tiles * kOuterRows; ++at)
    *at = T(0);
  const std::int64_t count = rows.to - rows.from;
  if (count == 0 && !rows.begins && !rows.ends)
    return;
  std::int64_t blocks = (count + kDepthBlock / 2) / kDepthBlock;
  if (blocks == 0) // without rows c is zero
    blocks = 1;
  for (std::int64_t k = 0; k < blocks; ++k) {
    const Stretch here{rows.from + count * k / blocks, rows.from + count * (k + 1) / blocks,
                       rows.begins && k == 0, rows.ends && k + 1 == blocks};
    outer_block<T>(job, here, t0, t1, between, static_cast<T *>(packed), c, sums);
  }
  if (!rows.ends)
    return;
  for (std::uint32_t q = 0; q < job.products.size; ++q) {
    const Outer &p = job.products.data[q];
    unpack<T>(job, p, t0, t1, c, between);
    c += kOuterRows * vectors_over(p.width, kLanes<T>) * kLanes<T>;
  }
  if (job.sums != nullptr) {
    for (std::int64_t j = t0 * kOuterRows; j < t1 * kOuterRows && j < job.height; ++j)
      put(static_cast<T *>(job.sums) + j, sums[j - t0 * kOuterRows], job.add_sums);
  }
}

template <class T>
void through(const ThroughJob &job, const Stretch &rows_of, const Portion &mine) {
  FlushDenormals guard;
  constexpr int L = kLanes<T>;
  static const T zeros[kMaxVectors * L] = {};
  const int vectors = static_cast<int>(job.vectors), most = tile_rows(vectors);
  const std::int64_t block = std::int64_t(vectors) * L;
  std::int64_t depth = 1;
  for (std::uint32_t s = 0; s < job.segments.size; ++s)
    depth += job.segments.data[s].depth;
  const std::int64_t count = rows_of.to - rows_of.from;
  std::int64_t together = count; // rows, where the weights of a block stay near
  if (depth * block * std::int64_t(sizeof(T)) > stays_near() * 3 / 2) {
    together = 65536 / depth;                           // that stay near themselves
    together = together < 24 ? 24 : together / 24 * 24; // in whole tiles
  }
  T sums[kMaxRows * kMaxVectors * L];
  const std::int64_t from = rows_of.from + mine.first(count);
  const std::int64_t to = rows_of.from + mine.last(count);
  for (std::int64_t m0 = from; m0 < to; m0 += together) {
    const std::int64_t m1 = m0 + together < to ? m0 + together : to;
    for (std::int64_t i = 0; i < job.width; i += block) {
      const std::int64_t valid = job.width - i < block ? job.width - i : block;
      for (std::int64_t at = m0; at < m1; at += most) {
        const int rows = static_cast<int>(m1 - at < most ? m1 - at : most);
        Tile<T> tile;
        tile.segments = static_cast<int>(job.segments.size);
        for (int s = 0; s < tile.segments; ++s) {
          const Through &given = job.segments.data[s];
          for (int r = 0; r < rows; ++r)
            tile.parts[s].rows[r] = row_at<T>(given.a, at + r);
          tile.parts[s].weights = static_cast<const T *>(given.weights) + i * given.depth;
          tile.parts[s].depth = given.depth;
          tile.parts[s].stride = block;
          tile.parts[s].panel = 0;
          tile.parts[s].ahead = tile.parts[s].weights;
          tile.parts[s].ahead_stride = 0;
        }
        tile.out_stride = block;
        for (int v = 0; v < vectors; ++v) {
          tile.out[v] = sums + v * L;
          tile.start[v] = zeros;
          tile.start_stride[v] = 0;
        }
        multiply_for<T>(rows, vectors, 1)(tile);
        for (int r = 0; r < rows; ++r) {
          T *c = const_cast<T *>(row_at<T>(job.c, at + r)) + i;
          const T *sum = sums + r * block;
          if (valid == block && !job.add) {
            for (int v = 0; v < vectors; ++v)
              store(c + v * L, load(sum + v * L));
          } else {
            for (std::int64_t u = 0; u < valid; ++u)
              put(c + u, sum[u], job.add);
          }
        }
      }
    }
  }
}

} // namespace headgate::HEADGATE_ISA
