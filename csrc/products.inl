// Products over all steps at once. Included after loop.inl.

namespace headgate::HEADGATE_ISA {

constexpr std::int64_t kDepthBlock = 256; // rows of a and b that stay in cache

// c[r][v] += a[k][r] * b[k][v] over rows k.
template <class T, int R, int V>
void outer_tile(const T *a, std::int64_t a_stride, const T *b, std::int64_t b_stride,
                const std::int64_t *rows, std::int64_t first, std::int64_t last, T *c,
                std::int64_t c_stride) {
  constexpr int L = kLanes<T>;
  Vec<T> sum[R][V];
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v)
      sum[r][v] = load(c + r * c_stride + v * L);
  }
  for (std::int64_t k = first; k < last; ++k) {
    const std::int64_t row = rows == nullptr ? k : rows[k];
    const T *s = a + row * a_stride, *w = b + row * b_stride;
    Vec<T> x[V];
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v)
      x[v] = load(w + v * L);
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v)
        sum[r][v] += x[v] * s[r];
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v)
      store(c + r * c_stride + v * L, sum[r][v]);
  }
}

template <class T>
using OuterTile = void (*)(const T *, std::int64_t, const T *, std::int64_t, const std::int64_t *,
                           std::int64_t, std::int64_t, T *, std::int64_t);

template <class T, int V>
constexpr OuterTile<T> kOuter[kMaxRows] = {
    outer_tile<T, 1, V>, outer_tile<T, 2, V>, outer_tile<T, 3, V>, outer_tile<T, 4, V>,
    outer_tile<T, 5, V>, outer_tile<T, 6, V>, outer_tile<T, 7, V>, outer_tile<T, 8, V>};

template <class T> HEADGATE_INLINE OuterTile<T> outer_for(int rows, int vectors) {
  if constexpr (kMaxVectors == 4) {
    if (vectors == 4)
      return kOuter<T, 4>[rows - 1];
    if (vectors == 3)
      return kOuter<T, 3>[rows - 1];
  }
  return vectors == 2 ? kOuter<T, 2>[rows - 1] : kOuter<T, 1>[rows - 1];
}

// Columns past the last whole vector. A vector may be loaded over the end of a row of b, whose last
// lanes then count for nothing, as long as it ends inside b.
template <class T>
void outer_tail(const Matrices &m, std::int64_t j, int rows, std::int64_t i, std::int64_t first,
                std::int64_t last) {
  constexpr int L = kLanes<T>;
  const std::int64_t valid = m.width - i;
  const T *b = static_cast<const T *>(m.b) + i, *a = static_cast<const T *>(m.a) + j;
  T *c = static_cast<T *>(m.c) + j * m.c_stride + i;
  T sums[kMaxRows * L];
  for (int r = 0; r < rows; ++r) {
    for (std::int64_t u = 0; u < L; ++u)
      sums[r * L + u] = u < valid ? c[r * m.c_stride + u] : T(0);
  }
  const auto row_of = [&](std::int64_t k) { return m.rows == nullptr ? k : m.rows[k]; };
  std::int64_t inside = last;
  while (inside > first && (m.total - 1 - row_of(inside - 1)) * m.b_stride + valid < L)
    --inside;
  outer_for<T>(rows, 1)(a, m.a_stride, b, m.b_stride, m.rows, first, inside, sums, L);
  for (std::int64_t k = inside; k < last; ++k) {
    const T *s = a + row_of(k) * m.a_stride, *w = b + row_of(k) * m.b_stride;
    T padded[L];
    for (std::int64_t u = 0; u < L; ++u)
      padded[u] = u < valid ? w[u] : T(0);
    outer_for<T>(rows, 1)(s, 0, padded, 0, nullptr, 0, 1, sums, L);
  }
  for (int r = 0; r < rows; ++r) {
    for (std::int64_t u = 0; u < valid; ++u)
      c[r * m.c_stride + u] = sums[r * L + u];
  }
}

