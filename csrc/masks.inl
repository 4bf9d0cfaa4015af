// Masks of dropout and zoneout, drawn where they are used: Philox4x32-10 (philox.hpp), several
// counters at once. Included by loop.inl, in the namespace of one instruction set.

typedef std::uint64_t Words __attribute__((vector_size(kBytes)));
constexpr int kCounters = kBytes / 8; // each gives four units

// The product of the low halves of 64-bit lanes.
HEADGATE_INLINE Words low_product(Words a, std::uint64_t b) {
  const Words factor = b - Words{};
#if defined(__AVX512F__)
  return (Words)_mm512_mul_epu32((__m512i)a, (__m512i)factor);
#elif defined(__AVX2__)
  return (Words)_mm256_mul_epu32((__m256i)a, (__m256i)factor);
#elif defined(__x86_64__)
  return (Words)_mm_mul_epu32((__m128i)a, (__m128i)factor);
#else
  return (a & 0xffffffffu) * factor;
#endif
}

// The 64-bit lanes of two vectors in turn: the first halves, and the second.
#if defined(__AVX512F__)
#define HEADGATE_FIRST 0, 8, 1, 9, 2, 10, 3, 11
#define HEADGATE_SECOND 4, 12, 5, 13, 6, 14, 7, 15
#elif defined(__AVX2__)
#define HEADGATE_FIRST 0, 4, 1, 5
#define HEADGATE_SECOND 2, 6, 3, 7
#else
#define HEADGATE_FIRST 0, 2
#define HEADGATE_SECOND 1, 3
#endif

// words[k]: 24 random bits of unit 4 * first + k, for 4 * kCounters units. Only the low halves of
// lanes matter until the end.
inline void draw(std::uint64_t seed, std::uint32_t first, std::uint32_t row, std::uint32_t step,
                 std::uint32_t stream, std::int32_t *words) {
  constexpr std::uint64_t kLow = 0xffffffffu;
  static constexpr std::uint64_t kCount[] = {0, 1, 2, 3, 4, 5, 6, 7};
  Words c0;
  __builtin_memcpy(&c0, kCount, sizeof(c0));
  c0 += first;
  Words c1 = row - Words{}, c2 = step - Words{}, c3 = stream - Words{};
  std::uint32_t k0 = static_cast<std::uint32_t>(seed), k1 = static_cast<std::uint32_t>(seed >> 32);
#pragma GCC unroll 10
  for (int round = 0; round < 10; ++round) {
    const Words p0 = low_product(c0, 0xD2511F53), p1 = low_product(c2, 0xCD9E8D57);
    c0 = (p1 >> 32) ^ c1 ^ std::uint64_t(k0);
    c1 = p1;
    c2 = (p0 >> 32) ^ c3 ^ std::uint64_t(k1);
    c3 = p0;
    k0 += 0x9E3779B9;
    k1 += 0xBB67AE85;
  }
  typedef std::uint32_t Halves __attribute__((vector_size(kBytes)));
  typedef std::int32_t Loose __attribute__((vector_size(kBytes), aligned(4), may_alias));
  const Words even = (c0 & kLow) | (c1 << 32), odd = (c2 & kLow) | (c3 << 32);
  *reinterpret_cast<Loose *>(words) =
      (Loose)((Halves)__builtin_shufflevector(even, odd, HEADGATE_FIRST) >> 8);
  *reinterpret_cast<Loose *>(words + 2 * kCounters) =
      (Loose)((Halves)__builtin_shufflevector(even, odd, HEADGATE_SECOND) >> 8);
}

#undef HEADGATE_FIRST
#undef HEADGATE_SECOND

// The mask of `count` units from `unit` on, of one row and step.
template <class T>
void fill_mask(const Mask &mask, std::uint64_t seed, std::uint32_t stream, std::int64_t row,
               std::int64_t step, std::int64_t unit, std::int64_t count, T *out) {
  constexpr std::int64_t kUnits = 4 * kCounters;
  const std::uint32_t at = mask.stepped ? static_cast<std::uint32_t>(step) : 0xffffffffu;
  // u / 2^24 < rate, rate in T, exactly
  const double bound = static_cast<double>(static_cast<T>(mask.rate)) * 16777216.0;
  const auto whole = static_cast<std::int32_t>(bound);
  const std::int32_t limit = whole + (static_cast<double>(whole) < bound);
  const T hit = static_cast<T>(mask.hit), miss = static_cast<T>(mask.miss);
  alignas(64) std::int32_t words[kUnits];
  const std::int64_t skipped = unit % 4;
  for (std::int64_t done = -skipped; done < count; done += kUnits) {
    draw(seed, static_cast<std::uint32_t>((unit + done) / 4), static_cast<std::uint32_t>(row), at,
         stream, words);
    const std::int64_t from = done < 0 ? -done : 0;
    const std::int64_t to = count - done < kUnits ? count - done : kUnits;
    if (from == 0 && to == kUnits) {
      for (std::int64_t k = 0; k < kUnits; ++k)
        out[done + k] = words[k] < limit ? hit : miss;
    } else {
      for (std::int64_t k = from; k < to; ++k)
        out[done + k] = words[k] < limit ? hit : miss;
    }
  }
}
