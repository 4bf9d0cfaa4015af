// A vector of floating-point lanes as wide as the instruction set, and its elementary functions.
//
// Included once for each instruction set, inside a namespace of its own (HEADGATE_ISA), so that the
// linker never mixes two builds of one function. Rests on the vector extensions of GCC and Clang.
//
// Error bounds in units of the last place, tested against exact values: exp 2, sigmoid 3, tanh 6 in
// float and 2 in double, log 1, log_sigmoid 3; square roots are correctly rounded. Results below
// the smallest normal number are zero, and denormal arguments count as zero.

#include <cstdint>
#include <type_traits>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace headgate::HEADGATE_ISA {

#if defined(__AVX512F__)
constexpr int kBytes = 64;
#elif defined(__AVX2__)
constexpr int kBytes = 32;
#else
constexpr int kBytes = 16;
#endif

template <class T> struct Types;
template <> struct Types<float> {
  typedef float Vec __attribute__((vector_size(kBytes)));
  typedef float Loose __attribute__((vector_size(kBytes), aligned(4), may_alias));
  typedef std::int32_t Int __attribute__((vector_size(kBytes)));
  typedef std::uint32_t Bits __attribute__((vector_size(kBytes)));
};
template <> struct Types<double> {
  typedef double Vec __attribute__((vector_size(kBytes)));
  typedef double Loose __attribute__((vector_size(kBytes), aligned(8), may_alias));
  typedef std::int64_t Int __attribute__((vector_size(kBytes)));
  typedef std::uint64_t Bits __attribute__((vector_size(kBytes)));
};

template <class T> using Vec = typename Types<T>::Vec;
template <class T> using Int = typename Types<T>::Int;
template <class T> constexpr int kLanes = kBytes / static_cast<int>(sizeof(T));

#define HEADGATE_INLINE inline __attribute__((always_inline))
#define HEADGATE_APART __attribute__((noinline)) // a loop that needs the registers for itself

template <class T> HEADGATE_INLINE Vec<T> load(const T *p) {
  return *reinterpret_cast<const typename Types<T>::Loose *>(p);
}
template <class T> HEADGATE_INLINE void store(T *p, Vec<T> v) {
  *reinterpret_cast<typename Types<T>::Loose *>(p) = v;
}
template <class T> HEADGATE_INLINE Vec<T> all(T s) { return s - Vec<T>{}; }

template <class T> HEADGATE_INLINE Vec<T> select(Int<T> c, Vec<T> a, Vec<T> b) { return c ? a : b; }

template <class T> HEADGATE_INLINE Vec<T> absolute(Vec<T> v) {
  constexpr auto kMask = sizeof(T) == 4 ? std::int64_t{0x7fffffff} : INT64_MAX;
  typedef typename Types<T>::Int I;
  const I mask =
      static_cast<std::conditional_t<sizeof(T) == 4, std::int32_t, std::int64_t>>(kMask) - I{};
  return (Vec<T>)((I)v & mask);
}

// The whole number nearest to a product, and two to the power of it, in the normal range. A large
// number added leaves the whole number in the lowest bits; those of a NaN may be any, and wrap.
template <class T> struct Whole {
  Vec<T> n, power;

  // Of the power the half, where `halved` is -1.
  HEADGATE_INLINE Whole(Vec<T> v, T factor, Int<T> halved) {
    typedef typename Types<T>::Bits Bits;
    constexpr int shift = sizeof(T) == 4 ? 23 : 52;
    const T large = sizeof(T) == 4 ? T(12582912.0) : T(6755399441055744.0);
    const Vec<T> sum = v * factor + large;
    n = sum - large;
    power = (Vec<T>)((((Bits)sum + (Bits)halved) << shift) + (Bits)all(T(1)));
  }
};

// v limited to [low, high]; NaN stays NaN.
template <class T> HEADGATE_INLINE Vec<T> bounded(Vec<T> v, T low, T high) {
#if defined(__AVX512F__)
  if constexpr (sizeof(T) == 4) {
    return (Vec<T>)_mm512_min_ps((__m512)all(high), _mm512_max_ps((__m512)all(low), (__m512)v));
  } else {
    return (Vec<T>)_mm512_min_pd((__m512d)all(high), _mm512_max_pd((__m512d)all(low), (__m512d)v));
  }
#elif defined(__AVX2__)
  if constexpr (sizeof(T) == 4) {
    return (Vec<T>)_mm256_min_ps((__m256)all(high), _mm256_max_ps((__m256)all(low), (__m256)v));
  } else {
    return (Vec<T>)_mm256_min_pd((__m256d)all(high), _mm256_max_pd((__m256d)all(low), (__m256d)v));
  }
#else
  const Vec<T> c = select<T>(v < low, all(low), v);
  return select<T>(c > high, all(high), c);
#endif
}

