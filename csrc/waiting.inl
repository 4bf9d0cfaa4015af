// Threads of one loop that wait for each other. Included by loop.inl.

HEADGATE_INLINE void pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// Until another thread has counted so far. Returns the nanoseconds that it took, about.
HEADGATE_INLINE std::int64_t wait_for(const std::int64_t *count, std::int64_t enough) {
  if (__atomic_load_n(count, __ATOMIC_ACQUIRE) >= enough)
    return 0;
  const auto began = std::chrono::steady_clock::now();
  auto now = began; // read while there is nothing else to do
  for (int spins = 0; __atomic_load_n(count, __ATOMIC_ACQUIRE) < enough; ++spins) {
    if (spins < 4096)
      pause();
    else
      sched_yield(); // somebody else has the processor that we wait for
    now = std::chrono::steady_clock::now();
  }
  return std::chrono::nanoseconds(now - began).count();
}

// Counts that this thread has come.
HEADGATE_INLINE void arrive(Arrivals &mine) {
  __atomic_store_n(&mine.count, mine.count + 1, __ATOMIC_RELEASE);
}

// Until all threads have come as often.
HEADGATE_INLINE void wait_for_all(Arrivals *arrivals, int thread, int threads, std::int64_t often) {
  for (int other = 0; other < threads; ++other)
    arrivals[thread].waited += wait_for(&arrivals[other].count, often);
}

HEADGATE_INLINE bool all_came(const Arrivals *arrivals, int threads, std::int64_t often) {
  for (int other = 0; other < threads; ++other) {
    if (__atomic_load_n(&arrivals[other].count, __ATOMIC_ACQUIRE) < often)
      return false;
  }
  return true;
}
