#include "stream.hpp"
#include "pace.hpp"
#include "threads.hpp"

#include <algorithm>
#include <cstring>
#include <numeric>

namespace headgate {

namespace {

constexpr std::size_t kAlign = 128;
constexpr std::size_t kRecordBytes = 64 << 10; // of a layer's step, for each thread and turn
constexpr std::int64_t kOneThread = std::int64_t(1) << 20; // bytes of weights that one thread reads

template <class T> void add(const void *from, void *to, std::int64_t count) {
  const T *a = static_cast<const T *>(from);
  T *b = static_cast<T *>(to);
  for (std::int64_t i = 0; i < count; ++i)
    b[i] += a[i];
}

} // namespace

Stream::Stream(const Kernels &kernels, bool is_double, std::int64_t rows,
               const std::vector<StreamLayer> &layers, int threads)
    : run_(is_double ? kernels.run_double : kernels.run_float),
      again_(is_double ? kernels.again_double : kernels.again_float), size_(is_double ? 8 : 4),
      rows_(rows), threads_(threads), row_numbers_(static_cast<std::size_t>(rows)),
      lengths_(static_cast<std::size_t>(rows), 1) {
  std::iota(row_numbers_.begin(), row_numbers_.end(), 0);
  const StreamLayer &bottom = layers.front();
  if (bottom.input >= 0) {
    const std::uint32_t tensor = static_cast<std::uint32_t>(bottom.input);
    input_elements_ = rows * bottom.plan->view().tensors.data[tensor].width;
    input_ = take(input_elements_);
  }
  void *input = input_;
  for (const StreamLayer &given : layers) {
    layers_.push_back(lay_out(given, input));
    input = layers_.back().output;
  }
  for (Layer &layer : layers_) { // now where they stay
    for (int turn = 0; turn < 2; ++turn) {
      for (Share &share : layer.shares[turn]) {
        share.places = layer.places[turn].data();
        share.weights = layer.weights.data();
        share.record = take(static_cast<std::int64_t>(kRecordBytes / size_));
        share.record_bytes = kRecordBytes;
      }
    }
  }
}

void *Stream::take(std::int64_t elements) {
  const std::size_t bytes = static_cast<std::size_t>(elements) * size_ + kAlign;
  memory_.push_back(std::make_unique<unsigned char[]>(bytes));
  const auto address = reinterpret_cast<std::uintptr_t>(memory_.back().get());
  return reinterpret_cast<void *>((address + kAlign - 1) / kAlign * kAlign);
}

Stream::Layer Stream::lay_out(const StreamLayer &given, void *input) {
  const LoopPlan &view = given.plan->view();
  Layer layer{};
  layer.plan = given.plan;
  layer.kept = given.weights;
  for (const auto &weight : given.weights)
    layer.weights.push_back(weight.get());
  layer.input = given.input;
  layer.states = given.states;
  layer.residual = given.residual;
  std::vector<Place> &places = layer.places[0];
  for (std::uint32_t k = 0; k < view.tensors.size; ++k) {
    const TensorSpec &spec = view.tensors.data[k];
    const StreamTensor &tensor = given.tensors[k];
    const std::int64_t width = padded(spec.width);
    Place p{{tensor.base, tensor.base}, 0, tensor.by_row, 0, 0, spec.width, 0};
    const auto own = [&](std::int64_t by_row) {
      p.base[0] = p.base[1] = take(rows_ * by_row);
      p.by_row = by_row;
    };
    const int index = static_cast<int>(k);
    if (index == given.input) {
      p.base[0] = p.base[1] = input;
      p.by_row = spec.width;
    } else if (index == given.output) {
      layer.elements = rows_ * spec.width;
      own(spec.width);
      layer.output = p.base[0];
    } else if (spec.kind == Kind::state) {
      own(width);
      p.base[1] = take(rows_ * width);
    } else if (spec.kind == Kind::partial || spec.kind == Kind::chunk_partial) {
      own(spec.panels);
      p.panels = spec.panels;
    } else if (spec.kind == Kind::chunk || tensor.base == nullptr) {
      own(width);
    }
    places.push_back(p);
  }
  layer.places[1] = places;
  for (int k : given.states) {
    Place &place = layer.places[1][static_cast<std::size_t>(k)];
    std::swap(place.base[0], place.base[1]);
  }
  const std::int64_t bytes = view.weights * static_cast<std::int64_t>(size_);
  const int parts = bytes > kOneThread ? threads_ : 1;
  layer.arrivals.resize(static_cast<std::size_t>(parts));
  const std::vector<Portion> portions = Pace().portions(0, parts, Portion::kWhole);
  for (int t = 0; t < parts; ++t) {
    Share mine = share(view);
    mine.units = portions[static_cast<std::size_t>(t)];
    mine.together = parts > 1;
    mine.arrivals = layer.arrivals.data();
    mine.thread = t;
    mine.threads = parts;
    layer.shares[0].push_back(mine);
  }
  layer.shares[1] = layer.shares[0];
  return layer;
}

Share Stream::share(const LoopPlan &view) {
  const std::int64_t per_number = 8 / static_cast<std::int64_t>(size_);
  const auto numbers = [&](std::int64_t count) {
    return static_cast<std::int64_t *>(take(count * per_number));
  };
  Share s{};
  s.plan = &view;
  s.rows = row_numbers_.data();
  s.lengths = lengths_.data();
  s.row_count = rows_;
  s.steps = s.chunk_steps = 1;
  s.time = numbers(rows_);
  s.row = numbers(rows_);
  s.step = numbers(rows_);
  s.chunk_start = numbers(1);
  s.slots = take(static_cast<std::int64_t>(slots_bytes(view, size_) / size_ + 1));
  return s;
}

// The first step of each turn is laid out and noted; from then on it is run again.
void Stream::run(Layer &layer) {
  const std::vector<Share> &shares = layer.shares[turn_];
  const int parts = static_cast<int>(shares.size());
  const bool noted = layer.noted[turn_];
  const auto work = [&](int t) {
    const Share &share = shares[static_cast<std::size_t>(t)];
    if (!noted || !again_(share))
      run_(share);
  };
  layer.noted[turn_] = true;
  if (parts == 1)
    return work(0);
  if (!was_forked() && on_threads(parts, work))
    return;
  Share alone = shares[0];
  alone.units = {};
  alone.together = false;
  layer.noted[turn_] = false;
  run_(alone);
}

void Stream::step(const void *x, void *y) {
  const void *input = x;
  if (input_elements_ > 0)
    std::memcpy(input_, x, static_cast<std::size_t>(input_elements_) * size_);
  for (Layer &layer : layers_) {
    run(layer);
    if (layer.residual && size_ == 8)
      add<double>(input, layer.output, layer.elements);
    else if (layer.residual)
      add<float>(input, layer.output, layer.elements);
    input = layer.output;
  }
  const Layer &top = layers_.back();
  std::memcpy(y, top.output, static_cast<std::size_t>(top.elements) * size_);
  turn_ ^= 1;
}

void Stream::read(std::size_t layer, std::size_t state, void *out) const {
  const Layer &from = layers_.at(layer);
  const auto index = static_cast<std::size_t>(from.states.at(state));
  const Place &place = from.places[turn_][index];
  const std::size_t bytes = place.width * size_;
  for (std::int64_t row = 0; row < rows_; ++row) {
    std::memcpy(static_cast<char *>(out) + static_cast<std::size_t>(row) * bytes,
                static_cast<const char *>(place.base[0]) +
                    static_cast<std::size_t>(row * place.by_row) * size_,
                bytes);
  }
}

void Stream::write(std::size_t layer, std::size_t state, const void *values) {
  const Layer &to = layers_.at(layer);
  const auto index = static_cast<std::size_t>(to.states.at(state));
  const Place &place = to.places[turn_][index];
  const std::size_t bytes = place.width * size_;
  for (std::int64_t row = 0; row < rows_; ++row) {
    std::memcpy(static_cast<char *>(place.base[0]) +
                    static_cast<std::size_t>(row * place.by_row) * size_,
                static_cast<const char *>(values) + static_cast<std::size_t>(row) * bytes, bytes);
  }
}

} // namespace headgate
