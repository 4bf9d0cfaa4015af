#define HEADGATE_ISA avx2
#include "loop.inl"
#include "products.inl"

namespace headgate {
const Kernels kernels_avx2 = {"avx2",
                              avx2::kBytes,
                              avx2::kMaxVectors,
                              avx2::run<float>,
                              avx2::run<double>,
                              avx2::run_again<float>,
                              avx2::run_again<double>,
                              avx2::outer<float>,
                              avx2::outer<double>,
                              avx2::outer_scratch,
                              avx2::through<float>,
                              avx2::through<double>,
                              avx2::apply<float>,
                              avx2::apply<double>};
} // namespace headgate
