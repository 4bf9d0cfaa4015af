// The one matrix product of the engine: a tile of rows and units that stays in registers.
// Included by loop.inl, in the namespace of one instruction set.

#if defined(__AVX512F__) || defined(__aarch64__)
constexpr int kMaxVectors = 4; // of 32 registers
#else
constexpr int kMaxVectors = 2; // of 16
#endif
constexpr int kMaxRows = 8;
constexpr int kWidest = 8; // vectors of a single row: fewer sums would wait for each other

// Bytes that stay in a core's second-level cache beside what else passes through it.
inline std::int64_t stays_near() { return second_level_cache / 2; }

// Rows that fill the registers together with so many vectors.
constexpr int tile_rows(int vectors) { return vectors < kMaxVectors ? 8 : 6; }

// out[v][r] = start[v][r] + Σ over segments Σ_k rows[r][k] * weights[k][v], in that order.
template <class T> struct Tile {
  struct Part {
    const T *rows[kMaxRows];
    const T *weights; // of the first panel
    std::int64_t depth;
    std::int64_t stride; // of the weights, from k to k + 1
    std::int64_t panel;  // from panel to panel
    const T *ahead;      // weights wanted later: a line is fetched with each k
    std::int64_t ahead_stride;
  };
  T *out[kWidest];
  const T *start[kWidest];
  std::int64_t start_stride[kWidest], out_stride;
  Part parts[kMaxSegments];
  int segments;
};

template <class T, int R, int V, int G> void multiply(const Tile<T> &tile) {
  constexpr int L = kLanes<T>;
  Vec<T> c[R][G * V];
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 8
    for (int v = 0; v < G * V; ++v)
      c[r][v] = load(tile.start[v] + r * tile.start_stride[v]);
  }
  for (int s = 0; s < tile.segments; ++s) {
    const auto &part = tile.parts[s];
    const T *rows[R], *b[G];
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r)
      rows[r] = part.rows[r];
#pragma GCC unroll 8
    for (int g = 0; g < G; ++g)
      b[g] = part.weights + g * part.panel;
    const std::int64_t depth = part.depth, stride = part.stride;
    const T *ahead = part.ahead;
    for (std::int64_t k = 0; k < depth; ++k) {
      if constexpr (R > 1 && G * V > 1) { // else loads alone fill the time
        __builtin_prefetch(ahead, 0, 2);
        ahead += part.ahead_stride;
      }
      Vec<T> w[G * V];
#pragma GCC unroll 8
      for (int v = 0; v < G * V; ++v)
        w[v] = load(b[v / V] + v % V * L);
#pragma GCC unroll 8
      for (int g = 0; g < G; ++g)
        b[g] += stride;
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) {
        const T s = rows[r][k];
#pragma GCC unroll 8
        for (int v = 0; v < G * V; ++v)
          c[r][v] += w[v] * s;
      }
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 8
    for (int v = 0; v < G * V; ++v)
      store(tile.out[v] + r * tile.out_stride, c[r][v]);
  }
}

template <class T> using Multiply = void (*)(const Tile<T> &);

template <class T, int R, int V, int G> constexpr Multiply<T> multiply_if_it_fits() {
  if constexpr (V * G <= (R == 1 ? kWidest : kMaxVectors) && (R == 1 || R <= tile_rows(V * G)))
    return multiply<T, R, V, G>;
  else
    return nullptr;
}

template <class T, int V, int G>
constexpr Multiply<T> kMultiply[kMaxRows] = {
    multiply_if_it_fits<T, 1, V, G>(), multiply_if_it_fits<T, 2, V, G>(),
    multiply_if_it_fits<T, 3, V, G>(), multiply_if_it_fits<T, 4, V, G>(),
    multiply_if_it_fits<T, 5, V, G>(), multiply_if_it_fits<T, 6, V, G>(),
    multiply_if_it_fits<T, 7, V, G>(), multiply_if_it_fits<T, 8, V, G>()};

template <class T, int V>
constexpr const Multiply<T> *kPanels[kWidest] = {
    kMultiply<T, V, 1>, kMultiply<T, V, 2>, kMultiply<T, V, 3>, kMultiply<T, V, 4>,
    kMultiply<T, V, 5>, kMultiply<T, V, 6>, kMultiply<T, V, 7>, kMultiply<T, V, 8>};

// For so many rows, vectors of a panel and panels; vectors × panels are at most kMaxVectors, or
// kWidest for a single row.
template <class T> HEADGATE_INLINE Multiply<T> multiply_for(int rows, int vectors, int panels) {
  constexpr const Multiply<T> *const *widths[] = {kPanels<T, 1>, kPanels<T, 2>, kPanels<T, 3>,
                                                  kPanels<T, 4>};
  return widths[vectors - 1][panels - 1][rows - 1];
}
