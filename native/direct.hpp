// Depthwise windows and groups as wide as a vector, or a power of two narrower, over maps whose channels lie next to each
// other: such maps are read as they lie. Compiled once for each instruction set.
#pragma once

#include "window.hpp"

namespace striate::STRIATE_SET {

// Forward or the gradient of the input; false, and nothing is done, where the maps lie otherwise.
template <typename T>
bool direct(const Window &window, const Maps<T> &input, const Maps<T> &output, const T *weight);

}  // namespace striate::STRIATE_SET
