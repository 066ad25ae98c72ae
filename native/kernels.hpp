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
// Dense 3x3 windows of stride 1 by minimal filtering, in tiles of `outputs` x `outputs`: 2 or 4.
void winograd(const Window &window, Maps<T> input, Maps<T> output, T *weight, int outputs);

}  // namespace striate::STRIATE_SET
