// How the windows of one row merge its values: tap by tap, by doubling, or all of them at once.
// Included once for each instruction set.
#pragma once

#include "pooling_merges.hpp"

namespace striate::STRIATE_SET {
namespace {

template <typename Op, bool RAW, int N, typename Source>
inline auto fetch(const Source *at, int64_t place, int lane) {
    if constexpr (RAW)
        return Op::template load<N>(at, place, lane);
    else
        return (void)place, (void)lane, read<vec<Source, N>>(at);
}

// y[j] = x[j] merged with x[j + step], ..., kernel values in all.
template <typename Op>
void slide(const typename Op::Wide *x, typename Op::Wide *y, int64_t n, int64_t kernel, int64_t step) {
    using Wide = typename Op::Wide;
    sweep<LANES<Wide>>(n, [=](auto lanes, auto vectors, int64_t j) {
        constexpr int N = lanes, V = vectors;
        vec<Wide, N> merged[V];
        for (int v = 0; v < V; ++v) merged[v] = read<vec<Wide, N>>(x + j + v * N);
        const Wide *at = x + j;
        for (int64_t t = 1; t < kernel; ++t) {
            at += step;
            for (int v = 0; v < V; ++v) merged[v] = Op::merge(merged[v], read<vec<Wide, N>>(at + v * N));
        }
        for (int v = 0; v < V; ++v) write(y + j + v * N, merged[v]);
    });
}

// The same by doubling. All three have SLACK after their ends, which may hold anything.
template <typename Op>
void slide_doubling(const typename Op::Wide *x, typename Op::Wide *y, typename Op::Wide *work, int64_t n,
                    int64_t kernel, int64_t step) {
    using Wide = typename Op::Wide;
    constexpr int N = LANES<Wide>;
    using Values = vec<Wide, N>;
    int64_t width = 1, done = 0;
    auto take = [&](const Wide *from, bool first) {
        for (int64_t j = 0; j < n; j += N)
            write(y + j, first ? read<Values>(from + j) : Op::merge(read<Values>(y + j), read<Values>(from + j)));
    };
    for (;; width *= 2) {
        if (!Op::idempotent && (kernel & width)) {
            take(x + done * step, done == 0);
            done += width;
        }
        if (2 * width > kernel) break;
        int64_t count = n + (kernel - 2 * width) * step;
        for (int64_t j = 0; j < count; j += N)  // in place from the second time on: what is read lies ahead
            write(work + j, Op::merge(read<Values>(x + j), read<Values>(x + j + width * step)));
        x = work;
    }
    if (Op::idempotent) {
        take(x, true);
        if (kernel > width) take(x + (kernel - width) * step, false);
    }
}

// Every second value of a and then of b.
template <typename V>
inline V evens(V a, V b) {
    using Index = std::conditional_t<sizeof(a[0]) == 4, int32_t, int64_t>;
    constexpr int N = sizeof(V) / sizeof(Index);
    vec<Index, N> mask{};
    for (int i = 0; i < N; ++i) mask[i] = 2 * i;
    return __builtin_shuffle(a, b, mask);
}

// Windows two positions apart; x has SLACK after its end.
template <typename Op>
void slide_by_two(const typename Op::Wide *x, typename Op::Wide *y, int64_t n, int64_t kernel, int64_t step) {
    using Wide = typename Op::Wide;
    sweep<LANES<Wide>>(n, [=](auto lanes, auto vectors, int64_t j) {
        constexpr int N = lanes, V = vectors;
        for (int v = 0; v < V; ++v, j += N) {
            if constexpr (N == 1) {
                vec<Wide, 1> merged = read<vec<Wide, 1>>(x + 2 * j);
                for (int64_t t = 1; t < kernel; ++t)
                    merged = Op::merge(merged, read<vec<Wide, 1>>(x + 2 * j + t * step));
                write(y + j, merged);
            } else {
                const Wide *at = x + 2 * j;
                auto a = read<vec<Wide, N>>(at), b = read<vec<Wide, N>>(at + N);
                for (int64_t t = 1; t < kernel; ++t) {
                    at += step;
                    a = Op::merge(a, read<vec<Wide, N>>(at)), b = Op::merge(b, read<vec<Wide, N>>(at + N));
                }
                write(y + j, evens(a, b));
            }
        }
    });
}

template <typename Op, int COUNT, typename Wide>
Wide halved(Wide *values) {
    if constexpr (COUNT > 1) {
        constexpr int HALF = COUNT / 2, N = std::min(HALF, LANES<Wide>);
        for (int i = 0; i < HALF; i += N)
            write(values + i, Op::merge(read<vec<Wide, N>>(values + i), read<vec<Wide, N>>(values + HALF + i)));
        return halved<Op, HALF>(values);
    }
    return values[0];
}

// All of n neighbours merged, 64 bytes of them at a time whatever the registers, so that every instruction set adds in
// the same order.
template <typename Op, bool RAW, typename Source>
typename Op::Wide whole(const Source *x, int64_t n, int64_t place, int lane) {
    using Wide = typename Op::Wide;
    constexpr int N = LANES<Wide>, V = std::max(1, int(64 / sizeof(Wide)) / N), STEP = N * V, CHAINS = 4;
    Wide rest[STEP];
    int64_t j = 0;
    auto step = [&](int v) { return fetch<Op, RAW, N>(x + j + v * N, place + (j + v * N) * lane, lane); };
    if (n >= STEP) {
        vec<Wide, N> merged[V];
        if (n >= CHAINS * STEP) {
            vec<Wide, N> chains[CHAINS * V];
            for (int v = 0; v < CHAINS * V; ++v) chains[v] = step(v);
            for (j = CHAINS * STEP; j + CHAINS * STEP <= n; j += CHAINS * STEP)
                for (int v = 0; v < CHAINS * V; ++v) chains[v] = Op::merge(chains[v], step(v));
            for (int v = 0; v < V; ++v)
                merged[v] = Op::merge(Op::merge(chains[v], chains[v + V]), Op::merge(chains[v + 2 * V],
                                                                                     chains[v + 3 * V]));
        } else {
            for (int v = 0; v < V; ++v) merged[v] = step(v);
            j = STEP;
        }
        for (; j + STEP <= n; j += STEP)
            for (int v = 0; v < V; ++v) merged[v] = Op::merge(merged[v], step(v));
        for (int v = 0; v < V; ++v) write(rest + v * N, merged[v]);
    } else {
        std::fill(rest, rest + STEP, Op::identity());
    }
    for (int i = 0; j < n; ++j, ++i) {
        auto value = fetch<Op, RAW, 1>(x + j, place + j * lane, lane);
        Wide one;
        std::memcpy(&one, &value, sizeof one);
        rest[i] = Op::merge(rest[i], one);
    }
    return halved<Op, STEP>(rest);
}

// Where the windows of one row are found.
template <typename Op>
class RowPass {
    using Wide = typename Op::Wide;
    const Line &axis;
    int64_t inner;
    std::vector<Wide> work;

