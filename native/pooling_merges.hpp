// What the windows of a pooling merge, one value with another.
// Included once for each instruction set.
#pragma once

#include <cmath>
#include <limits>

#include "pooling_runs.hpp"

namespace striate::STRIATE_SET {
namespace {

// `load` takes values from a tensor, `store` finishes them; `place` is the flat position of the first lane, `lane` the
// places from one lane to the next.

template <typename T>
struct Sum {
    using Wide = typename striate::Wide<T>::type;
    using Out = T;
    static constexpr bool idempotent = false, plain = std::is_same_v<T, Wide>;
    static Wide identity() { return 0; }
    template <int N>
    static vec<Wide, N> load(const T *at, int64_t, int) {
        return widened<N>(at);
    }
    template <typename V>
    static V merge(V a, V b) {
        return a + b;
    }
    static Out finish(Wide value, Wide divisor) { return narrow<T, Wide>(value / divisor); }
};

// The root of the sum of squares, kept in float64.
template <typename T>
struct Norm {
    using Wide = double;
    using Out = T;
    static constexpr bool idempotent = false, plain = false;
    static Wide identity() { return 0; }
    template <int N>
    static vec<Wide, N> load(const T *at, int64_t, int) {
        auto values = __builtin_convertvector(widened<N>(at), vec<Wide, N>);
        return values * values;
    }
    template <typename V>
    static V merge(V a, V b) {
        return a + b;
    }
    static Out finish(Wide value, Wide) { return narrow<T>(typename striate::Wide<T>::type(std::sqrt(value))); }
};

template <typename T>
struct Largest {
    using Wide = typename striate::Wide<T>::type;
    using Out = T;
    static constexpr bool idempotent = true, plain = std::is_same_v<T, Wide>;
    static Wide identity() { return -INFINITY; }
    template <int N>
    static vec<Wide, N> load(const T *at, int64_t, int) {
        return widened<N>(at);
    }
    template <typename V>
    static V merge(V a, V b) {  // a NaN is larger than all
        V larger = a > b ? a : b;
        return a != a ? a : larger;
    }
    static Out finish(Wide value, Wide) { return narrow<T, Wide>(value); }
};

// A value and its place in one integer: the larger integer is the larger value and, on a tie, the earlier place; a NaN
// is larger than all. Merging is then one maximum of integers in any order.
template <typename T>
struct First {
    using Real = typename striate::Wide<T>::type;
    using Bits = std::conditional_t<sizeof(Real) == 4, int32_t, int64_t>;
    using Wide = std::conditional_t<sizeof(Real) == 4, int64_t, wide_integer>;
    using Out = int64_t;
    static constexpr bool idempotent = true, plain = false;
    static constexpr int BITS = 8 * sizeof(Bits);
    static constexpr Bits TOP = std::numeric_limits<Bits>::max();
    static Wide identity() { return Wide(1) << (2 * BITS - 1); }
    // Larger for larger values; the same for -0 and 0, and for any NaN.
    template <typename V, typename K>
    static K key(V values, K bits) {
        bits = values == 0 ? K{} : values != values ? K{} + TOP : bits;
        return bits ^ ((bits >> (BITS - 1)) & TOP);
    }
    template <int N>
    static vec<Wide, N> load(const T *at, int64_t place, int lane) {
        if constexpr (sizeof(Real) == 4) {
            auto values = widened<N>(at);
            vec<Wide, N> before{};
            for (int i = 0; i < N; ++i) before[i] = i * lane;
            auto keys = __builtin_convertvector(key(values, as<vec<Bits, N>>(values)), vec<Wide, N>);
            return (keys << BITS) + (Wide(uint32_t(-1)) - place - before);
        } else {
            Bits bits = key(*at, as<Bits>(*at));
            return Wide((unsigned __int128)(bits) << BITS | ~uint64_t(place));
        }
    }
    // The same for N rows' largest values, found by comparison, and their places.
    template <int N>
    static void store(Wide *out, vec<Real, N> values, vec<Bits, N> places) {
        auto high = key(values, as<vec<Bits, N>>(values)), low = ~places;
        if constexpr (N == 1) {
            *out = Wide(high[0]) << BITS | uint32_t(low[0]);
        } else {
            vec<Bits, N> head{}, tail{};
            for (int i = 0; i < N; ++i) head[i] = i / 2 + i % 2 * N, tail[i] = head[i] + N / 2;
            write(out, __builtin_shuffle(low, high, head));
            write(out + N / 2, __builtin_shuffle(low, high, tail));
        }
    }
    template <typename V>
    static V merge(V a, V b) {
        return a > b ? a : b;
    }
    static Out finish(Wide value, Wide) { return Bits(~value); }  // -1 where a window reads nothing
};

}  // namespace
}  // namespace striate::STRIATE_SET
