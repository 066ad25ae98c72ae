// Vectors as wide as the registers, sweeps of them over runs of values, and the axes of a pooling.
// Included once for each instruction set.
#pragma once

#include <algorithm>
#include <type_traits>
#include <utility>
#include <vector>

#include "lanes.hpp"

namespace striate::STRIATE_SET {
namespace {

#if defined(__AVX512F__)
constexpr int REGISTER = 64;
#elif defined(__AVX2__)
constexpr int REGISTER = 32;
#else
constexpr int REGISTER = 16;
#endif

constexpr int64_t FEW = 8;           // taps that are merged one by one, whatever their overlap
constexpr int64_t SLACK = 64;        // values that a buffer has after its end, so that whole vectors may be written
constexpr int64_t BLOCK = 16 << 10;  // bytes of a row that are worked on at a time

template <typename E, int N>
struct Lanes {
    typedef E type __attribute__((vector_size(sizeof(E) * N)));
};
typedef __int128 wide_integer;
template <int N>
struct Lanes<wide_integer, N> {
    typedef wide_integer type;
};
template <typename E, int N>
using vec = typename Lanes<E, N>::type;
template <typename E>
constexpr int LANES = std::is_same_v<E, wide_integer> ? 1 : REGISTER / int(sizeof(E));

template <typename V, typename E>
inline V read(const E *at) {
    V values;
    std::memcpy(&values, at, sizeof values);
    return values;
}
template <typename V, typename E>
inline void write(E *at, V values) {
    std::memcpy(at, &values, sizeof values);
}
template <typename To, typename From>
inline To as(From values) {
    static_assert(sizeof(To) == sizeof(From));
    To bits;
    std::memcpy(&bits, &values, sizeof bits);
    return bits;
}

template <int N, typename T>
inline auto widened(const T *at) {
    if constexpr (std::is_same_v<T, bfloat16>)
        return as<vec<float, N>>(__builtin_convertvector(read<vec<uint16_t, N>>(at), vec<uint32_t, N>) << 16);
    else
        return read<vec<T, N>>(at);
}

// Calls body(lanes, vectors, j) for all of [0, n); the last vector overlaps the one before it, so a body must not read
// what it writes.
template <int N, typename Body>
inline void sweep(int64_t n, Body body) {
    if (n < N) {
        if constexpr (N > 1) sweep<N / 2>(n, body);
        return;
    }
    using One = std::integral_constant<int, 1>;
    using Four = std::integral_constant<int, 4>;
    std::integral_constant<int, N> lanes;
    int64_t j = 0;
    for (; j + 4 * N <= n; j += 4 * N) body(lanes, Four{}, j);
    for (; j + N <= n; j += N) body(lanes, One{}, j);
    if (j < n) body(lanes, One{}, n - N);
}

// One axis of what is solved for: output o reads position o * stride + tap * dilation - before; inputs stand `apart`.
struct Line {
    int64_t size, out, kernel, stride, dilation, before, apart;
    std::vector<int64_t> reads, ends;  // the inputs of each output, where they are merged one by one
    std::vector<char> again;           // whether those are the inputs of the output before

    int64_t span() const { return (out - 1) * stride + (kernel - 1) * dilation + 1; }
    bool one_by_one() const { return kernel <= FEW || kernel * out <= 4 * (span() / dilation + 1); }
    bool identity() const {
        return kernel == 1 && stride == 1 && before == 0 && apart == 1 && out == size;
    }
    // The window is one and holds all inputs.
    bool whole() const { return out == 1 && apart == 1 && dilation == 1 && before >= 0 && kernel - before >= size; }
    // The adjoint of the same.
    bool broadcast() const { return size == 1 && stride == 1 && dilation == 1 && before < kernel && out - 1 <= before; }
    bool single() const { return whole() || broadcast(); }
    int64_t index(int64_t position) const {  // -1: nothing stands there
        if (position < 0 || position % apart) return -1;
        return position / apart < size ? position / apart : -1;
    }
    void list() {
        reads.clear(), ends.assign(1, 0), again.clear();
        for (int64_t o = 0; o < out && one_by_one(); ++o) {
            for (int64_t t = 0; t < kernel; ++t)
                if (int64_t i = index(o * stride + t * dilation - before); i >= 0) reads.push_back(i);
            ends.push_back(int64_t(reads.size()));
            int64_t first = ends[o], last = ends[o + 1], former = o ? ends[o - 1] : 0;
            again.push_back(o && std::equal(reads.begin() + former, reads.begin() + first, reads.begin() + first,
                                            reads.begin() + last));
        }
    }
};

Line line_of(const Axis &axis, Direction direction) {
    int64_t extent = (axis.kernel - 1) * axis.dilation + 1;
    if (direction == Direction::forward)
        return {axis.size, axis.out, axis.kernel, axis.stride, axis.dilation, axis.before, 1, {}, {}, {}};
    return {axis.out, axis.size, axis.kernel, 1, axis.dilation, extent - 1 - axis.before, axis.stride, {}, {}, {}};
}

// How many real taps each window of an axis has.
std::vector<int64_t> real_taps(const Line &axis) {
    std::vector<int64_t> counts(axis.out);
    for (int64_t o = 0; o < axis.out; ++o)
        for (int64_t t = 0; t < axis.kernel; ++t)
            counts[o] += axis.index(o * axis.stride + t * axis.dilation - axis.before) >= 0;
    return counts;
}

}  // namespace
}  // namespace striate::STRIATE_SET