template <class T>
void outer_block(const Matrices &m, std::int64_t j0, std::int64_t j1, std::int64_t i0,
                 std::int64_t i1, std::int64_t first, std::int64_t last) {
  constexpr int L = kLanes<T>;
  constexpr int kRows = 6;
  const T *a = static_cast<const T *>(m.a), *b = static_cast<const T *>(m.b);
  T *c = static_cast<T *>(m.c);
  for (std::int64_t j = j0; j < j1; j += kRows) {
    const int rows = static_cast<int>(j1 - j < kRows ? j1 - j : kRows);
    std::int64_t i = i0;
    while (i + L <= i1) {
      std::int64_t vectors = (i1 - i) / L;
      if (vectors > kMaxVectors)
        vectors = kMaxVectors;
      outer_for<T>(rows, static_cast<int>(vectors))(a + j, m.a_stride, b + i, m.b_stride, m.rows,
                                                    first, last, c + j * m.c_stride + i,
                                                    m.c_stride);
      i += vectors * L;
    }
    if (i < i1)
      outer_tail<T>(m, j, rows, i, first, last);
  }
}

// Threads share the longer side of c, so that each element is one thread's sum in order of k.
template <class T> void outer(const Matrices &m, int part, int parts) {
  FlushDenormals guard;
  constexpr std::int64_t kUnits = std::int64_t(kMaxVectors) * kLanes<T>;
  std::int64_t j0 = 0, j1 = m.height, i0 = 0, i1 = m.width;
  if (m.height >= m.width) {
    const std::int64_t tiles = (m.height + 5) / 6;
    j0 = tiles * part / parts * 6;
    j1 = tiles * (part + 1) / parts * 6;
    if (j1 > m.height)
      j1 = m.height;
  } else {
    const std::int64_t tiles = (m.width + kUnits - 1) / kUnits;
    i0 = tiles * part / parts * kUnits;
    i1 = tiles * (part + 1) / parts * kUnits;
    if (i1 > m.width)
      i1 = m.width;
  }
  for (std::int64_t first = 0; first < m.count; first += kDepthBlock) {
    const std::int64_t last = first + kDepthBlock < m.count ? first + kDepthBlock : m.count;
    outer_block<T>(m, j0, j1, i0, i1, first, last);
  }
}

template <class T> void packed(const Matrices &m, int part, int parts) {
  FlushDenormals guard;
  constexpr int L = kLanes<T>;
  const int vectors = static_cast<int>(m.vectors), most = vectors == kMaxVectors ? 6 : 8;
  const std::int64_t block = std::int64_t(vectors) * L;
  std::int64_t together = 65536 / (m.height + 1); // rows of a that stay in cache
  if (together < 24)
    together = 24;
  const T *a = static_cast<const T *>(m.a);
  T sums[kMaxRows * 4 * L];
  const std::int64_t from = m.count * part / parts, to = m.count * (part + 1) / parts;
  for (std::int64_t m0 = from; m0 < to; m0 += together) {
    const std::int64_t m1 = m0 + together < to ? m0 + together : to;
    for (std::int64_t i = 0; i < m.width; i += block) {
      const std::int64_t valid = m.width - i < block ? m.width - i : block;
      const T *weights = static_cast<const T *>(m.b) + i * m.height;
      for (std::int64_t at = m0; at < m1; at += most) {
        const int rows = static_cast<int>(m1 - at < most ? m1 - at : most);
        const T *operand[kMaxRows];
        T *to_row[kMaxRows], *out[kMaxVectors];
        for (int r = 0; r < rows; ++r) {
          const std::int64_t row = m.rows == nullptr ? at + r : m.rows[at + r];
          operand[r] = a + row * m.a_stride;
          to_row[r] = static_cast<T *>(m.c) + row * m.c_stride + i;
          for (std::int64_t u = 0; u < block; ++u)
            sums[r * block + u] = u < valid ? to_row[r][u] : T(0);
        }
        for (int v = 0; v < vectors; ++v)
          out[v] = sums + v * L;
        multiply_for<T>(rows, vectors)(out, block, operand, m.height, weights, block);
        for (int r = 0; r < rows; ++r) {
          for (std::int64_t u = 0; u < valid; ++u)
            to_row[r][u] = sums[r * block + u];
        }
      }
    }
  }
}

} // namespace headgate::HEADGATE_ISA
