#define HEADGATE_ISA avx512
#include "loop.inl"
#include "products.inl"

namespace headgate {
const Kernels kernels_avx512 = {"avx512",
                                avx512::kBytes,
                                avx512::kMaxVectors,
                                avx512::run<float>,
                                avx512::run<double>,
                                avx512::run_again<float>,
                                avx512::run_again<double>,
                                avx512::outer<float>,
                                avx512::outer<double>,
                                avx512::outer_scratch,
                                avx512::through<float>,
                                avx512::through<double>,
                                avx512::apply<float>,
                                avx512::apply<double>};
} // namespace headgate
