#include "job.hpp"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <numeric>

namespace headgate {

namespace {

constexpr std::size_t kRecordBytes = 1 << 20; // of a thread; as much is touched as a step needs

} // namespace

void Job::prepare(const Call &call, int threads) {
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

Split Job::split_for(int threads) const {
  if (threads < 2 || work() < kWorthThreads)
    return Split::none;
  const std::int64_t bytes = binding_->plan->weight_elements() * static_cast<std::int64_t>(size_);
  const bool rows_suffice = binding_->rows >= 2 * threads;
  if (rows_suffice && (bytes <= second_level_cache || binding_->rows >= 32 * threads))
    return Split::rows;
  const std::int64_t each_step = work() / std::max<std::int64_t>(binding_->steps, 1);
  if (each_step >= 30000)
    return Split::units;
  return rows_suffice ? Split::rows : Split::none;
}

std::int64_t Job::pieces(Split how) const {
  if (how == Split::rows)
    return binding_->rows;
  const LoopPlan &view = binding_->plan->view();
  std::int64_t widest = 1;
  for (std::uint32_t k = 0; k < view.loop.size; ++k)
    widest = std::max<std::int64_t>(widest, view.loop.data[k].width);
  return padded(widest) / kPad;
}

// Each thread's rows, longest first.
void Job::order_rows() {
  const auto n = static_cast<std::size_t>(binding_->rows);
  rows_.resize(n);
  std::iota(rows_.begin(), rows_.end(), 0);
  starts_.assign(1, 0);
  ranks_ = nullptr;
  if (call_->lengths != nullptr) {
    ranks_ = reinterpret_cast<std::int64_t *>(address(binding_->ranks));
    deal_rows();
  } else if (split_ == Split::rows) {
    for (const Portion &portion : portions_)
      starts_.push_back(portion.last(binding_->rows));
  } else {
    starts_.push_back(binding_->rows);
  }
  lengths_.resize(n);
  for (std::size_t r = 0; r < n; ++r)
    lengths_[r] = length(rows_[r]);
  ranks_in_order_.resize(ranks_ == nullptr ? 0 : n);
  for (std::size_t r = 0; r < ranks_in_order_.size(); ++r)
    ranks_in_order_[r] = ranks_[rows_[r]];
}

// Ragged rows. What the way back reads lies in the order of the run forward.
void Job::deal_rows() {
  const bool by_rows = split_ == Split::rows;
  std::stable_sort(rows_.begin(), rows_.end(),
                   [&](std::int64_t a, std::int64_t b) { return length(a) > length(b); });
  const std::vector<std::int64_t> sorted(rows_);
  const std::size_t threads = by_rows ? portions_.size() : 1;
  const std::vector<std::size_t> thread = threads_for(sorted, threads);
  const bool noted = ranks_ != nullptr && !binding_->plan->view().backward;
  std::int64_t done = 0; // steps
  rows_.clear();
  for (std::size_t t = 0; t < threads; ++t) {
    const std::int64_t before = done;
    for (std::size_t k = 0; k < sorted.size(); ++k) {
      if (thread[k] != t)
        continue;
      if (noted) {
        ranks_[sorted[k]] = static_cast<std::int64_t>(rows_.size());
        ranks_[binding_->rows + sorted[k]] = static_cast<std::int64_t>(t);
      }
      rows_.push_back(sorted[k]);
      done += length(sorted[k]);
    }
    if (by_rows) // what it is given in fact
      portions_[t] = {Portion::kWhole * before / total_, Portion::kWhole * done / total_};
    starts_.push_back(static_cast<std::int64_t>(rows_.size()));
  }
}

// The threads of rows, the longest first: long rows go together, so that steps are run for as many
// at a time as can be. On the way back those of the run forward, if there are as many now.
std::vector<std::size_t> Job::threads_for(const std::vector<std::int64_t> &rows,
                                          std::size_t threads) const {
  const std::size_t last = threads - 1; // has what no other takes
  std::vector<std::size_t> found(rows.size(), last);
  if (threads > 1 && ranks_ != nullptr && binding_->plan->view().backward) {
    for (std::size_t k = 0; k < rows.size(); ++k)
      found[k] = static_cast<std::size_t>(ranks_[binding_->rows + rows[k]]);
    if (*std::max_element(found.begin(), found.end()) == last)
      return found;
    std::fill(found.begin(), found.end(), last);
  }
  for (std::size_t t = 0; t < last; ++t) {
    std::int64_t room = portions_[t].last(total_) - portions_[t].first(total_); // steps
    std::size_t nearest = rows.size();
    for (std::size_t k = 0; k < rows.size(); ++k) {
      const std::int64_t steps = length(rows[k]);
      if (found[k] != last)
        continue;
      if (steps <= room) {
        found[k] = t;
        room -= steps;
      } else { // the shortest of those too long
        nearest = k;
      }
    }
    if (nearest < rows.size() && length(rows[nearest]) < 2 * room)
      found[nearest] = t;
  }
  return found;
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
    p.ranked = ranked(found);
    break;
  case Kind::vector:
    break;
  }
  return p;
}

void Job::lay_out(Arena &arena) {
  const LoopPlan &view = binding_->plan->view();
  const bool by_rows = split_ == Split::rows;
  std::int64_t local_rows = 0;
  for (std::size_t t = 0; t + 1 < starts_.size(); ++t)
    local_rows = std::max(local_rows, starts_[t + 1] - starts_[t]);
  const std::int64_t chunk_steps =
      view.before.size == 0 || chained_
          ? 16
          : std::clamp<std::int64_t>(96 / std::max<std::int64_t>(local_rows, 1), 1, 64);
  const std::int64_t chunk_rows = chunk_steps * local_rows;
  places_.resize(portions_.size());
  shares_.resize(portions_.size());
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
  for (int t = 0; t < threads(); ++t) {
    const auto at = static_cast<std::size_t>(t);
    const std::int64_t first = by_rows ? starts_[at] : 0;
    const std::int64_t last = by_rows ? starts_[at + 1] : binding_->rows;
    Share &s = shares_[at] = Share{};
    s.plan = &view;
    s.places = places_[at].data();
    s.weights = addresses_.data();
    s.rows = rows_.data() + first;
    s.lengths = lengths_.data() + first;
    s.ranks = ranks_ == nullptr ? nullptr : ranks_in_order_.data() + first;
    s.row_count = last - first;
    s.steps = s.row_count == 0 ? 0 : s.lengths[0];
    s.chunk_steps = chunk_steps;
    s.reverse = binding_->reverse;
    s.time = numbers(chunk_rows);
    s.row = numbers(chunk_rows);
    s.step = numbers(chunk_rows);
    s.rank = ranks_ == nullptr ? nullptr : numbers(chunk_rows);
    s.chunk_start = numbers(chunk_steps);
    s.slots = arena.take(slots_bytes(view, size_));
    s.record = arena.take(2 * kRecordBytes);
    s.record_bytes = kRecordBytes;
    s.seed = call_->seed;
    s.first_step = call_->first_step;
    s.streams = call_->streams;
    s.together = split_ == Split::units;
    if (s.together)
      s.units = portions_[at];
    s.arrivals = arrivals_.data();
    s.thread = t;
    s.threads = threads();
    s.all_steps = binding_->steps;
    s.stretch = product_portions_.size() == portions_.size() ? stretch_steps() : 0;
    s.context = this;
    s.after = [](void *job, int thread, std::int64_t from, std::int64_t to) {
      static_cast<Job *>(job)->multiply(thread, from, to);
    };
    s.source = chained_ ? source_ : nullptr;
    s.progress = chained_ ? &progress_ : nullptr;
  }
  packed_.clear();
  sums_.clear();
  for (const Portion &portion : product_portions_) {
    std::vector<char *> &mine = sums_.emplace_back();
    std::size_t packed = 0;
    for (const OuterJob &job : outers_) {
      const Scratch needed = kernels_->outer_scratch(job, portion);
      packed = std::max(packed, needed.packed);
      mine.push_back(static_cast<char *>(arena.take(needed.sums)));
    }
    packed_.push_back(static_cast<char *>(arena.take(packed)));
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

void Job::loop(const Kernels &kernels, int thread) {
  const auto at = static_cast<std::size_t>(thread);
  const auto began = std::chrono::steady_clock::now();
  (binding_->is_double ? kernels.run_double : kernels.run_float)(shares_[at]);
  clear_tails(thread);
  const auto all = std::chrono::steady_clock::now() - began;
  const std::chrono::nanoseconds waited(arrivals_[at].waited);
  seconds_[at] = std::chrono::duration<double>(all - waited).count();
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
}

// What lies past the ends of a thread's rows.
void Job::clear_tails(int thread) const {
  if (call_->lengths == nullptr || (split_ != Split::rows && thread > 0))
    return;
  const auto at = static_cast<std::size_t>(split_ == Split::rows ? thread : 0);
  for (const Tail &tail : binding_->tails) {
    const std::size_t bytes = static_cast<std::size_t>(tail.width) * size_;
    for (std::int64_t i = starts_[at]; i < starts_[at + 1]; ++i) {
      const auto k = static_cast<std::size_t>(i);
      for (std::int64_t t = lengths_[k]; t < binding_->steps; ++t)
        std::memset(row(tail.place, t, rows_[k]), 0, bytes);
    }
  }
}

} // namespace headgate
