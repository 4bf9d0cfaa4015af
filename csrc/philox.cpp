#include "philox.hpp"

#include <algorithm>

namespace headgate {

namespace {

constexpr std::uint64_t kMultiplier0 = 0xD2511F53;
constexpr std::uint64_t kMultiplier1 = 0xCD9E8D57;
constexpr std::uint32_t kWeyl0 = 0x9E3779B9;
constexpr std::uint32_t kWeyl1 = 0xBB67AE85;
constexpr int kRounds = 10;

std::uint32_t low(std::uint64_t word) { return static_cast<std::uint32_t>(word); }
std::uint32_t high(std::uint64_t word) { return static_cast<std::uint32_t>(word >> 32); }

} // namespace

void philox4x32_10(const std::uint32_t counter[4], const std::uint32_t key[2],
                   std::uint32_t out[4]) {
  std::uint32_t c0 = counter[0], c1 = counter[1], c2 = counter[2], c3 = counter[3];
  std::uint32_t k0 = key[0], k1 = key[1];
  for (int round = 0; round < kRounds; ++round) {
    const std::uint64_t product0 = kMultiplier0 * c0;
    const std::uint64_t product1 = kMultiplier1 * c2;
    c0 = high(product1) ^ c1 ^ k0;
    c1 = low(product1);
    c2 = high(product0) ^ c3 ^ k1;
    c3 = low(product0);
    k0 += kWeyl0;
    k1 += kWeyl1;
  }
  out[0] = c0;
  out[1] = c1;
  out[2] = c2;
  out[3] = c3;
}

void philox_uniform(std::uint64_t seed, std::uint32_t stream, const std::int64_t *rows,
                    std::size_t row_count, std::uint32_t first_step, std::size_t step_count,
                    std::size_t width, float *out) {
  const std::uint32_t key[2] = {low(seed), high(seed)};
  for (std::size_t step = 0; step < step_count; ++step) {
    for (std::size_t row = 0; row < row_count; ++row) {
      for (std::size_t unit = 0; unit < width; unit += 4) {
        const std::uint32_t counter[4] = {static_cast<std::uint32_t>(unit / 4),
                                          static_cast<std::uint32_t>(rows[row]),
                                          first_step + static_cast<std::uint32_t>(step), stream};
        std::uint32_t words[4];
        philox4x32_10(counter, key, words);
        const std::size_t count = std::min<std::size_t>(4, width - unit);
        for (std::size_t word = 0; word < count; ++word) {
          *out++ = static_cast<float>(words[word] >> 8) * 0x1p-24F;
        }
      }
    }
  }
}

} // namespace headgate
