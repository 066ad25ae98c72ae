// What every kernel is told: the window, as in geometry.py, and where the three tensors lie.
#pragma once

#include <cstdint>

namespace striate {

// Windows of fewer axes have leading axes of one position and one tap.
constexpr int AXES = 3;

enum class Direction { forward, input_gradient, weight_gradient };

// What a pooling makes of a window: its largest value, that value's place, the sum, or the root of the sum of squares.
enum class Reduction { maximum, switches, sum, norm };

// Output o reads input o * stride + tap * dilation - before; the weights repeat after `period` outputs.
// `before` may be negative, which crops; what lies outside [0, size) is 0.
struct Axis {
    int64_t size, out, kernel, stride, dilation, before, period;
};

struct Window {
    Axis axis[AXES];
    int64_t batch, in_channels, out_channels, groups;
    Direction direction;
    int64_t taps() const { return axis[0].kernel * axis[1].kernel * axis[2].kernel; }
};

// A tensor (N, C, *positions) by its address and its strides, counted in elements.
template <typename T>
struct Maps {
    T *data;
    int64_t batch, channel, step[AXES];
};

}  // namespace striate
