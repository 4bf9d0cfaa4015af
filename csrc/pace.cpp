#include "pace.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace headgate {

namespace {

constexpr double kForgets = 1e-3; // seconds of work in which half of what was known is forgotten
constexpr double kAtOnce = 1.25;  // how much a speed changes at the most: a thread may have slept

} // namespace

void Pace::know(int threads) {
  if (speeds_.size() < static_cast<std::size_t>(threads))
    speeds_.resize(static_cast<std::size_t>(threads), 1.0);
}

std::vector<Portion> Pace::portions(int first, int count, std::int64_t pieces) {
  know(first + count);
  const auto mine = speeds_.begin() + first;
  const double all = std::accumulate(mine, mine + count, 0.0);
  const auto boundary = [&](double speed) {
    const double piece = std::round(speed / all * static_cast<double>(pieces));
    return std::lround(piece / static_cast<double>(pieces) * Portion::kWhole);
  };
  std::vector<Portion> found;
  double before = 0;
  for (int t = 0; t < count; ++t) {
    const double after = before + mine[t];
    found.push_back({boundary(before), t + 1 == count ? Portion::kWhole : boundary(after)});
    before = after;
  }
  return found;
}

void Pace::note(const std::vector<Portion> &portions, const std::vector<double> &seconds) {
  know(static_cast<int>(portions.size()));
  const auto known = speeds_.begin();
  std::vector<double> speeds;
  for (std::size_t t = 0; t < portions.size(); ++t) {
    const double portion = static_cast<double>(portions[t].to - portions[t].from);
    if (portion == 0) // too little to be given any: a little more each time, until it is
      known[static_cast<std::ptrdiff_t>(t)] *= kAtOnce;
    if (portion == 0 || seconds[t] <= 0)
      return;
    speeds.push_back(portion / seconds[t]);
  }
  const auto n = static_cast<std::ptrdiff_t>(speeds.size());
  const double scale =
      std::accumulate(known, known + n, 0.0) / std::accumulate(speeds.begin(), speeds.end(), 0.0);
  const double longest = *std::max_element(seconds.begin(), seconds.end());
  const double trust = longest / (longest + kForgets);
  for (std::ptrdiff_t t = 0; t < n; ++t) {
    const double now = std::clamp(speeds[static_cast<std::size_t>(t)] * scale, known[t] / kAtOnce,
                                  known[t] * kAtOnce);
    known[t] += trust * (now - known[t]);
  }
}

} // namespace headgate
