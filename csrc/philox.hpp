#pragma once

#include <cstddef>
#include <cstdint>

namespace headgate {

// Philox4x32-10: four random words for one counter and key, by ten rounds of multiplication and
// exclusive or. Salmon, Moraes, Dror & Shaw, "Parallel random numbers: as easy as 1, 2, 3" (2011).
//
// counter: 4 words, read. key: 2 words, read. out: 4 words, every one written; may be `counter`.
void philox4x32_10(const std::uint32_t counter[4], const std::uint32_t key[2],
                   std::uint32_t out[4]);

// Uniform numbers in [0, 1), multiples of 2^-24, for `step_count` steps, `row_count` rows and
// `width` units:
//   out[s, r, u] = 2^-24 * (philox((u / 4, rows[r], first_step + s, stream), seed)[u % 4] >> 8)
// Each number depends on its own coordinates alone, so any split of the work gives the same.
//
// seed: low word first. stream: what tells one mask from another.
// rows: row_count numbers, read, each in [0, 2^32); may be null when row_count is 0.
// out: (step_count, row_count, width) contiguous, owned by the caller, need not be zeroed, every
// element written; must not overlap `rows`; may be null when it has no element.
void philox_uniform(std::uint64_t seed, std::uint32_t stream, const std::int64_t *rows,
                    std::size_t row_count, std::uint32_t first_step, std::size_t step_count,
                    std::size_t width, float *out);

} // namespace headgate
