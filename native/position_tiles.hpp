// Sums of products that fill the registers: results of one kind against vectors or strips of another.
#pragma once

#include <array>
#include <vector>

#include "boxes.hpp"

namespace striate::STRIATE_SET {
namespace {

using Offsets = std::vector<int64_t>;

struct Shape {
    int rows, vectors;
};

#if defined(__AVX512F__)
constexpr Shape SHAPES[] = {{1, 8}, {2, 8}, {3, 8}, {4, 6}, {6, 4}, {8, 3}, {12, 2}, {16, 1}, {8, 1}, {4, 1}, {1, 1}};
#else
constexpr Shape SHAPES[] = {{1, 8}, {2, 4}, {3, 4}, {4, 3}, {6, 2}, {4, 2}, {3, 3}, {12, 1}, {8, 1}, {4, 1}, {1, 1}};
#endif

// The shape that takes the fewest cycles: two products or two loads each, and at least the latency of a chain.
Shape best_shape(int64_t rows, int64_t vectors, bool within = false) {
    Shape best{1, 1};
    double least = 1e300;
    for (Shape shape : SHAPES) {
        if (within && shape.rows > rows) continue;
        double tile = std::max({shape.rows * shape.vectors / 2.0, (shape.rows + shape.vectors + 1) / 2.0, 4.0});
        double cycles = double(ceil_div(rows, shape.rows)) * double(ceil_div(vectors, shape.vectors)) * (tile + 0.5);
        if (cycles < least) best = shape, least = cycles;
    }
    return best;
}

// Calls `run` with the shape's numbers as constants.
template <size_t I = 0, typename Run>
void with_shape(Shape shape, Run run) {
    if constexpr (I < std::size(SHAPES)) {
        if (shape.rows == SHAPES[I].rows && shape.vectors == SHAPES[I].vectors)
            run(std::integral_constant<int, SHAPES[I].rows>{}, std::integral_constant<int, SHAPES[I].vectors>{});
        else
            with_shape<I + 1>(shape, run);
    }
}

// Memory that is wanted next: at every read of a tile, some of it is fetched.
struct Ahead {
    const char *at;
    int64_t step;
};

template <int J, int V, typename W, typename Finish>
[[gnu::always_inline]] inline void multiply(const W *const *from, const int64_t *offsets, int64_t reads,
                                            const W *weight, int64_t step, Ahead ahead, Finish finish) {
    vec<W> sums[J][V] = {};
    const W *source[V];
    for (int v = 0; v < V; ++v) source[v] = from[v];
    for (int64_t k = 0; k < reads; ++k, weight += step, ahead.at += ahead.step) {
        const int64_t offset = offsets[k];
        __builtin_prefetch(ahead.at);
        vec<W> x[V];
#pragma GCC unroll 16
        for (int v = 0; v < V; ++v) x[v] = *reinterpret_cast<const vec<W> *>(source[v] + offset);
#pragma GCC unroll 16
        for (int j = 0; j < J; ++j)
#pragma GCC unroll 16
            for (int v = 0; v < V; ++v) sums[j][v] += x[v] * weight[j];
    }
#pragma GCC unroll 16
    for (int j = 0; j < J; ++j)
#pragma GCC unroll 16
        for (int v = 0; v < V; ++v) finish(j, v, sums[j][v]);
}

// Rows of the result are stored each in a plane of its own. Weights come as [tile of rows][read][row]. `ahead` is as
// large as the weights, in elements of its step.
template <typename W>
[[gnu::noinline]] void store_tiles(Shape shape, const W *from, const Offsets &at, const Offsets &reads,
                                   const W *weights, Ahead ahead, int64_t rows, W *to, const Offsets &into,
                                   int64_t plane) {
    with_shape(shape, [&](auto J, auto V) {
        const int64_t count = reads.size(), last = int64_t(at.size()) - 1;
        for (int64_t v = 0; v <= last; v += V) {
            const W *sources[V];
            W *targets[V];
            for (int i = 0; i < V; ++i) {  // past the last, the last again
                sources[i] = from + at[std::min(v + i, last)];
                targets[i] = to + into[std::min(v + i, last)];
            }
            for (int64_t j = 0; j < rows; j += J) {
                const int64_t here = std::min<int64_t>(J, rows - j);
                const Ahead next{ahead.at + j * count * ahead.step, J * ahead.step};
                multiply<J, V>(sources, reads.data(), count, weights + j * count, J, next,
                               [&](int i, int n, vec<W> sum) {
                                   if (i < here) *reinterpret_cast<vec<W> *>(targets[n] + (j + i) * plane) = sum;
                               });
            }
        }
    });
}

// Rows of the result are added each at an offset of its own. Weights come as [read][row], `step` from read to read, and
// so does what is ahead.
template <typename W>
[[gnu::noinline]] void add_tiles(Shape shape, const W *from, const Offsets &at, const Offsets &reads, const W *weights,
                                 int64_t step, Ahead ahead, int64_t rows, W *to, const Offsets &into,
                                 const Offsets &targets) {
    with_shape(shape, [&](auto J, auto V) {
        const int64_t count = reads.size(), last = int64_t(at.size()) - 1;
        for (int64_t v = 0; v <= last; v += V) {
            const W *sources[V];
            W *results[V];
            for (int i = 0; i < V; ++i) {
                sources[i] = from + at[std::min(v + i, last)];
                results[i] = to + into[std::min(v + i, last)];
            }
            for (int64_t next = 0; next < rows; next += J) {
                const int64_t j = std::min(next, rows - J), skip = next - j;  // the last tile overlaps the one before
                const Ahead then{ahead.at + j * int64_t(sizeof(W)), ahead.step};
                multiply<J, V>(sources, reads.data(), count, weights + j, step, then, [&](int i, int n, vec<W> sum) {
                    if (i >= skip && v + n <= last)
                        *reinterpret_cast<vec<W> *>(results[n] + targets[j + i]) += sum;
                });
            }
        }
    });
}

// Sums over positions of output row j times input read q, lane by lane.
template <int J, int Q, typename W>
[[gnu::always_inline]] inline void correlate(const W *const *outputs, const W *const *inputs, const int64_t *to,
                                             const int64_t *from, int64_t positions, vec<W> (&sums)[J * Q]) {
    vec<W> held[J * Q] = {};
    const W *y[J], *x[Q];
    for (int j = 0; j < J; ++j) y[j] = outputs[j];
    for (int q = 0; q < Q; ++q) x[q] = inputs[q];
    for (int64_t v = 0; v < positions; ++v) {
        const int64_t yv = to[v], xv = from[v];
        vec<W> rows[J];
#pragma GCC unroll 16
        for (int j = 0; j < J; ++j) rows[j] = *reinterpret_cast<const vec<W> *>(y[j] + yv);
#pragma GCC unroll 16
        for (int q = 0; q < Q; ++q) {
            vec<W> read = *reinterpret_cast<const vec<W> *>(x[q] + xv);
#pragma GCC unroll 16
            for (int j = 0; j < J; ++j) held[j * Q + q] += rows[j] * read;
        }
    }
    for (int i = 0; i < J * Q; ++i) sums[i] = held[i];
}

// The sums of the lanes of up to `LANES` vectors, as one vector.
template <typename W>
inline vec<W> sums_of_lanes(const vec<W> *vectors, int64_t count) {
    vec<W> rows[LANES<W>];
    for (int i = 0; i < LANES<W>; ++i) rows[i] = i < count ? vectors[i] : vec<W>{};
    transpose<W>(rows);
    vec<W> sum = rows[0];
    for (int i = 1; i < LANES<W>; ++i) sum += rows[i];
    return sum;
}

}  // namespace
}  // namespace striate::STRIATE_SET
