// Minimal filtering F(m, 3) along one axis: the matrices of computing/winograd.py, written out as sums.
// A. Lavin and S. Gray, "Fast Algorithms for Convolutional Neural Networks", arXiv 1509.09308, sections 4.1 and 4.2.
#pragma once

#include <cstdint>
#include <type_traits>
#include <utility>

// A namespace of its own: the headers of other kernels have functions of the same names.
namespace striate::STRIATE_SET {
inline namespace tile_lanes {

constexpr int TAPS = 3;

// 1 / n in the type of a pack's numbers.
template <typename V>
constexpr auto part(int n) {
    return std::remove_reference_t<decltype(std::declval<V &>()[0])>(1) / n;
}

// Every function takes a row of packs, `s` apart, to another, `t` apart. `image`, `kernel` and `out` are the matrices
// B^T, G and A^T; the other three are their transposes.

struct F23 {
    static constexpr int OUT = 2, POINTS = 4;

    struct Image {
        static constexpr int FROM = 4, TO = 4;
        template <typename V>
        static void apply(const V *x, int64_t s, V *y, int64_t t) {
            y[0] = x[0] - x[2 * s];
            y[t] = x[s] + x[2 * s];
            y[2 * t] = x[2 * s] - x[s];
            y[3 * t] = x[s] - x[3 * s];
        }
    };
    struct Kernel {
        static constexpr int FROM = 3, TO = 4;
        template <typename V>
        static void apply(const V *x, int64_t s, V *y, int64_t t) {
            V even = (x[0] + x[2 * s]) * part<V>(2), odd = x[s] * part<V>(2);
            y[0] = x[0];
            y[t] = even + odd;
            y[2 * t] = even - odd;
            y[3 * t] = x[2 * s];
        }
    };
    struct Out {
        static constexpr int FROM = 4, TO = 2;
        template <typename V>
        static void apply(const V *x, int64_t s, V *y, int64_t t) {
            y[0] = x[0] + x[s] + x[2 * s];
            y[t] = x[s] - x[2 * s] - x[3 * s];
        }
    };
    struct OutTransposed {
        static constexpr int FROM = 2, TO = 4;
        template <typename V>
        static void apply(const V *x, int64_t s, V *y, int64_t t) {
            y[0] = x[0];
            y[t] = x[0] + x[s];
            y[2 * t] = x[0] - x[s];
            y[3 * t] = -x[s];
        }
    };
    struct KernelTransposed {
        static constexpr int FROM = 4, TO = 3;
        template <typename V>
        static void apply(const V *x, int64_t s, V *y, int64_t t) {
            V even = (x[s] + x[2 * s]) * part<V>(2);
            y[0] = x[0] + even;
            y[t] = (x[s] - x[2 * s]) * part<V>(2);
            y[2 * t] = even + x[3 * s];
        }
    };
};

struct F43 {
    static constexpr int OUT = 4, POINTS = 6;

    // The values at the points 1, -1, 2 and -2, from the even and the odd powers of 1 and of 2.
    template <typename V>
    static void pairs(V even, V odd, V even2, V odd2, V *y, int64_t t) {
        y[t] = even + odd;
        y[2 * t] = even - odd;
        y[3 * t] = even2 + odd2;
        y[4 * t] = even2 - odd2;
    }

    struct Image {
        static constexpr int FROM = 6, TO = 6;
        template <typename V>
        static void apply(const V *x, int64_t s, V *y, int64_t t) {
            V even = x[4 * s] - 4 * x[2 * s], odd = x[3 * s] - 4 * x[s];
            V even2 = x[4 * s] - x[2 * s], odd2 = 2 * (x[3 * s] - x[s]);
            y[0] = 4 * x[0] - 5 * x[2 * s] + x[4 * s];
            pairs(even, odd, even2, odd2, y, t);
            y[5 * t] = 4 * x[s] - 5 * x[3 * s] + x[5 * s];
        }
    };
    struct Kernel {
        static constexpr int FROM = 3, TO = 6;
        template <typename V>
        static void apply(const V *x, int64_t s, V *y, int64_t t) {
            V even = (x[0] + x[2 * s]) * part<V>(-6), odd = x[s] * part<V>(-6);
            V even2 = (x[0] + 4 * x[2 * s]) * part<V>(24), odd2 = x[s] * part<V>(12);
            y[0] = x[0] * part<V>(4);
            pairs(even, odd, even2, odd2, y, t);
            y[5 * t] = x[2 * s];
        }
    };
    struct Out {
        static constexpr int FROM = 6, TO = 4;
        template <typename V>
        static void apply(const V *x, int64_t s, V *y, int64_t t) {
            V even = x[s] + x[2 * s], odd = x[s] - x[2 * s];
            V even2 = x[3 * s] + x[4 * s], odd2 = x[3 * s] - x[4 * s];
            y[0] = x[0] + even + even2;
            y[t] = odd + 2 * odd2;
            y[2 * t] = even + 4 * even2;
            y[3 * t] = odd + 8 * odd2 + x[5 * s];
        }
    };
    struct OutTransposed {
        static constexpr int FROM = 4, TO = 6;
        template <typename V>
        static void apply(const V *x, int64_t s, V *y, int64_t t) {
            V even = x[0] + x[2 * s], odd = x[s] + x[3 * s];
            V even2 = x[0] + 4 * x[2 * s], odd2 = 2 * x[s] + 8 * x[3 * s];
            y[0] = x[0];
            pairs(even, odd, even2, odd2, y, t);
            y[5 * t] = x[3 * s];
        }
    };
    struct KernelTransposed {
        static constexpr int FROM = 6, TO = 3;
        template <typename V>
        static void apply(const V *x, int64_t s, V *y, int64_t t) {
            V even = (x[s] + x[2 * s]) * part<V>(-6), even2 = (x[3 * s] + x[4 * s]) * part<V>(24);
            y[0] = x[0] * part<V>(4) + even + even2;
            y[t] = (x[s] - x[2 * s]) * part<V>(-6) + (x[3 * s] - x[4 * s]) * part<V>(12);
            y[2 * t] = even + 4 * even2 + x[5 * s];
        }
    };
};

// Along both axes of a square: rows of `from` are `pitch` packs, entries of `to` are `step` packs.
template <typename M, typename V>
inline void along_both(const V *from, int64_t pitch, V *to, int64_t step) {
    V half[M::TO * M::FROM];
#pragma GCC unroll 8
    for (int j = 0; j < M::FROM; ++j) M::apply(from + j, pitch, half + j, M::FROM);
#pragma GCC unroll 8
    for (int i = 0; i < M::TO; ++i) M::apply(half + i * M::FROM, 1, to + i * M::TO * step, step);
}

}  // namespace tile_lanes
}  // namespace striate::STRIATE_SET
