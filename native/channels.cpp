// Depthwise and small groups, with the channels in the lanes.
#include "kernels.hpp"
#include "lanes.hpp"

namespace striate::STRIATE_SET {

template <typename T>
void channels(const Window &window, Maps<T> input, Maps<T> output, T *weight) {
    (void)window, (void)input, (void)output, (void)weight;
}

template void channels(const Window &, Maps<float>, Maps<float>, float *);
template void channels(const Window &, Maps<double>, Maps<double>, double *);
template void channels(const Window &, Maps<bfloat16>, Maps<bfloat16>, bfloat16 *);

}  // namespace striate::STRIATE_SET
