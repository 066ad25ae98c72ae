// The types of the kernels' numbers, and how the narrow ones are widened and rounded.
#pragma once

#include <cstdint>
#include <cstring>

#include "window.hpp"

namespace striate {

// bfloat16 is a storage type: kernels widen it to float, sum in float and round once.
struct bfloat16 {
    uint16_t bits;
};

template <typename T>
struct Wide {
    using type = T;
};
template <>
struct Wide<bfloat16> {
    using type = float;
};

inline float widen(float x) { return x; }
inline double widen(double x) { return x; }
inline float widen(bfloat16 x) {
    uint32_t bits = uint32_t(x.bits) << 16;
    float value;
    std::memcpy(&value, &bits, 4);
    return value;
}

template <typename T, typename W>
inline T narrow(W x) {
    return x;
}
// To nearest, ties to even; a NaN stays one.
template <>
inline bfloat16 narrow<bfloat16, float>(float x) {
    uint32_t bits;
    std::memcpy(&bits, &x, 4);
    if ((bits & 0x7fffffffu) > 0x7f800000u) return {uint16_t(bits >> 16 | 0x40)};
    return {uint16_t((bits + 0x7fff + (bits >> 16 & 1)) >> 16)};
}

}  // namespace striate
