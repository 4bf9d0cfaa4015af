#define HEADGATE_ISA baseline
#include "loop.inl"
#include "products.inl"

namespace headgate {
const Kernels kernels_baseline = {"baseline",
                                  baseline::kBytes,
                                  baseline::kMaxVectors,
                                  baseline::run<float>,
                                  baseline::run<double>,
                                  baseline::run_again<float>,
                                  baseline::run_again<double>,
                                  baseline::outer<float>,
                                  baseline::outer<double>,
                                  baseline::outer_scratch,
                                  baseline::through<float>,
                                  baseline::through<double>,
                                  baseline::apply<float>,
                                  baseline::apply<double>};
} // namespace headgate
