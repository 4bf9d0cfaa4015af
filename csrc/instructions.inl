// The elementwise instructions of a Program, on vectors. Included by loop.inl, in the namespace of
// one instruction set.

// One instruction on n vectors of a block.
template <class T>
HEADGATE_INLINE void execute(const Instruction &in, T *out, const T *a, const T *b, const T *c,
                             int n) {
  constexpr int L = kLanes<T>;
  const Vec<T> zero{}, one = all(T(1));
#define HEADGATE_EACH(expression)                                                                  \
  for (int k = 0; k < n; ++k) {                                                                    \
    const Vec<T> x = load(a + k * L);                                                              \
    store(out + k * L, Vec<T>(expression));                                                        \
  }                                                                                                \
  break
#define HEADGATE_PAIR(expression)                                                                  \
  for (int k = 0; k < n; ++k) {                                                                    \
    const Vec<T> x = load(a + k * L), y = load(b + k * L);                                         \
    store(out + k * L, Vec<T>(expression));                                                        \
  }                                                                                                \
  break
  switch (in.op) {
  case Op::add:
    HEADGATE_PAIR(x + y);
  case Op::sub:
    HEADGATE_PAIR(x - y);
  case Op::mul:
    HEADGATE_PAIR(x * y);
  case Op::div:
    HEADGATE_PAIR(x / y);
  case Op::neg:
    HEADGATE_EACH(-x);
  case Op::sigmoid:
    HEADGATE_EACH(sigmoid<T>(x));
  case Op::tanh:
    HEADGATE_EACH(tangent<T>(x));
  case Op::relu:
    HEADGATE_EACH(select<T>(x < zero, zero, x));
  case Op::exp:
    HEADGATE_EACH(exponential<T>(x));
  case Op::log:
    HEADGATE_EACH(logarithm<T>(x));
  case Op::log_sigmoid:
    HEADGATE_EACH(log_sigmoid<T>(x));
  case Op::sqrt:
    HEADGATE_EACH(square_root<T>(x));
  case Op::rsqrt:
    HEADGATE_EACH(one / square_root<T>(x));
  case Op::abs:
    HEADGATE_EACH(absolute<T>(x));
  case Op::maximum:
    HEADGATE_PAIR(select<T>((x > y) | (x != x), x, y));
  case Op::minimum:
    HEADGATE_PAIR(select<T>((x < y) | (x != x), x, y));
  case Op::greater:
    HEADGATE_PAIR(select<T>(x > y, one, zero));
  case Op::greater_equal:
    HEADGATE_PAIR(select<T>(x >= y, one, zero));
  case Op::less:
    HEADGATE_PAIR(select<T>(x < y, one, zero));
  case Op::less_equal:
    HEADGATE_PAIR(select<T>(x <= y, one, zero));
  case Op::equal:
    HEADGATE_PAIR(select<T>(x == y, one, zero));
  case Op::copy:
    HEADGATE_EACH(x);
  case Op::clip: {
    const Vec<T> low = all(T(in.low)), high = all(T(in.high));
    for (int k = 0; k < n; ++k) {
      const Vec<T> x = load(a + k * L), y = select<T>(x < low, low, x);
      store(out + k * L, select<T>(y > high, high, y));
    }
    break;
  }
  case Op::where:
    for (int k = 0; k < n; ++k) {
      const Vec<T> x = load(a + k * L);
      store(out + k * L, select<T>(x != zero, load(b + k * L), load(c + k * L)));
    }
    break;
  case Op::standard:
    for (int k = 0; k < n; ++k)
      store(out + k * L, Vec<T>((load(a + k * L) - load(b + k * L)) * load(c + k * L)));
    break;
  case Op::muladd:
    for (int k = 0; k < n; ++k)
      store(out + k * L, Vec<T>(load(a + k * L) * load(b + k * L) + load(c + k * L)));
    break;
  case Op::submul:
    for (int k = 0; k < n; ++k)
      store(out + k * L, Vec<T>(load(c + k * L) - load(a + k * L) * load(b + k * L)));
    break;
  case Op::sigmoid_slope:
    HEADGATE_PAIR(x * (y * (one - y)));
  case Op::tanh_slope:
    HEADGATE_PAIR(x * (one - y * y));
  case Op::expand: // by the caller, who knows the rows
    break;
  }
#undef HEADGATE_EACH
#undef HEADGATE_PAIR
}

// The sum of a vector's lanes, by halves.
template <class T> HEADGATE_INLINE T total(Vec<T> v) {
  alignas(64) T lanes[kLanes<T>];
  store(lanes, v);
#pragma GCC unroll 4
  for (int half = kLanes<T> / 2; half > 0; half /= 2) {
    for (int k = 0; k < half; ++k)
      lanes[k] += lanes[k + half];
  }
  return lanes[0];
}
