#include "engine.hpp"
#include "job.hpp"
#include "pace.hpp"
#include "threads.hpp"

#include <algorithm>

#if !defined(_WIN32)
#include <pthread.h>
#include <unistd.h>
#endif

namespace headgate {

namespace {

bool forked = false;
#if !defined(_WIN32)
[[maybe_unused]] const int watched = pthread_atfork(nullptr, nullptr, [] { forked = true; });
#endif

} // namespace

bool was_forked() { return forked; }

const std::int64_t second_level_cache = [] {
  std::int64_t bytes = 0;
#if defined(_SC_LEVEL2_CACHE_SIZE)
  bytes = sysconf(_SC_LEVEL2_CACHE_SIZE);
#endif
  return bytes > 0 ? std::clamp<std::int64_t>(bytes, 256 << 10, 4 << 20) : 1 << 20;
}();

std::size_t slots_bytes(const LoopPlan &view, std::size_t size) {
  const std::size_t phases = view.before.size + view.loop.size;
  return static_cast<std::size_t>(view.slots) * (view.slot_size * size + 6 * sizeof(std::int64_t)) +
         phases * 6 * sizeof(std::int64_t);
}

Plan::Plan(std::vector<TensorSpec> tensors, std::vector<PhaseData> before,
           std::vector<PhaseData> loop, std::vector<Constant> constants, std::uint32_t slots,
           std::uint32_t slot_size, bool backward)
    : tensors_(std::move(tensors)), before_(std::move(before)), loop_(std::move(loop)),
      constants_(std::move(constants)) {
  look_at(before_, before_view_, before_products_);
  look_at(loop_, loop_view_, loop_products_);
  view_ = {span(tensors_), span(before_view_), span(loop_view_), span(constants_),
           slots,          slot_size,          elements_,        backward};
}

void Plan::look_at(const std::vector<PhaseData> &phases, std::vector<Phase> &views,
                   std::vector<std::vector<Product>> &products) {
  products.reserve(phases.size());
  for (const PhaseData &p : phases) {
    std::vector<Product> &list = products.emplace_back();
    std::uint32_t weight = 0;
    for (const ProductData &product : p.products) {
      list.push_back({span(product.segments), span(product.slots), span(product.starts)});
      for (const Segment &segment : product.segments)
        weight += segment.depth * static_cast<std::uint32_t>(product.slots.size());
    }
    views.push_back({p.width, weight, span(list), span(p.masks), span(p.loads),
                     span(p.instructions), span(p.stores), span(p.sums)});
    elements_ += std::int64_t(weight) * p.width;
    work_ += std::int64_t(weight) * p.width;
    work_ += static_cast<std::int64_t>(p.instructions.size()) * p.width * 4;
  }
}

namespace {

// Jobs one after another, or each on threads of its own. False where there are not enough threads.
bool run_jobs(const Kernels &kernels, Job *jobs, std::size_t count, Arena &arena) {
  int used = 0;
  for (std::size_t k = 0; k < count; ++k)
    used += jobs[k].threads();
  arena.clear();
  for (std::size_t k = 0; k < count; ++k)
    jobs[k].lay_out(arena);
  arena.reserve();
  for (std::size_t k = 0; k < count; ++k) {
    jobs[k].lay_out(arena);
    jobs[k].start();
  }
  const bool done = on_threads(used, [&](int thread) {
    Job *job = jobs;
    while (thread >= job->threads())
      thread -= job++->threads();
    job->loop(kernels, thread);
  });
  for (std::size_t k = 0; done && k < count; ++k) {
    if (jobs[k].products_wait())
      jobs[k].multiply_now();
    jobs[k].finish();
  }
  return done;
}

// A wavefront: thread t takes jobs t, t + threads, …, each a few steps behind the one before.
bool run_chain(const Kernels &kernels, Job *jobs, std::size_t count, int threads, Arena &arena) {
  arena.clear();
  for (std::size_t k = 0; k < count; ++k) {
    jobs[k].follow(k == 0 ? nullptr : &jobs[k - 1]);
    jobs[k].lay_out(arena);
  }
  arena.reserve();
  for (std::size_t k = 0; k < count; ++k) {
    jobs[k].lay_out(arena);
    jobs[k].start();
  }
  const bool done = on_threads(threads, [&](int thread) {
    for (std::size_t k = static_cast<std::size_t>(thread); k < count;
         k += static_cast<std::size_t>(threads))
      jobs[k].loop(kernels, 0);
  });
  for (std::size_t k = 0; done && k < count; ++k)
    jobs[k].finish();
  return done;
}

thread_local Pace pace; // of the threads of this thread's pool

} // namespace

void remember_seconds(const std::vector<double> &seconds) {
  const int threads = static_cast<int>(seconds.size());
  pace = Pace();
  const std::vector<Portion> equal = pace.portions(0, threads, threads);
  for (int times = 0; times < 64; ++times)
    pace.note(equal, seconds);
}

void run(const Kernels &kernels, const Call *calls, std::size_t count, int threads, bool chain) {
  static thread_local Arena arena;
  static thread_local std::vector<Job> own;
  if (forked)
    threads = 1;
  if (own.size() < count)
    own = std::vector<Job>(count);
  Job *jobs = own.data(); // this thread's, wherever the work runs
  bool apart = count > 1 && (chain ? threads > 1 : threads >= static_cast<int>(count));
  for (std::size_t k = 0; k < count; ++k) {
    jobs[k].prepare(calls[k], threads);
    apart = apart && jobs[k].split_for(threads) != Split::rows && jobs[k].work() >= kWorthThreads;
  }
  bool done = true;
  const auto share = [&](Job &job, int first, int shared) {
    const Split how = job.split_for(shared);
    const std::vector<Portion> alone(1), all = pace.portions(first, shared, job.pieces(how));
    job.split(how, how == Split::none ? alone : all);
    job.plan_products(kernels, job.work() < kWorthThreads ? alone : all);
  };
  if (apart && chain) {
    done = run_chain(kernels, jobs, count, std::min(threads, static_cast<int>(count)), arena);
  } else if (apart) { // each on threads of its own
    const int each = threads / static_cast<int>(count);
    for (std::size_t k = 0; k < count; ++k)
      share(jobs[k], static_cast<int>(k) * each, each);
    done = run_jobs(kernels, jobs, count, arena);
  } else {
    for (std::size_t k = 0; done && k < count; ++k) {
      share(jobs[k], 0, threads);
      done = run_jobs(kernels, jobs + k, 1, arena);
      if (done && jobs[k].threads() > 1)
        pace.note(jobs[k].portions(), jobs[k].seconds());
    }
  }
  if (!done)
    return run(kernels, calls, count, 1, chain);
  for (std::size_t k = 0; k < count; ++k)
    jobs[k].release();
}

std::vector<const Kernels *> available_kernels() {
  std::vector<const Kernels *> found;
#if defined(HEADGATE_X86)
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512bw")) {
    found.push_back(&kernels_avx512);
  }
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
    found.push_back(&kernels_avx2);
#endif
  found.push_back(&kernels_baseline);
  return found;
}

} // namespace headgate
