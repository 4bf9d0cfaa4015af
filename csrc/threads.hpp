#pragma once

#if defined(_OPENMP)
#include <omp.h>
#endif

// One pool of threads, OpenMP's, which torch uses too.

namespace headgate {

// A forked process has the pool without its threads, and would wait for them for ever.
bool was_forked();

// work(part) for each part at the same time; false, with nothing done, where there are not enough
// threads, inside another parallel region, say.
template <class Work> bool on_threads(int threads, const Work &work) {
  if (threads == 1) {
    work(0);
    return true;
  }
  bool enough = false;
#if defined(_OPENMP)
#pragma omp parallel num_threads(threads)
  {
    if (omp_get_num_threads() == threads) {
      if (omp_get_thread_num() == 0)
        enough = true;
      work(omp_get_thread_num());
    }
  }
#endif
  return enough;
}

} // namespace headgate
