#include "engine.hpp"
#include "threads.hpp"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <list>
#include <numeric>

#if !defined(_WIN32)
#include <pthread.h>
#endif

namespace headgate {

namespace {

constexpr std::int64_t kSecondLevelCache = 768 * 1024;
constexpr std::int64_t kWorthThreads = 400000;  // multiply-adds that outweigh waking them
constexpr std::int64_t kStretchRows = 512;      // of error terms, used while they are near
constexpr std::int64_t kSumsNear = 1024 * 1024; // bytes of sums that are near again and again

template <class T> Span<T> span(const std::vector<T> &v) {
  return {v.data(), static_cast<std::uint32_t>(v.size())};
}

// Memory of a calling thread that is kept between calls, so that a call allocates nothing.
class Arena {
public:
  void *take(std::size_t bytes) {
    const std::size_t at = used_;
    used_ += (bytes + 127) / 128 * 128;
    return data_ == nullptr ? nullptr : static_cast<char *>(data_) + at;
  }
  // Measure with `take` after `clear`, then `reserve`, then take the same again.
  void reserve() {
    if (used_ > size_) {
      std::free(store_);
      store_ = std::aligned_alloc(128, (used_ + 127) / 128 * 128);
      size_ = store_ == nullptr ? 0 : used_;
      if (store_ == nullptr)
        throw std::bad_alloc();
    }
    used_ = 0;
    data_ = store_;
  }
  void clear() {
    used_ = 0;
    data_ = nullptr;
  }
  ~Arena() { std::free(store_); }

private:
  void *store_ = nullptr, *data_ = nullptr;
  std::size_t size_ = 0, used_ = 0;
};

bool forked = false;
#if !defined(_WIN32)
[[maybe_unused]] const int watched = pthread_atfork(nullptr, nullptr, [] { forked = true; });
#endif

enum class Split { none, rows, units };

Split choose_split(const Plan &plan, const Binding &binding, std::int64_t total_steps,
                   int threads) {
  if (threads < 2)
    return Split::none;
  const std::int64_t work = plan.depth_work();
  if (work * total_steps < kWorthThreads)
    return Split::none;
  const std::int64_t bytes = plan.weight_elements() * (binding.is_double ? 8 : 4);
  const bool rows_suffice = binding.rows >= 2 * threads;
  if (rows_suffice && (bytes <= kSecondLevelCache || binding.rows >= 32 * threads))
    return Split::rows;
  const std::int64_t each_step = work * total_steps / std::max<std::int64_t>(binding.steps, 1);
  if (each_step >= 30000)
    return Split::units;
  return rows_suffice ? Split::rows : Split::none;
}

// One call, prepared.
class Job {
public:
  void prepare(const Call &call, int threads) {
    call_ = &call;
    binding_ = call.binding;
    size_ = binding_->is_double ? 8 : 4;
    weights_.clear();
    addresses_.clear();
    for (const Packing &packing : binding_->packings) {
      weights_.push_back(packed(packing, call.bases[packing.base], binding_->is_double, threads));
      addresses_.push_back(weights_.back().get());
    }
    const std::int64_t rows = binding_->rows;
    total_ = binding_->steps * rows;
    if (call.lengths != nullptr)
      total_ = std::accumulate(call.lengths, call.lengths + rows, std::int64_t{0});
  }

  std::int64_t work() const { return binding_->plan->depth_work() * total_; }
  int threads() const { return threads_; }
  Split split_for(int threads) const {
    return choose_split(*binding_->plan, *binding_, total_, threads);
  }

  // Products over all steps, shared by so many threads: by those of the loop while it goes on, or
  // after it.
  void plan_products(const Kernels &kernels, int threads);
  bool products_wait() const {
    return product_threads_ > 0 && (product_threads_ != threads_ || binding_->steps == 0);
  }
  void multiply(int thread, std::int64_t from, std::int64_t to);
  // Where the loop did not: after it.
  void multiply_now();