// exp, by x = n ln 2 + r and a polynomial (float) or rational function (double) of r; the
// coefficients are those of Moshier, "Methods and Programs for Mathematical Functions" (1989).
// Valid for low <= c <= high of Range, and NaN for NaN.
template <class T> struct Range;
template <> struct Range<float> {
  static constexpr float low = -87.336544f, high = 88.0f;
};
template <> struct Range<double> {
  static constexpr double low = -708.39641853226408, high = 709.0;
};

// exp(Sign · c), or the half of it where `halved` is -1.
template <class T, int Sign = 1>
HEADGATE_INLINE Vec<T> exponential_within(Vec<T> c, Int<T> halved = Int<T>{}) {
  const T log2_e = T(Sign * 1.4426950408889634074);
  const Whole<T> whole(c, log2_e, halved);
  const Vec<T> n = whole.n;
  if constexpr (sizeof(T) == 4) {
    const Vec<T> r = (T(Sign) * c - n * T(0.693359375)) + n * T(2.12194440e-4);
    Vec<T> p = r * T(1.9875691500e-4) + T(1.3981999507e-3);
    p = p * r + T(8.3334519073e-3);
    p = p * r + T(4.1665795894e-2);
    p = p * r + T(1.6666665459e-1);
    p = p * r + T(5.0000001201e-1);
    p = p * r + T(1);
    return (p * r + T(1)) * whole.power;
  } else {
    const Vec<T> r = (T(Sign) * c - n * T(6.93145751953125e-1)) - n * T(1.42860682030941723212e-6);
    const Vec<T> z = r * r;
    Vec<T> p = z * T(1.26177193074810590878e-4) + T(3.02994407707441961300e-2);
    p = (p * z + T(9.99999999999999999910e-1)) * r;
    Vec<T> q = z * T(3.00198505138664455042e-6) + T(2.52448340349684104192e-3);
    q = q * z + T(2.27265548208155028766e-1);
    q = q * z + T(2);
    return (T(2) * (p / (q - p)) + T(1)) * whole.power;
  }
}

// Over the whole line. Near the largest number the power would overflow, its half does not.
template <class T> HEADGATE_INLINE Vec<T> exponential(Vec<T> x) {
  const Int<T> large = x > T(1);
  const Vec<T> y =
      exponential_within<T>(bounded<T>(x, Range<T>::low, Range<T>::high + T(1)), large);
  return select<T>(x < Range<T>::low, all(T(0)), select<T>(large, y + y, y));
}

template <class T> HEADGATE_INLINE Vec<T> sigmoid(Vec<T> x) {
  const Vec<T> c = bounded<T>(x, -Range<T>::high, -Range<T>::low);
  return T(1) / (T(1) + exponential_within<T, -1>(c));
}

template <class T> HEADGATE_INLINE Vec<T> tangent(Vec<T> x);

// A rational function fitted to tanh(x) / x on [0, 9] for least relative error, 2e-8; at 9 tanh is
// 1 in float.
template <> HEADGATE_INLINE Vec<float> tangent<float>(Vec<float> x) {
  const Vec<float> c = bounded<float>(x, -9.0f, 9.0f), z = c * c;
  Vec<float> p = z * 1.343472187e-8f + 2.066812255e-5f;
  p = p * z + 3.499236873e-3f;
  p = p * z + 1.338411958e-1f;
  p = p * z + 9.999999823e-1f;
  Vec<float> q = z * 7.809686142e-7f + 3.29155806e-4f;
  q = q * z + 2.589093008e-2f;
  q = q * z + 4.671743693e-1f;
  q = q * z + 1.0f;
  return bounded<float>(c * p / q, -1.0f, 1.0f);
}

HEADGATE_INLINE Vec<double> tanh_small(Vec<double> x) {
  const Vec<double> z = x * x;
  Vec<double> p = z * -9.64399179425052238628e-1 + -9.92877231001918586564e1;
  p = p * z + -1.61468768441708447952e3;
  Vec<double> q = z + 1.12811678491632931402e2;
  q = q * z + 2.23548839060100448583e3;
  q = q * z + 4.84406305325125486048e3;
  return x * z * (p / q) + x;
}

template <> HEADGATE_INLINE Vec<double> tangent<double>(Vec<double> x) {
  const Vec<double> a = absolute<double>(x);
  const Vec<double> e = exponential_within<double>(bounded<double>(a + a, 0.0, 80.0));
  const Vec<double> big = 1.0 - 2.0 / (e + 1.0);
  const Vec<double> signed_big = select<double>(x < 0.0, -big, big);
  return select<double>(a < 0.625, tanh_small(x), signed_big);
}

