#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "engine.hpp"

// Layers one on another that run one step at a time, with everything prepared beforehand.

namespace headgate {

// A tensor's memory: (N, width) by_row elements apart, or (width) with by_row 0; null for scratch.
struct StreamTensor {
  void *base;
  std::int64_t by_row;
};

struct StreamLayer {
  std::shared_ptr<const Plan> plan;  // of a forward loop
  std::vector<StreamTensor> tensors; // one for each of the plan; those below are not read
  std::vector<std::shared_ptr<const void>> weights;
  int input, output;       // which tensors are the step's x and y; -1 where the plan has none
  std::vector<int> states; // which tensors are the states
  bool residual;           // the layer's input is added to its output
};

class Stream {
public:
  // A layer whose weights exceed a core's cache shares its units among `threads`.
  Stream(const Kernels &kernels, bool is_double, std::int64_t rows,
         const std::vector<StreamLayer> &layers, int threads);
  Stream(const Stream &) = delete;
  Stream &operator=(const Stream &) = delete;

  // x: (N, I), y: (N, H), contiguous; they may overlap.
  void step(const void *x, void *y);

  // A state's values (N, width), contiguous.
  void read(std::size_t layer, std::size_t state, void *out) const;
  void write(std::size_t layer, std::size_t state, const void *values);

private:
  // A state's two buffers change places after each step, so there are two tables of places.
  struct Layer {
    std::vector<Place> places[2];
    std::vector<Share> shares[2];   // for each thread
    std::vector<Arrivals> arrivals; // of each thread
    std::shared_ptr<const Plan> plan;
    std::vector<std::shared_ptr<const void>> kept;
    std::vector<const void *> weights;
    int input;
    std::vector<int> states;
    bool residual;
    void *output;
    std::int64_t elements;          // of the output
    bool noted[2] = {false, false}; // that table's step can be run again
  };

  void *take(std::int64_t elements);
  Layer lay_out(const StreamLayer &given, void *input);
  Share share(const LoopPlan &view);
  void run(Layer &layer);

  void (*run_)(const Share &);
  bool (*again_)(const Share &);
  std::size_t size_;
  std::int64_t rows_;
  int threads_;
  std::vector<std::int64_t> row_numbers_, lengths_;
  std::vector<std::unique_ptr<unsigned char[]>> memory_;
  std::vector<Layer> layers_;
  void *input_ = nullptr; // x, where the first layer reads it
  std::int64_t input_elements_ = 0;
  int turn_ = 0; // which table reads the newest states
};

} // namespace headgate