  public:
    enum class Way { few, reduce, by_two, pick, doubling } way;

    RowPass(const Line &axis, int64_t inner) : axis(axis), inner(inner) {
        int64_t kernel = axis.kernel;
        bool apart = kernel * axis.out <= 4 * axis.span();
        if (inner == 1 && axis.dilation == 1 && kernel >= 32 && apart)
            way = Way::reduce;
        else if (axis.stride == 1 || inner > 1)
            way = kernel <= FEW || (inner > 1 && axis.stride > 1 && apart) ? Way::few : Way::doubling;
        else if (kernel <= FEW && axis.stride == 2)
            way = Way::by_two;
        else
            way = kernel <= FEW ? Way::pick : Way::doubling;
        if (way == Way::pick || way == Way::doubling) work.resize(2 * (axis.span() * inner + SLACK));
    }

    // Whether the result may be written without SLACK after its end.
    bool tidy() const { return way != Way::doubling; }

    // x begins at the first window's first tap.
    void operator()(const Wide *x, Wide *y) {
        int64_t n = axis.out * inner, step = axis.dilation * inner, starts = ((axis.out - 1) * axis.stride + 1) * inner;
        Wide *second = work.data() + work.size() / 2;
        if (way == Way::reduce) {
            for (int64_t o = 0; o < axis.out; ++o) y[o] = whole<Op, false>(x + o * axis.stride, axis.kernel, 0, 0);
        } else if (way == Way::few && axis.stride == 1) {
            slide<Op>(x, y, n, axis.kernel, step);
        } else if (way == Way::few) {
            for (int64_t o = 0; o < axis.out; ++o)
                slide<Op>(x + o * axis.stride * inner, y + o * inner, inner, axis.kernel, step);
        } else if (way == Way::by_two) {
            slide_by_two<Op>(x, y, n, axis.kernel, step);
        } else if (axis.stride == 1) {
            slide_doubling<Op>(x, y, work.data(), n, axis.kernel, step);
        } else {
            if (way == Way::pick)
                slide<Op>(x, second, starts, axis.kernel, step);
            else
                slide_doubling<Op>(x, second, work.data(), starts, axis.kernel, step);
            for (int64_t o = 0; o < axis.out; ++o)
                std::copy_n(second + o * axis.stride * inner, inner, y + o * inner);
        }
    }
};

}  // namespace
}  // namespace striate::STRIATE_SET