  // One thread, which waits for what `before` has done.
  void follow(const Job *before) {
    split(Split::none, 1);
    source_ = before == nullptr ? nullptr : &before->progress_;
    progress_ = 0;
    chained_ = true;
  }

  void split(Split how, int threads) {
    chained_ = false;
    split_ = how;
    threads_ = how == Split::none ? 1 : threads;
    product_threads_ = 0;
    arrivals_.assign(how == Split::none ? 0 : static_cast<std::size_t>(threads), Arrivals{});
    order_rows(how == Split::rows ? threads_ : 1);
  }

  // Lays out the memory of all threads; run twice, first to measure it.
  void lay_out(Arena &arena);

  void start();
  void loop(const Kernels &kernels, int thread) const {
    (binding_->is_double ? kernels.run_double
                         : kernels.run_float)(shares_[static_cast<std::size_t>(thread)]);
  }
  void finish();
  void release() { weights_.clear(); }

private:
  char *address(const Found &f) const {
    return f.base < 0 ? nullptr
                      : static_cast<char *>(call_->bases[f.base]) +
                            f.offset * static_cast<std::int64_t>(size_);
  }
  char *row(const Found &f, std::int64_t time, std::int64_t n) const {
    return address(f) + (time * f.by_time + n * f.by_row) * static_cast<std::int64_t>(size_);
  }
  std::int64_t length(std::int64_t n) const {
    return call_->lengths == nullptr ? binding_->steps : call_->lengths[n];
  }
  void order_rows(int dealt);
  Place place_of(std::uint32_t tensor, Arena &arena, std::int64_t chunk_rows) const;
  void copy_states(bool into);
  Rows matrix(const Found &f);
  void list_steps();
  std::int64_t stretch_steps() const;
  Stretch stretch(std::int64_t from, std::int64_t to) const;

  const Call *call_ = nullptr;
  const Binding *binding_ = nullptr;
  std::size_t size_ = 4;
  std::int64_t total_ = 0; // valid steps of all rows
  Split split_ = Split::none;
  int threads_ = 1;
  std::vector<std::shared_ptr<const void>> weights_;
  std::vector<const void *> addresses_;
  std::vector<std::vector<Place>> places_; // by thread
  std::vector<Share> shares_;
  std::vector<std::int64_t> rows_, lengths_;
  std::vector<std::int64_t> starts_; // where each thread's rows begin
  std::vector<Arrivals> arrivals_;
  const std::int64_t *source_ = nullptr;
  alignas(64) std::int64_t progress_ = 0; // steps done
  bool chained_ = false;

