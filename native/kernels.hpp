// The kernels of one instruction set. Each solves for the tensor that the window's direction names: two of the three are
// read and the third is written whole. Weights are contiguous, in the order of Geometry.weight_shape.
// Included once for each instruction set, so there is no guard.

#include "window.hpp"

namespace striate::STRIATE_SET {

// Lanes are channels: depthwise and small groups.
template <typename T>
void channels(const Window &window, Maps<T> input, Maps<T> output, T *weight);

// Lanes are examples and strips of positions: local, tiled and small layers.
template <typename T>
void positions(const Window &window, Maps<T> input, Maps<T> output, T *weight);

// Their weights by products of matrices, unless those would leave most lanes empty: then false, and nothing is written.
template <typename T>
bool position_weights(const Window &window, Maps<T> input, Maps<T> output, T *weight);

// Dense 3x3 windows of stride 1 by minimal filtering, in tiles of `outputs` x `outputs`: 2 or 4.
template <typename T>
void winograd(const Window &window, Maps<T> input, Maps<T> output, T *weight, int outputs);

// Poolings of contiguous tensors, with the channels last or right after the batch; the divisor is a sum's, 0 the number
// of real values in each window. Forward or, a sum, input_gradient: then x is the output's gradient. With the switches
// come the values that stand there, where there is room for them.
template <typename T>
void pool(const Window &window, Reduction reduction, bool last, int64_t divisor, const T *x, void *y, T *values);

// The same for few taps and channels that are last, in floating point: the largest value (with room for marks also the
// number of the tap that holds it), the sum, or the norm.
template <typename T>
void pool_direct(const Window &window, Reduction reduction, int64_t divisor, const T *x, T *y, uint8_t *marks);

// x[i] = sum of y[o] over the windows whose mark is the tap that reads i; channels are last.
template <typename T>
void collect(const Window &window, const T *y, const uint8_t *marks, T *x);

// The gradient of norms y: x times the sum of gradient / y over the windows that read it, without those whose norm is 0;
// channels are last.
template <typename T>
void norm_gradient(const Window &window, const T *gradient, const T *y, const T *x, T *result);

// Each y added to the x that its switch names, in the order of the outputs.
template <typename T>
void spread(const Window &window, bool last, const T *y, const int64_t *switches, T *x);

}  // namespace striate::STRIATE_SET
