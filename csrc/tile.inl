// The one matrix product of the engine: a tile of rows and units that stays in registers.
// Included by loop.inl, in the namespace of one instruction set.

constexpr int kMaxVectors = kBytes == 64 ? 4 : 2;
constexpr int kMaxRows = 8;
constexpr int kWidest = 8; // vectors of several panels that a single row takes at once

constexpr int together(int vectors) { return kWidest / vectors; } // panels

// out[v][r] = start[v][r] + Σ over segments Σ_k rows[r][k] * weights[k][v], in that order.
template <class T> struct Tile {
  struct Part {
    const T *rows[kMaxRows];
    const T *weights; // of the first panel
    std::int64_t depth;
    std::int64_t stride; // of the weights, from k to k + 1
    std::int64_t panel;  // from panel to panel
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
    for (std::int64_t k = 0; k < depth; ++k) {
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

template <class T, int V>
constexpr Multiply<T> kMultiply[kMaxRows] = {
    multiply<T, 1, V, 1>, multiply<T, 2, V, 1>, multiply<T, 3, V, 1>, multiply<T, 4, V, 1>,
    multiply<T, 5, V, 1>, multiply<T, 6, V, 1>, multiply<T, 7, V, 1>, multiply<T, 8, V, 1>};

template <class T> HEADGATE_INLINE Multiply<T> multiply_for(int rows, int vectors) {
  if constexpr (kMaxVectors == 4) {
    if (vectors == 4)
      return kMultiply<T, 4>[rows - 1];
    if (vectors == 3)
      return kMultiply<T, 3>[rows - 1];
  }
  return vectors == 2 ? kMultiply<T, 2>[rows - 1] : kMultiply<T, 1>[rows - 1];
}

// One row, several panels: sums of one panel alone would wait for each other.
template <class T> HEADGATE_INLINE Multiply<T> multiply_together(int vectors) {
  if constexpr (kMaxVectors == 4) {
    if (vectors == 4)
      return multiply<T, 1, 4, together(4)>;
    if (vectors == 3)
      return multiply<T, 1, 3, together(3)>;
  }
  return vectors == 2 ? multiply<T, 1, 2, together(2)> : multiply<T, 1, 1, together(1)>;
}