  // Products over all steps.
  const Kernels *kernels_ = nullptr;
  int product_threads_ = 0; // 0: there are none
  std::vector<std::vector<Columns>> columns_;
  std::vector<std::vector<Outer>> terms_;
  std::vector<std::vector<Through>> segments_;
  std::vector<OuterJob> outers_;
  std::vector<ThroughJob> throughs_;
  std::vector<std::int64_t> first_of_;         // in the lists: where each step begins
  std::vector<std::int64_t> valid_;            // numbers of the valid (time, row), step by step
  std::list<std::vector<std::int64_t>> lists_; // the same for matrices that lie otherwise
  std::vector<char *> packed_;                 // by thread
  std::vector<std::vector<char *>> sums_;
};

// Rows by length, longest first; for threads that split the rows, dealt out in turn so that each
// has its share of the long ones.
void Job::order_rows(int dealt) {
  const auto n = static_cast<std::size_t>(binding_->rows);
  rows_.resize(n);
  lengths_.resize(n);
  starts_.assign(1, 0);
  std::iota(rows_.begin(), rows_.end(), 0);
  if (call_->lengths == nullptr) {
    for (int t = 1; t <= dealt; ++t)
      starts_.push_back(binding_->rows * t / dealt);
  } else {
    std::vector<std::int64_t> sorted(rows_);
    std::stable_sort(sorted.begin(), sorted.end(),
                     [&](std::int64_t a, std::int64_t b) { return length(a) > length(b); });
    rows_.clear();
    for (int t = 0; t < dealt; ++t) {
      for (auto r = static_cast<std::size_t>(t); r < n; r += static_cast<std::size_t>(dealt))
        rows_.push_back(sorted[r]);
      starts_.push_back(static_cast<std::int64_t>(rows_.size()));
    }
  }
  for (std::size_t r = 0; r < n; ++r)
    lengths_[r] = length(rows_[r]);
}

Place Job::place_of(std::uint32_t tensor, Arena &arena, std::int64_t chunk_rows) const {
  const TensorSpec &spec = binding_->plan->view().tensors.data[tensor];
  const Found &found = binding_->tensors[tensor].place;
  const std::int64_t width = padded(spec.width);
  char *base = address(found);
  Place p{{base, base}, found.by_time, found.by_row, 0, 0, spec.width, 0};
  const auto room = [&](std::int64_t elements) {
    return arena.take(static_cast<std::size_t>(elements) * size_);
  };
  switch (spec.kind) {
  case Kind::state:
    p = {{room(binding_->rows * width), room(binding_->rows * width)},
         0,
         0,
         0,
         width,
         spec.width,
         0};
    break;
  case Kind::partial:
    p.base[0] = p.base[1] = room(binding_->rows * spec.panels);
    p.by_time = p.by_row = 0;
    p.by_position = p.panels = spec.panels;
    break;
  case Kind::row:
    if (base == nullptr) {
      p.base[0] = p.base[1] = room(binding_->rows * width);
      p.by_row = 0;
      p.by_position = width;
    }
    break;
  case Kind::chunk:
    p.base[0] = p.base[1] = room(chunk_rows * width);
    p.by_time = p.by_row = 0;
    p.by_chunk = width;
    break;
  case Kind::chunk_partial:
    p.base[0] = p.base[1] = room(chunk_rows * spec.panels);
    p.by_time = p.by_row = 0;
    p.by_chunk = p.panels = spec.panels;
    break;
  case Kind::step:
  case Kind::vector:
    break;
  }
  return p;
}

void Job::lay_out(Arena &arena) {
  const LoopPlan &view = binding_->plan->view();
  const bool by_rows = split_ == Split::rows;
  const std::int64_t local_rows =
      by_rows ? (binding_->rows + threads_ - 1) / threads_ : binding_->rows;
  const std::int64_t chunk_steps =
      view.before.size == 0 || chained_
          ? 16
          : std::clamp<std::int64_t>(96 / std::max<std::int64_t>(local_rows, 1), 1, 64);
  const std::int64_t chunk_rows = chunk_steps * local_rows;
  places_.resize(static_cast<std::size_t>(threads_));
  shares_.resize(static_cast<std::size_t>(threads_));
  for (auto &mine : places_)
    mine.resize(view.tensors.size);
  for (std::uint32_t k = 0; k < view.tensors.size; ++k) {
    const Kind kind = view.tensors.data[k].kind;
    const bool own = by_rows && (kind == Kind::chunk || kind == Kind::chunk_partial);
    Place place = place_of(k, arena, chunk_rows);
    for (std::size_t t = 0; t < places_.size(); ++t) {
      if (own && t > 0)
        place = place_of(k, arena, chunk_rows);
      Place &mine = places_[t][k] = place;
      const std::int64_t skipped =
          by_rows ? starts_[t] * place.by_position * static_cast<std::int64_t>(size_) : 0;
      for (void *&base : mine.base) { // positions count from the thread's first row
        if (base != nullptr)
          base = static_cast<char *>(base) + skipped;
      }
    }
  }
  const auto numbers = [&](std::int64_t count) {
    return static_cast<std::int64_t *>(arena.take(static_cast<std::size_t>(count) * 8));
  };
  for (int t = 0; t < threads_; ++t) {
    const auto at = static_cast<std::size_t>(t);
    const std::int64_t first = by_rows ? starts_[at] : 0;
    const std::int64_t last = by_rows ? starts_[at + 1] : binding_->rows;
    Share &s = shares_[at] = Share{};
    s.plan = &view;
    s.places = places_[at].data();
    s.weights = addresses_.data();
    s.rows = rows_.data() + first;
    s.lengths = lengths_.data() + first;
    s.row_count = last - first;
    s.steps = s.row_count == 0 ? 0 : s.lengths[0];
    s.chunk_steps = chunk_steps;
    s.reverse = binding_->reverse;
    s.time = numbers(chunk_rows);
    s.row = numbers(chunk_rows);
    s.step = numbers(chunk_rows);
    s.chunk_start = numbers(chunk_steps);
    s.slots = arena.take(slots_bytes(view, size_));
    s.seed = call_->seed;
    s.first_step = call_->first_step;
    s.streams = call_->streams;
    s.part = by_rows ? 0 : t;
    s.parts = by_rows ? 1 : threads_;
    s.arrivals = split_ == Split::units ? arrivals_.data() : nullptr;
    s.meeting = by_rows ? arrivals_.data() : nullptr;
    s.thread = t;
    s.threads = threads_;
    s.all_steps = binding_->steps;
    s.stretch = product_threads_ == threads_ ? stretch_steps() : 0;
    s.context = this;
    s.after = [](void *job, int thread, std::int64_t from, std::int64_t to) {
      static_cast<Job *>(job)->multiply(thread, from, to);
    };
    s.source = chained_ ? source_ : nullptr;
    s.progress = chained_ ? &progress_ : nullptr;
  }
  packed_.clear();
  sums_.clear();
  if (product_threads_ == 0)
    return;
  std::size_t packed = 0;
  for (const OuterJob &job : outers_)
    packed = std::max(packed, kernels_->outer_scratch(job, product_threads_).packed);
  for (int t = 0; t < product_threads_; ++t) {
    packed_.push_back(static_cast<char *>(arena.take(packed)));
    std::vector<char *> &mine = sums_.emplace_back();
    for (const OuterJob &job : outers_)
      mine.push_back(
          static_cast<char *>(arena.take(kernels_->outer_scratch(job, product_threads_).sums)));
  }
}

// States from their initial values, or to their final ones.
void Job::copy_states(bool into) {
  const LoopPlan &view = binding_->plan->view();
  for (std::uint32_t k = 0; k < view.tensors.size; ++k) {
    if (view.tensors.data[k].kind != Kind::state)
      continue;
    const Bound &bound = binding_->tensors[k];
    for (std::size_t t = 0; t + 1 < starts_.size(); ++t) {
      const Place &place = places_[t][k];
      const std::size_t bytes = place.width * size_;
      for (std::int64_t i = starts_[t]; i < starts_[t + 1]; ++i) {
        const auto at = static_cast<std::size_t>(i);
        const bool second = into == view.backward && (lengths_[at] & 1);
        char *here = static_cast<char *>(place.base[second]) +
                     static_cast<std::size_t>((i - starts_[t]) * place.by_position) * size_;
        const Found outside{into ? bound.place.base : bound.final, 0, 0, place.width};
        char *there = row(outside, 0, rows_[at]);
        std::memcpy(into ? here : there, into ? there : here, bytes);
      }
    }
  }
}

void Job::start() {
  copy_states(true);
  for (const Tail &z : binding_->zeroed)
    std::memset(address(z.place), 0, static_cast<std::size_t>(binding_->rows * z.width) * size_);
  for (const History &h : binding_->histories) {
    const Found start{h.start, 0, 0, h.width};
    for (std::int64_t n = 0; n < binding_->rows; ++n) {
      std::memcpy(row(h.place, binding_->reverse ? binding_->steps : 0, n), row(start, 0, n),
                  static_cast<std::size_t>(h.width) * size_);
    }
  }
}

void Job::finish() {
  copy_states(false);
  for (const History &h : binding_->histories) {
    const Found final{h.final, 0, 0, h.width};
    for (std::int64_t n = 0; n < binding_->rows; ++n) {
      std::memcpy(row(final, 0, n), row(h.place, binding_->reverse ? 0 : length(n), n),
                  static_cast<std::size_t>(h.width) * size_);
    }
  }
  if (call_->lengths == nullptr)
    return;
  for (const Tail &tail : binding_->tails) {
    for (std::int64_t t = 0; t < binding_->steps; ++t) {
      for (std::int64_t n = 0; n < binding_->rows; ++n) {
        if (t >= length(n))
          std::memset(row(tail.place, t, n), 0, static_cast<std::size_t>(tail.width) * size_);
      }
    }
  }
}

// The valid (time, row), step by step.
void Job::list_steps() {
  const std::int64_t T = binding_->steps, N = binding_->rows;
  valid_.clear();
  first_of_.clear();
  for (std::int64_t s = 0; s < T; ++s) {
    first_of_.push_back(static_cast<std::int64_t>(valid_.size()));
    for (std::int64_t n = 0; n < N; ++n) {
      if (s < length(n))
        valid_.push_back((binding_->reverse ? length(n) - 1 - s : s) * N + n);
    }
  }
  first_of_.push_back(static_cast<std::int64_t>(valid_.size()));
}

// A tensor (T, N, width) as a matrix whose rows are its valid steps: in order of time where all
// rows have all steps, and else step by step.
Rows Job::matrix(const Found &f) {
  const std::int64_t T = binding_->steps, N = binding_->rows;
  const bool even = T == 1 || N == 1 || f.by_time == N * f.by_row;
  const std::int64_t stride = N == 1 ? f.by_time : f.by_row;
  if (even)
    return {address(f), stride, call_->lengths == nullptr ? nullptr : valid_.data()};
  std::vector<std::int64_t> &list = lists_.emplace_back();
  list.reserve(static_cast<std::size_t>(total_));
  if (call_->lengths == nullptr) {
    for (std::int64_t k = 0; k < T * N; ++k)
      list.push_back(k / N * f.by_time + k % N * f.by_row);
  } else {
    for (std::int64_t k : valid_)
      list.push_back(k / N * f.by_time + k % N * f.by_row);
  }
  return {address(f), 1, list.data()};
}

// Steps whose products are taken together: few where the sums are near enough to be taken up again
// and again. Does not depend on the threads, and so the sums do not.
std::int64_t Job::stretch_steps() const {
  std::int64_t sums = 0;
  for (const OuterJob &job : outers_) {
    for (std::uint32_t k = 0; k < job.products.size; ++k)
      sums += job.height * job.products.data[k].width;
  }
  const std::int64_t steps = std::max<std::int64_t>(binding_->steps, 1);
  if (sums * static_cast<std::int64_t>(size_) > kSumsNear)
    return steps;
  return std::clamp<std::int64_t>(kStretchRows / std::max<std::int64_t>(binding_->rows, 1), 1,
                                  steps);
}

Stretch Job::stretch(std::int64_t from, std::int64_t to) const {
  const bool begins = to == binding_->steps, ends = from == 0;
  if (call_->lengths != nullptr) {
    return {first_of_[static_cast<std::size_t>(from)], first_of_[static_cast<std::size_t>(to)],
            begins, ends};
  }
  const std::int64_t first = binding_->reverse ? binding_->steps - to : from;
  return {first * binding_->rows, (first + to - from) * binding_->rows, begins, ends};
}

void Job::plan_products(const Kernels &kernels, int threads) {
  kernels_ = &kernels;
  columns_.clear();
  terms_.clear();
  segments_.clear();
  outers_.clear();
  throughs_.clear();
  lists_.clear();
  if (binding_->outers.empty() && binding_->throughs.empty())
    return;
  product_threads_ = threads;
  if (call_->lengths != nullptr)
    list_steps();
  columns_.reserve(binding_->outers.size());
  terms_.reserve(binding_->outers.size());
  segments_.reserve(binding_->throughs.size());
  for (const OuterData &given : binding_->outers) {
    std::vector<Outer> &list = terms_.emplace_back();
    for (const OuterTerm &term : given.products)
      list.push_back({matrix(term.b), address(term.c), term.c_stride, term.width, term.add});
    std::vector<Columns> &a = columns_.emplace_back();
    std::int64_t height = 0;
    for (const ColumnsData &c : given.a) {
      a.push_back(
          {given.per_row ? Rows{address(c.place), c.place.by_row, nullptr} : matrix(c.place),
           c.width});
      height += c.width;
    }
    outers_.push_back({span(a), height, span(list), address(given.sums), given.add_sums});
  }
  for (const ThroughData &given : binding_->throughs) {
    std::vector<Through> &list = segments_.emplace_back();
    for (const ThroughTerm &term : given.segments) {
      const auto at = static_cast<std::size_t>(term.packing);
      list.push_back({matrix(term.a), addresses_[at], binding_->packings[at].depth});
    }
    throughs_.push_back({span(list), matrix(given.c), given.width, given.vectors, given.add});
  }
}

// One thread's part of the products of steps from … to; stretches come from the last to the first.
void Job::multiply(int thread, std::int64_t from, std::int64_t to) {
  const auto at = static_cast<std::size_t>(thread);
  const Stretch rows = stretch(from, to);
  for (std::size_t k = 0; k < outers_.size(); ++k) {
    const bool per_row = binding_->outers[k].per_row;
    if (per_row && !rows.ends)
      continue;
    const Stretch all{0, binding_->rows, true, true};
    (binding_->is_double ? kernels_->outer_double : kernels_->outer_float)(
        outers_[k], per_row ? all : rows, thread, product_threads_, packed_[at], sums_[at][k]);
  }
  for (const ThroughJob &job : throughs_) {
    (binding_->is_double ? kernels_->through_double : kernels_->through_float)(job, rows, thread,
                                                                               product_threads_);
  }
}

void Job::multiply_now() {
  const auto each = [&](int thread) {
    const std::int64_t together = stretch_steps();
    for (std::int64_t k = std::max<std::int64_t>((binding_->steps + together - 1) / together, 1);
         k-- > 0;)
      multiply(thread, k * together, std::min(binding_->steps, (k + 1) * together));
  };
  if (!on_threads(product_threads_, each)) {
    for (int thread = 0; thread < product_threads_; ++thread)
      each(thread);
  }
}

} // namespace

bool was_forked() { return forked; }

std::size_t slots_bytes(const LoopPlan &view, std::size_t size) {
  const std::size_t phases = view.before.size + view.loop.size;
  return static_cast<std::size_t>(view.slots) * (view.slot_size * size + 4 * sizeof(std::int64_t)) +
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

} // namespace

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
  const auto products = [&](Job &job, int shared) {
    job.plan_products(kernels, job.work() < kWorthThreads ? 1 : shared);
  };
  if (apart && chain) {
    done = run_chain(kernels, jobs, count, std::min(threads, static_cast<int>(count)), arena);
  } else if (apart) { // each on threads of its own
    const int each = threads / static_cast<int>(count);
    for (std::size_t k = 0; k < count; ++k) {
      jobs[k].split(jobs[k].split_for(each), each);
      products(jobs[k], each);
    }
    done = run_jobs(kernels, jobs, count, arena);
  } else {
    for (std::size_t k = 0; done && k < count; ++k) {
      jobs[k].split(jobs[k].split_for(threads), threads);
      products(jobs[k], threads);
      done = run_jobs(kernels, jobs + k, 1, arena);
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