// log of positive normal numbers: the mantissa in [√½, √2) and the exponent.
template <class T> HEADGATE_INLINE Vec<T> log_normal(Vec<T> x) {
  typedef typename Types<T>::Int I;
  constexpr int shift = sizeof(T) == 4 ? 23 : 52;
  constexpr int bias = sizeof(T) == 4 ? 126 : 1022;
  const I bits = (I)x;
  I e = (bits >> shift) - bias;
  const Vec<T> half = all(T(0.5));
  const I fraction_mask = ((I{} + 1) << shift) - 1;
  Vec<T> m = (Vec<T>)((bits & fraction_mask) | (I)half);
  const I small = m < T(0.70710678118654752440);
  m = select<T>(small, m + m, m);
  e += small;
  const Vec<T> n = __builtin_convertvector(e, Vec<T>);
  const Vec<T> r = m - T(1), z = r * r;
  Vec<T> y;
  if constexpr (sizeof(T) == 4) {
    Vec<T> p = r * T(7.0376836292e-2) + T(-1.1514610310e-1);
    p = p * r + T(1.1676998740e-1);
    p = p * r + T(-1.2420140846e-1);
    p = p * r + T(1.4249322787e-1);
    p = p * r + T(-1.6668057665e-1);
    p = p * r + T(2.0000714765e-1);
    p = p * r + T(-2.4999993993e-1);
    p = p * r + T(3.3333331174e-1);
    y = p * r * z;
  } else {
    Vec<T> p = r * T(1.01875663804580931796e-4) + T(4.97494994976747001425e-1);
    p = p * r + T(4.70579119878881725854e0);
    p = p * r + T(1.44989225341610930846e1);
    p = p * r + T(1.79368678507819816313e1);
    p = p * r + T(7.70838733755885391666e0);
    Vec<T> q = r + T(1.12873587189167450590e1);
    q = q * r + T(4.52279145837532221105e1);
    q = q * r + T(8.29875266912776603211e1);
    q = q * r + T(7.11544750618563894466e1);
    q = q * r + T(2.31251620126765340583e1);
    y = r * (z * p / q);
  }
  y = y + n * T(-2.121944400546905827679e-4);
  y = y - z * T(0.5);
  return (r + y) + n * T(0.693359375);
}

template <class T> HEADGATE_INLINE Vec<T> logarithm(Vec<T> x) {
  const T inf = sizeof(T) == 4 ? T(__builtin_inff()) : T(__builtin_inf());
  const T least = sizeof(T) == 4 ? T(1.17549435e-38) : T(2.2250738585072014e-308);
  Vec<T> y = log_normal<T>(x);
  y = select<T>(x < least, all(-inf), y);
  y = select<T>(x == inf, x, y);
  const Vec<T> nan = all(T(__builtin_nanf("")));
  return select<T>((x < T(0)) | (x != x), nan, y);
}

// log(1 + y) for 0 <= y <= 1: 2 artanh(s) with s = y / (2 + y) <= 1/3, by its series.
template <class T> HEADGATE_INLINE Vec<T> log_of_one_and(Vec<T> y) {
  constexpr int terms = sizeof(T) == 4 ? 8 : 17;
  const Vec<T> s = y / (T(2) + y), z = s * s;
  Vec<T> p = all(T(1.0 / (2 * terms - 1)));
#pragma GCC unroll 17
  for (int k = terms - 1; k > 0; --k)
    p = p * z + T(1.0 / (2 * k - 1));
  return (s + s) * p;
}

template <class T> HEADGATE_INLINE Vec<T> log_sigmoid(Vec<T> x) {
  const Vec<T> least = select<T>(x < T(0), x, all(T(0)));
  return least - log_of_one_and<T>(exponential<T>(-absolute<T>(x)));
}

template <class T> HEADGATE_INLINE Vec<T> square_root(Vec<T> v) {
#if defined(__AVX512F__)
  if constexpr (sizeof(T) == 4)
    return (Vec<T>)_mm512_sqrt_ps((__m512)v);
  else
    return (Vec<T>)_mm512_sqrt_pd((__m512d)v);
#elif defined(__AVX2__)
  if constexpr (sizeof(T) == 4)
    return (Vec<T>)_mm256_sqrt_ps((__m256)v);
  else
    return (Vec<T>)_mm256_sqrt_pd((__m256d)v);
#else
  Vec<T> out{};
  for (int k = 0; k < kLanes<T>; ++k) {
    out[k] = sizeof(T) == 4 ? T(__builtin_sqrtf(float(v[k]))) : T(__builtin_sqrt(double(v[k])));
  }
  return out;
#endif
}

// Denormal numbers count as zero while one of these lives.
struct FlushDenormals {
#if defined(__x86_64__)
  unsigned saved = _mm_getcsr();
  FlushDenormals() { _mm_setcsr(saved | 0x8040); }
  ~FlushDenormals() { _mm_setcsr(saved); }
#elif defined(__aarch64__)
  std::uint64_t saved;
  FlushDenormals() {
    asm volatile("mrs %0, fpcr" : "=r"(saved));
    set(saved | 1 << 24);
  }
  ~FlushDenormals() { set(saved); }
  static void set(std::uint64_t mode) { asm volatile("msr fpcr, %0" : : "r"(mode)); }
#endif
};

} // namespace headgate::HEADGATE_ISA
