#pragma once

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <list>
#include <memory>
#include <new>
#include <vector>

#include "engine.hpp"

// One call, prepared: its rows and memory for each thread, and the products over all its steps.

namespace headgate {

constexpr std::int64_t kWorthThreads = 400000; // multiply-adds that outweigh waking them

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

enum class Split { none, rows, units };

class Job {
public:
  void prepare(const Call &call, int threads);
  std::int64_t work() const { return binding_->plan->depth_work() * total_; }
  int threads() const { return static_cast<int>(portions_.size()); }
  Split split_for(int threads) const;
  // In how many pieces that can be done by themselves.
  std::int64_t pieces(Split how) const;

  // Products over all steps: by the threads of the loop while it goes on, or by more after it.
  void plan_products(const Kernels &kernels, const std::vector<Portion> &portions);
  bool products_wait() const {
    return !product_portions_.empty() &&
           (product_portions_.size() != portions_.size() || binding_->steps == 0);
  }
  void multiply(int thread, std::int64_t from, std::int64_t to);
  // Where the loop did not: after it.
  void multiply_now();

  // One thread, which waits for what `before` has done.
  void follow(const Job *before) {
    split(Split::none, {Portion{}});
    source_ = before == nullptr ? nullptr : &before->progress_;
    progress_ = 0;
    chained_ = true;
  }

  void split(Split how, std::vector<Portion> portions) {
    chained_ = false;
    split_ = how;
    portions_ = std::move(portions);
    product_portions_.clear();
    arrivals_.assign(portions_.size(), Arrivals{});
    seconds_.assign(portions_.size(), 0.0);
    order_rows();
  }

  // Lays out the memory of all threads; run twice, first to measure it.
  void lay_out(Arena &arena);

  void start();
  void loop(const Kernels &kernels, int thread);
  void finish();
  void release() { weights_.clear(); }
  // What each thread had of the work, and how long it worked.
  const std::vector<Portion> &portions() const { return portions_; }
  const std::vector<double> &seconds() const { return seconds_; }

private:
  char *address(const Found &f) const {
    return f.base < 0 ? nullptr
                      : static_cast<char *>(call_->bases[f.base]) +
                            f.offset * static_cast<std::int64_t>(size_);
  }
  // Values (T, N, width) of ragged rows that nobody else sees lie by step and rank, not by time and
  // row.
  bool ranked(const Found &f) const {
    return ranks_ != nullptr && f.by_time != 0 &&
           std::find(binding_->own.begin(), binding_->own.end(), f.base) != binding_->own.end();
  }
  char *row(const Found &f, std::int64_t time, std::int64_t n) const {
    const std::int64_t at = ranked(f) ? ranks_[n] : n;
    return address(f) + (time * f.by_time + at * f.by_row) * static_cast<std::int64_t>(size_);
  }
  std::int64_t length(std::int64_t n) const {
    return call_->lengths == nullptr ? binding_->steps : call_->lengths[n];
  }
  void order_rows();
  void deal_rows();
  std::vector<std::size_t> threads_for(const std::vector<std::int64_t> &rows,
                                       std::size_t threads) const;
  Place place_of(std::uint32_t tensor, Arena &arena, std::int64_t chunk_rows) const;
  void copy_states(bool into);
  void clear_tails(int thread) const;
  Rows matrix(const Found &f);
  void list_steps();
  std::int64_t stretch_steps() const;
  Stretch stretch(std::int64_t from, std::int64_t to) const;

  const Call *call_ = nullptr;
  const Binding *binding_ = nullptr;
  std::size_t size_ = 4;
  std::int64_t total_ = 0; // valid steps of all rows
  Split split_ = Split::none;
  std::vector<Portion> portions_; // by thread
  std::vector<double> seconds_;
  std::vector<std::shared_ptr<const void>> weights_;
  std::vector<const void *> addresses_;
  std::vector<std::vector<Place>> places_; // by thread
  std::vector<Share> shares_;
  std::vector<std::int64_t> rows_, lengths_, ranks_in_order_;
  std::int64_t *ranks_ = nullptr;    // by row number: each one's place in that order, then thread
  std::vector<std::int64_t> starts_; // where each thread's rows begin
  std::vector<Arrivals> arrivals_;
  const std::int64_t *source_ = nullptr;
  alignas(64) std::int64_t progress_ = 0; // steps done
  bool chained_ = false;

  // Products over all steps.
  const Kernels *kernels_ = nullptr;
  std::vector<Portion> product_portions_; // by thread; empty: there are none
  std::vector<std::vector<Columns>> columns_;
  std::vector<std::vector<Outer>> terms_;
  std::vector<std::vector<Through>> segments_;
  std::vector<OuterJob> outers_;
  std::vector<ThroughJob> throughs_;
  std::vector<std::int64_t> first_of_;         // in the lists: where each step begins
  std::vector<std::int64_t> valid_;            // numbers of the valid (time, row), step by step
  std::vector<std::int64_t> valid_ranks_;      // of the same as (step, rank)
  std::list<std::vector<std::int64_t>> lists_; // the same for matrices that lie otherwise
  std::vector<char *> packed_;                 // by thread
  std::vector<std::vector<char *>> sums_;
};

} // namespace headgate
