// Matrix products whose block of sums stays in registers. K. Goto and R. van de Geijn, "Anatomy of High-Performance
// Matrix Multiplication", ACM TOMS 34(3), 2008; here both factors are laid out by what makes them.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <utility>

#include "packs.hpp"

// A namespace of its own: the headers of other kernels have functions of the same names.
namespace striate::STRIATE_SET {
inline namespace tile_lanes {

// ROWS x COLUMNS packs of sums, a row of the right factor and one broadcast fill the registers.
constexpr int COLUMNS = 2;
#if defined(__AVX512F__)
constexpr int ROWS = 14;
#else
constexpr int ROWS = 6;
#endif

template <typename W>
constexpr int PANEL = COLUMNS * LANES<W>;  // numbers in a row of the right factor and of the result

// The left factor: entry (row r, depth k) lies at r * R + k * K; after every `run` of depth it goes on `chunk` later.
struct Left {
    int64_t run, chunk;
};

template <typename W, int N, int R, int K>
inline void few_rows(const W *left, Left lies, const W *right, int64_t depth, W *result, bool more) {
    Pack<W> sum[N][COLUMNS];
#pragma GCC unroll 16
    for (int r = 0; r < N; ++r)
#pragma GCC unroll 4
        for (int v = 0; v < COLUMNS; ++v) sum[r][v] = more ? load(result + r * PANEL<W> + v * LANES<W>) : Pack<W>{};
    for (; depth > 0; depth -= lies.run, left += lies.chunk) {
        const W *end = left + std::min(depth, lies.run) * K;
        for (const W *l = left; l != end; l += K, right += PANEL<W>) {
            Pack<W> row[COLUMNS];
#pragma GCC unroll 4
            for (int v = 0; v < COLUMNS; ++v) row[v] = load(right + v * LANES<W>);
#pragma GCC unroll 16
            for (int r = 0; r < N; ++r)
#pragma GCC unroll 4
                for (int v = 0; v < COLUMNS; ++v) sum[r][v] += l[r * R] * row[v];
        }
    }
#pragma GCC unroll 16
    for (int r = 0; r < N; ++r)
#pragma GCC unroll 4
        for (int v = 0; v < COLUMNS; ++v) store(result + r * PANEL<W> + v * LANES<W>, sum[r][v]);
}

// result (rows x PANEL) = left (rows x depth) right (depth x PANEL), or += where there is `more` of it already.
// Blocks of at most MOST rows, all nearly equal: a short last one would leave the multipliers idle.
template <typename W, int MOST, int R, int K>
void product(const W *left, Left lies, const W *right, int64_t rows, int64_t depth, W *result, bool more) {
    using Few = void (*)(const W *, Left, const W *, int64_t, W *, bool);
    static constexpr auto table = []<int... N>(std::integer_sequence<int, N...>) {
        return std::array<Few, MOST>{few_rows<W, N + 1, R, K>...};
    }(std::make_integer_sequence<int, MOST>());
    int64_t blocks = (rows + MOST - 1) / MOST;
    for (int64_t b = 0; b < blocks; ++b) {
        int64_t first = b * rows / blocks, count = (b + 1) * rows / blocks - first;
        table[count - 1](left + first * R, lies, right, depth, result + first * PANEL<W>, more);
    }
}

}  // namespace tile_lanes
}  // namespace striate::STRIATE_SET
