// Products over all steps at once: here the input's gradient. Included after loop.inl.

namespace headgate::HEADGATE_ISA {

template <class T> HEADGATE_INLINE const T *row_at(const Rows &m, std::int64_t k) {
  return static_cast<const T *>(m.base) + (m.at == nullptr ? k : m.at[k]) * m.stride;
}

template <class T> HEADGATE_INLINE void put(T *to, T value, bool add) {
  *to = add ? *to + value : value;
}

#include "outer.inl"

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
