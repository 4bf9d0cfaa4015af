// Packed weights, kept as long as the bits they were made from stay the same.

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <iterator>
#include <list>
#include <mutex>
#include <new>
#include <unordered_map>
#include <vector>

#if !defined(_WIN32)
#include <pthread.h>
#endif

#include "engine.hpp"

namespace headgate {

namespace {

constexpr std::size_t kMarkedAlone = std::size_t(1) << 18; // bytes of a block that one thread marks
constexpr std::size_t kKeptBytes = std::size_t(256) << 20; // more than this goes, oldest first

struct Entry {
  std::string key;
  std::uint64_t mark;
  std::shared_ptr<const void> data;
  std::size_t bytes;
};

std::mutex guard;
std::list<Entry> entries; // the last used first
std::unordered_map<std::string, std::list<Entry>::iterator> by_key;
std::size_t kept_bytes = 0;

#if !defined(_WIN32)
// No other thread may hold the lock while the process forks.
[[maybe_unused]] const int watched =
    pthread_atfork([] { guard.lock(); }, [] { guard.unlock(); }, [] { guard.unlock(); });
#endif

void drop(std::list<Entry>::iterator entry) {
  kept_bytes -= entry->bytes;
  by_key.erase(entry->key);
  entries.erase(entry);
}

std::size_t packed_bytes(const Packing &p, bool is_double) {
  const std::int64_t panels = (p.width + p.unit_block - 1) / p.unit_block;
  const auto blocks = static_cast<std::int64_t>(p.offsets.size());
  return static_cast<std::size_t>(panels * p.depth * p.unit_block * blocks) * (is_double ? 8 : 4);
}

template <class V> void append(std::string &key, const V &value) {
  key.append(reinterpret_cast<const char *>(&value), sizeof value);
}

std::string key_of(const Packing &p, const void *matrix, bool is_double) {
  std::string key;
  append(key, matrix);
  append(key, is_double);
  for (std::int64_t v : {p.elements, p.width, p.depth, p.unit_stride, p.depth_stride, p.unit_block})
    append(key, v);
  for (std::int64_t offset : p.offsets)
    append(key, offset);
  return key;
}

// Panels from … to.
template <class T>
void pack(const Packing &p, const T *source, std::int64_t from, std::int64_t to, T *out) {
  const auto blocks = static_cast<std::int64_t>(p.offsets.size());
  const std::int64_t block = p.unit_block, stride = blocks * block;
  for (std::int64_t panel = from; panel < to; ++panel) {
    const std::int64_t first = panel * block, valid = std::min(block, p.width - first);
    for (std::int64_t b = 0; b < blocks; ++b) {
      const T *at = source + p.offsets[static_cast<std::size_t>(b)] + first * p.unit_stride;
      T *put = out + panel * p.depth * stride + b * block;
      if (p.unit_stride == 1) {
        for (std::int64_t k = 0; k < p.depth; ++k) {
          std::copy(at + k * p.depth_stride, at + k * p.depth_stride + valid, put + k * stride);
          std::fill(put + k * stride + valid, put + k * stride + block, T(0));
        }
        continue;
      }
      for (std::int64_t k0 = 0; k0 < p.depth; k0 += 16) {
        const std::int64_t k1 = std::min(p.depth, k0 + 16);
        for (std::int64_t u = 0; u < block; ++u) {
          for (std::int64_t k = k0; k < k1; ++k)
            put[k * stride + u] = u < valid ? at[u * p.unit_stride + k * p.depth_stride] : T(0);
        }
      }
    }
  }
}

std::shared_ptr<const void> make(const Packing &p, const void *matrix, bool is_double,
                                 [[maybe_unused]] int threads) {
  const std::int64_t panels = (p.width + p.unit_block - 1) / p.unit_block;
  const std::size_t bytes = packed_bytes(p, is_double);
  void *memory = std::aligned_alloc(128, (bytes + 127) / 128 * 128);
  if (memory == nullptr && bytes > 0)
    throw std::bad_alloc();
  const int parts = bytes > 262144 ? threads : 1;
#if defined(_OPENMP)
#pragma omp parallel for num_threads(parts) schedule(static, 1) if (parts > 1)
#endif
  for (int t = 0; t < parts; ++t) {
    const std::int64_t from = panels * t / parts, to = panels * (t + 1) / parts;
    if (is_double)
      pack(p, static_cast<const double *>(matrix), from, to, static_cast<double *>(memory));
    else
      pack(p, static_cast<const float *>(matrix), from, to, static_cast<float *>(memory));
  }
  return {memory, [](const void *kept) { std::free(const_cast<void *>(kept)); }};
}

std::uint64_t fingerprint_of(const char *p, std::size_t bytes) {
  std::uint64_t lanes[8] = {1, 2, 3, 4, 5, 6, 7, 8};
  std::size_t at = 0;
  for (; at + 64 <= bytes; at += 64) {
    for (std::size_t k = 0; k < 8; ++k) {
      std::uint64_t word;
      std::memcpy(&word, p + at + 8 * k, 8);
      lanes[k] = (lanes[k] ^ word) * 0x9E3779B97F4A7C15u;
      lanes[k] ^= lanes[k] >> 29;
    }
  }
  std::uint64_t hash = bytes;
  for (; at < bytes; ++at)
    hash = (hash ^ static_cast<unsigned char>(p[at])) * 0x100000001B3u;
  for (std::uint64_t lane : lanes)
    hash = (hash ^ lane ^ (lane >> 31)) * 0xBF58476D1CE4E5B9u;
  return hash ^ (hash >> 32);
}

} // namespace

std::shared_ptr<const void> packed(const Packing &packing, const void *matrix, bool is_double,
                                   int threads) {
  const std::size_t bytes = static_cast<std::size_t>(packing.elements) * (is_double ? 8 : 4);
  const std::uint64_t mark = fingerprint(matrix, bytes, threads);
  std::string key = key_of(packing, matrix, is_double);
  {
    const std::lock_guard<std::mutex> lock(guard);
    const auto found = by_key.find(key);
    if (found != by_key.end() && found->second->mark == mark) {
      entries.splice(entries.begin(), entries, found->second);
      return found->second->data;
    }
  }
  std::shared_ptr<const void> data = make(packing, matrix, is_double, threads);
  const std::lock_guard<std::mutex> lock(guard);
  const auto found = by_key.find(key);
  if (found != by_key.end())
    drop(found->second);
  entries.push_front({key, mark, data, packed_bytes(packing, is_double)});
  by_key[std::move(key)] = entries.begin();
  kept_bytes += entries.front().bytes;
  while (kept_bytes > kKeptBytes && entries.size() > 1)
    drop(std::prev(entries.end()));
  return data;
}

std::uint64_t fingerprint(const void *data, std::size_t bytes, int threads) {
  const char *p = static_cast<const char *>(data);
  if (bytes <= kMarkedAlone)
    return fingerprint_of(p, bytes);
  const auto blocks = static_cast<std::int64_t>((bytes + kMarkedAlone - 1) / kMarkedAlone);
  std::vector<std::uint64_t> marks(static_cast<std::size_t>(blocks));
#if defined(_OPENMP)
#pragma omp parallel for num_threads(threads) schedule(static) if (threads > 1)
#endif
  for (std::int64_t k = 0; k < blocks; ++k) {
    const std::size_t at = static_cast<std::size_t>(k) * kMarkedAlone;
    marks[static_cast<std::size_t>(k)] = fingerprint_of(p + at, std::min(kMarkedAlone, bytes - at));
  }
  return fingerprint_of(reinterpret_cast<const char *>(marks.data()), marks.size() * 8);
}

} // namespace headgate
