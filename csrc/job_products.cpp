#include "job.hpp"
#include "threads.hpp"

#include <algorithm>

// Products over all steps of a call, a few steps at a time.

namespace headgate {

namespace {

constexpr std::int64_t kStretchRows = 256;      // of error terms, used while they are near
constexpr std::int64_t kSumsNear = 1024 * 1024; // bytes of sums that are near again and again

} // namespace

// The valid (time, row), step by step, and (step, rank) in the same order.
void Job::list_steps() {
  const std::int64_t T = binding_->steps, N = binding_->rows;
  const bool ranked = ranks_ != nullptr;
  valid_.resize(static_cast<std::size_t>(total_));
  valid_ranks_.resize(ranked ? valid_.size() : 0);
  first_of_.resize(static_cast<std::size_t>(T + 1));
  std::size_t k = 0;
  for (std::int64_t s = 0; s < T; ++s) {
    first_of_[static_cast<std::size_t>(s)] = static_cast<std::int64_t>(k);
    for (std::int64_t n = 0; n < N; ++n) {
      if (s >= length(n))
        continue;
      valid_[k] = (binding_->reverse ? length(n) - 1 - s : s) * N + n;
      if (ranked)
        valid_ranks_[k] = s * N + ranks_[n];
      ++k;
    }
  }
  first_of_[static_cast<std::size_t>(T)] = total_;
}

// A tensor (T, N, width) as a matrix whose rows are its valid steps: in order of time where all
// rows have all steps, and else step by step.
Rows Job::matrix(const Found &f) {
  const std::int64_t T = binding_->steps, N = binding_->rows;
  const bool even = T == 1 || N == 1 || f.by_time == N * f.by_row;
  const std::int64_t stride = N == 1 ? f.by_time : f.by_row;
  if (even && call_->lengths == nullptr)
    return {address(f), stride, nullptr};
  if (even)
    return {address(f), stride, ranked(f) ? valid_ranks_.data() : valid_.data()};
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
  return std::clamp<std::int64_t>(kStretchRows * steps / std::max<std::int64_t>(total_, 1), 1,
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

void Job::plan_products(const Kernels &kernels, const std::vector<Portion> &portions) {
  kernels_ = &kernels;
  columns_.clear();
  terms_.clear();
  segments_.clear();
  outers_.clear();
  throughs_.clear();
  lists_.clear();
  if (binding_->outers.empty() && binding_->throughs.empty())
    return;
  product_portions_ = portions;
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
        outers_[k], per_row ? all : rows, product_portions_[at], packed_[at], sums_[at][k]);
  }
  for (const ThroughJob &job : throughs_) {
    (binding_->is_double ? kernels_->through_double
                         : kernels_->through_float)(job, rows, product_portions_[at]);
  }
}

void Job::multiply_now() {
  const auto each = [&](int thread) {
    const std::int64_t together = stretch_steps();
    for (std::int64_t k = std::max<std::int64_t>((binding_->steps + together - 1) / together, 1);
         k-- > 0;)
      multiply(thread, k * together, std::min(binding_->steps, (k + 1) * together));
  };
  const int threads = static_cast<int>(product_portions_.size());
  if (!on_threads(threads, each)) {
    for (int thread = 0; thread < threads; ++thread)
      each(thread);
  }
}

} // namespace headgate
