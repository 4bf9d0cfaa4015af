#pragma once

#include <vector>

#include "loop.hpp"

namespace headgate {

// How fast each thread of a pool was of late. Cores differ, and so does what else runs on them: who
// was faster is given more, so that all are done at the same time.
class Pace {
public:
  // The portions of threads first … first + count, in whole pieces.
  std::vector<Portion> portions(int first, int count, std::int64_t pieces);

  // The seconds that all threads took for theirs. A second counts for more than a millisecond.
  void note(const std::vector<Portion> &portions, const std::vector<double> &seconds);

private:
  void know(int threads);

  std::vector<double> speeds_; // of each thread, against the others
};

} // namespace headgate
