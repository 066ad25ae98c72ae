// Windows of few taps over maps with the channels last, their adjoints, and sums at switches.
//
// Lanes are channels: what one position takes is merged in registers, straight from memory, and written once. Adjoints
// gather instead of scattering: each input looks at the windows that read it, in the order of the outputs.
#include <cmath>
#include <memory>

#if defined(__AVX2__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"  // in GCC's own header
#include <immintrin.h>
#pragma GCC diagnostic pop
#endif

#include "kernels.hpp"
#include "pooling_runs.hpp"
#include "threads.hpp"

namespace striate::STRIATE_SET {
namespace {

template <typename T, typename V>
inline auto narrowed(V values) {
    if constexpr (std::is_same_v<T, bfloat16>) {
        constexpr int N = sizeof(V) / 4;
        using Words = vec<uint32_t, N>;
        Words bits = as<Words>(values), rounded = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
        Words chosen = (bits & 0x7fffffff) > 0x7f800000 ? (bits >> 16 | 0x40) : rounded;
        return __builtin_convertvector(chosen, vec<uint16_t, N>);
    } else {
        return __builtin_convertvector(values, vec<T, sizeof(V) / sizeof(values[0])>);
    }
}

// Marks, and the integers beside which they are compared: GCC 12 would convert them one by one.
template <typename Bits, int N>
inline vec<Bits, N> read_marks(const uint8_t *at) {
#if defined(__AVX2__)
    if constexpr (sizeof(Bits) * N == 32 && N == 8) return as<vec<Bits, N>>(_mm256_cvtepu8_epi32(_mm_loadu_si64(at)));
    if constexpr (sizeof(Bits) * N == 32 && N == 4) return as<vec<Bits, N>>(_mm256_cvtepu8_epi64(_mm_loadu_si32(at)));
#endif
#if defined(__AVX512F__)
    if constexpr (N == 16) return as<vec<Bits, N>>(_mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)at)));
    if constexpr (sizeof(Bits) * N == 64 && N == 8) return as<vec<Bits, N>>(_mm512_cvtepu8_epi64(_mm_loadu_si64(at)));
#endif
    return __builtin_convertvector(__builtin_convertvector(read<vec<uint8_t, N>>(at), vec<uint16_t, N>), vec<Bits, N>);
}
template <typename Bits, int N>
inline void write_marks(uint8_t *at, vec<Bits, N> marks) {
#if defined(__AVX512F__)
    if constexpr (N == 16) {
        _mm_storeu_si128((__m128i *)at, _mm512_cvtepi32_epi8(as<__m512i>(marks)));
        return;
    }
    if constexpr (sizeof(Bits) * N == 64 && N == 8) {
        _mm_storeu_si64(at, _mm512_cvtepi64_epi8(as<__m512i>(marks)));
        return;
    }
#endif
    write(at, __builtin_convertvector(__builtin_convertvector(marks, vec<uint16_t, N>), vec<uint8_t, N>));
}

// What one result takes along one axis: where the first value stands, and which pattern all of them follow.
struct Taken {
    int64_t offset;  // from the first
    int64_t tap;     // of the window's, as it leads from input to output
    int64_t count;   // real taps of that window
    bool operator==(const Taken &other) const = default;
};
struct Taking {
    std::vector<int64_t> first, pattern;
    std::vector<std::vector<Taken>> patterns;
    int64_t out, size;

    // Whether a result takes what stands one further than what the result before takes.
    bool beside(int64_t o) const { return o < out && pattern[o] == pattern[o - 1] && first[o] == first[o - 1] + 1; }

    // And whether it takes the same.
    bool again(int64_t o) const { return o && pattern[o] == pattern[o - 1] && first[o] == first[o - 1]; }

    // Without numbers, what differs in the numbers of taps alone is one pattern.
    Taking(const Axis &axis, Direction direction, bool numbered) {
        bool forward = direction == Direction::forward;
        Line line = line_of(axis, direction);
        auto counts = real_taps(line_of(axis, Direction::forward));
        out = line.out, size = line.size;
        for (int64_t o = 0; o < out; ++o) {
            std::vector<Taken> taken;
            int64_t begin = 0;
            for (int64_t t = 0; t < line.kernel; ++t) {
                int64_t i = line.index(o * line.stride + t * line.dilation - line.before);
                if (i < 0) continue;
                if (taken.empty()) begin = i;
                taken.push_back({i - begin, numbered ? forward ? t : line.kernel - 1 - t : 0, counts[forward ? o : i]});
            }
            first.push_back(begin);
            pattern.push_back(std::find(patterns.begin(), patterns.end(), taken) - patterns.begin());
            if (pattern.back() == int64_t(patterns.size())) patterns.push_back(taken);
        }
    }
};

// The same over all axes, in elements.
template <typename Wide>
struct Taps {
    std::vector<int64_t> offsets, numbers;
    std::vector<Wide> divisors;
    bool alike = true;  // the divisors
    int64_t count() const { return int64_t(offsets.size()); }
};

template <typename Wide>
class Places {
    Taking axes[AXES];
    int64_t kernel[AXES], channels, divisor;

    Taps<Wide> joined(int64_t deep, int64_t high, int64_t wide) const {
        Taps<Wide> taps;
        for (auto &d : axes[0].patterns[deep])
            for (auto &h : axes[1].patterns[high])
                for (auto &w : axes[2].patterns[wide]) {
                    taps.offsets.push_back(((d.offset * axes[1].size + h.offset) * axes[2].size + w.offset) * channels);
                    taps.numbers.push_back((d.tap * kernel[1] + h.tap) * kernel[2] + w.tap);
                    taps.divisors.push_back(Wide(divisor ? divisor : d.count * h.count * w.count));
                    taps.alike = taps.alike && taps.divisors.back() == taps.divisors[0];
                }
        return taps;
    }

  public:
    Places(const Window &window, int64_t divisor, bool numbered = false)
        : axes{{window.axis[0], window.direction, numbered},
               {window.axis[1], window.direction, numbered},
               {window.axis[2], window.direction, numbered}},
          kernel{window.axis[0].kernel, window.axis[1].kernel, window.axis[2].kernel}, channels(window.in_channels),
          divisor(divisor) {}

    // Calls body(taps, from, to, length, again) with the elements at which values and results begin: those of one position, or of
    // neighbours whose values are neighbours too; `again` says that the result is the one right before.
    template <typename Body>
    void each(int64_t batch, Body body) const {
        auto &[depth, height, width] = axes;
        int64_t rows = batch * depth.out * height.out;
        struct State {
            std::vector<Taps<Wide>> across;
            int64_t deep = -1, high = -1;
        };
        on_threads<Share::even>(
            rows, rows > 1, [&] { return State{std::vector<Taps<Wide>>(width.patterns.size())}; },
            [&](State &state, int64_t row) {
                auto &[across, deep, high] = state;
                int64_t h = row % height.out, d = row / height.out % depth.out, image = row / height.out / depth.out;
                if (deep != depth.pattern[d] || high != height.pattern[h]) {
                    deep = depth.pattern[d], high = height.pattern[h];
                    for (size_t w = 0; w < across.size(); ++w) across[w] = joined(deep, high, w);
                }
                int64_t base = (image * depth.size + depth.first[d]) * height.size + height.first[h];
                for (int64_t w = 0, end; w < width.out; w = end) {
                    for (end = w + 1; !width.again(w) && width.beside(end);) ++end;
                    body(across[width.pattern[w]], (base * width.size + width.first[w]) * channels,
                         (row * width.out + w) * channels, (end - w) * channels, width.again(w));
                }
            });
    }
};

// The sum of what `value` gives for each tap, divided.
template <int N, int V, typename Wide, typename Value>
inline void add_up(const Taps<Wide> &taps, Value value, vec<Wide, N> *total) {
#pragma GCC unroll 16
    for (int v = 0; v < V; ++v) total[v] = vec<Wide, N>{};
    if (!taps.alike) {
        for (int64_t t = 0; t < taps.count(); ++t)
#pragma GCC unroll 16
            for (int v = 0; v < V; ++v) total[v] += value(t, v) / taps.divisors[t];
        return;
    }
    for (int64_t t = 0; t < taps.count(); ++t)
#pragma GCC unroll 16
        for (int v = 0; v < V; ++v) total[v] += value(t, v);
    if (!taps.count() || taps.divisors[0] == 1) return;
    Wide divisor = taps.divisors[0], inverse = 1 / divisor;
    int exponent;
    bool exact = std::abs(std::frexp(divisor, &exponent)) == Wide(0.5);
#pragma GCC unroll 16
    for (int v = 0; v < V; ++v) total[v] = exact ? total[v] * inverse : total[v] / divisor;
}

// Largest values and, where there is room for them, the numbers of the taps that hold them, the first on a tie.
template <bool MARKS, typename T>
void largest(const Window &window, const T *x, T *y, uint8_t *marks) {
    using Real = typename striate::Wide<T>::type;
    using Bits = std::conditional_t<sizeof(Real) == 4, int32_t, int64_t>;
    Places<Real>(window, 1, true).each(window.batch, [=](auto &taps, int64_t from, int64_t to, int64_t length, bool) {
        sweep<LANES<Real>>(length, [&, x = x + from, y = y + to, marks = marks + to](auto lanes, auto vectors, int64_t j) {
            constexpr int N = lanes, V = vectors;
            vec<Real, N> best[V];
            vec<Bits, N> mark[V];
#pragma GCC unroll 16
            for (int v = 0; v < V; ++v) {
                best[v] = taps.count() ? widened<N>(x + taps.offsets[0] + j + v * N) : vec<Real, N>{} - Real(INFINITY);
                mark[v] = vec<Bits, N>{} + Bits(taps.count() ? taps.numbers[0] : UINT8_MAX);
            }
            for (int64_t t = 1; t < taps.count(); ++t)
#pragma GCC unroll 16
                for (int v = 0; v < V; ++v) {
                    auto value = widened<N>(x + taps.offsets[t] + j + v * N);
                    auto wins = ~(value <= best[v]) & (best[v] == best[v]);
                    best[v] = wins ? value : best[v];
                    if constexpr (MARKS) mark[v] = wins ? vec<Bits, N>{} + Bits(taps.numbers[t]) : mark[v];
                }
#pragma GCC unroll 16
            for (int v = 0; v < V; ++v) {
                write(y + j + v * N, narrowed<T>(best[v]));
                if constexpr (MARKS) write_marks<Bits, N>(marks + j + v * N, mark[v]);
            }
        });
    });
}

// The mean of so many values that they are better read in the order in which they stand.
template <typename Real, typename T>
void long_mean(const Taps<Real> &taps, const T *x, int64_t length, Real *sums, T *y) {
    constexpr int N = LANES<Real>;
    std::fill_n(sums, length, Real(0));
    for (int64_t t = 0; t < taps.count(); ++t) {
        const T *row = x + taps.offsets[t];
        int64_t j = 0;
        for (; j + N <= length; j += N) write(sums + j, read<vec<Real, N>>(sums + j) + widened<N>(row + j));
        for (; j < length; ++j) sums[j] += widen(row[j]);
    }
    for (int64_t j = 0; j < length; ++j) y[j] = narrow<T, Real>(sums[j] / taps.divisors[0]);
}

template <typename T>
void mean(const Window &window, int64_t divisor, const T *x, T *y) {
    using Real = typename striate::Wide<T>::type;
    constexpr int64_t LONG = 32;
    Places<Real>(window, divisor).each(window.batch, [=](auto &taps, int64_t from, int64_t to, int64_t length, bool again) {
        if (again) {
            std::copy_n(y + to - length, length, y + to);
            return;
        }
        if (taps.count() > LONG && taps.alike) {
            std::vector<Real> sums(length);
            long_mean(taps, x + from, length, sums.data(), y + to);
            return;
        }
        sweep<LANES<Real>>(length, [&, x = x + from, y = y + to](auto lanes, auto vectors, int64_t j) {
            constexpr int N = lanes, V = vectors;
            vec<Real, N> total[V];
            add_up<N, V>(taps, [&](int64_t t, int v) { return widened<N>(x + taps.offsets[t] + j + v * N); }, total);
#pragma GCC unroll 16
            for (int v = 0; v < V; ++v) write(y + j + v * N, narrowed<T>(total[v]));
        });
    });
}

template <int N, typename T>
inline auto doubled(const T *at) {
    return __builtin_convertvector(widened<N>(at), vec<double, N>);
}
template <typename T, typename V>
inline auto halved(V values) {
    return narrowed<T>(__builtin_convertvector(values, vec<typename striate::Wide<T>::type, sizeof(V) / 8>));
}

// The root of the sum of squares, kept in float64.
template <typename T>
void norm(const Window &window, const T *x, T *y) {
    Places<double>(window, 1).each(window.batch, [=](auto &taps, int64_t from, int64_t to, int64_t length, bool) {
        sweep<LANES<double>>(length, [&, x = x + from, y = y + to](auto lanes, auto vectors, int64_t j) {
            constexpr int N = lanes, V = vectors;
            vec<double, N> total[V];
            auto square = [&](int64_t t, int v) {
                auto value = doubled<N>(x + taps.offsets[t] + j + v * N);
                return value * value;
            };
            add_up<N, V>(taps, square, total);
#pragma GCC unroll 16
            for (int v = 0; v < V; ++v) {
                double roots[N];
                write(roots, total[v]);
                for (double &root : roots) root = std::sqrt(root);
                write(y + j + v * N, halved<T>(read<vec<double, N>>(roots)));
            }
        });
    });
}

// total[where[o]] += from[o], in the order of o.
template <typename T, typename Wide>
void add(const T *from, const int64_t *where, int64_t n, int64_t size, Wide *total) {
    for (int64_t o = 0; o < n; ++o)
        if (uint64_t(where[o]) < uint64_t(size)) total[where[o]] += widen(from[o]);
}

// The same for channels, each of which has a column of its own.
template <typename T, typename Wide>
void add_apart(const T *from, const int64_t *where, int64_t n, int64_t size, int64_t pitch, Wide *total) {
#pragma GCC ivdep
    for (int64_t c = 0; c < n; ++c)
        if (uint64_t(where[c]) < uint64_t(size)) total[where[c] * pitch + c] += widen(from[c]);
}

// Sums at marks by adding each output where its mark says, for many taps or few channels.
template <typename T>
void scatter(Window window, const T *y, const uint8_t *marks, T *x) {
    window.direction = Direction::forward;
    auto &axis = window.axis;
    int64_t channels = window.in_channels, height = axis[1].size, width = axis[2].size;
    int64_t size = axis[0].size * height * width * channels, out = axis[0].out * axis[1].out * axis[2].out * channels;
    std::vector<int64_t> starts;  // where each tap stands, from the first
    for (int64_t d = 0; d < axis[0].kernel; ++d)
        for (int64_t h = 0; h < axis[1].kernel; ++h)
            for (int64_t w = 0; w < axis[2].kernel; ++w)
                starts.push_back(((d * axis[0].dilation * height + h * axis[1].dilation) * width + w * axis[2].dilation) *
                                 channels);
    const int64_t *start = starts.data();
    Places<T> places(window, 1, true);
    auto add = [&](int64_t batch, const T *y, const uint8_t *marks, T *x) {
        std::memset(x, 0, batch * size * sizeof(T));
        places.each(batch, [=](auto &taps, int64_t from, int64_t to, int64_t length, bool) {
            if (!taps.count()) return;
            T *first = x + from - start[taps.numbers[0]];
            for (int64_t j = 0; j < length; ++j) first[start[marks[to + j]] + j] += y[to + j];
        });
    };
    auto apart = [](const Axis &axis) { return axis.stride > (axis.kernel - 1) * axis.dilation; };
    if (std::all_of(axis, axis + AXES, apart)) {
        add(window.batch, y, marks, x);
        return;
    }
    on_threads<Share::even>(window.batch, window.batch > 1, [&](int64_t image) {
        add(1, y + image * out, marks + image * out, x + image * size);
    });
}

}  // namespace

template <typename T>
void pool_direct(const Window &window, Reduction reduction, int64_t divisor, const T *x, T *y, uint8_t *marks) {
    if (reduction == Reduction::sum)
        mean(window, divisor, x, y);
    else if (reduction == Reduction::norm)
        norm(window, x, y);
    else if (marks)
        largest<true>(window, x, y, marks);
    else
        largest<false>(window, x, y, marks);
}

template <typename T>
void collect(const Window &window, const T *y, const uint8_t *marks, T *x) {
    using Real = typename striate::Wide<T>::type;
    using Bits = std::conditional_t<sizeof(Real) == 4, int32_t, int64_t>;
    constexpr int64_t MANY = 16;
    if constexpr (std::is_same_v<T, Real>)
        if (window.in_channels < LANES<Real> || window.taps() > MANY) {
            scatter(window, y, marks, x);
            return;
        }
    Places<Real>(window, 1, true).each(window.batch, [=](auto &taps, int64_t from, int64_t to, int64_t length, bool) {
        sweep<LANES<Real>>(length, [&, y = y + from, marks = marks + from, x = x + to](auto lanes, auto vectors, int64_t j) {
            constexpr int N = lanes, V = vectors;
            vec<Real, N> total[V] = {};
            for (int64_t t = 0; t < taps.count(); ++t)
#pragma GCC unroll 16
                for (int v = 0; v < V; ++v) {
                    int64_t at = taps.offsets[t] + j + v * N;
                    auto mark = read_marks<Bits, N>(marks + at);
                    total[v] += mark == Bits(taps.numbers[t]) ? widened<N>(y + at) : vec<Real, N>{};
                }
#pragma GCC unroll 16
            for (int v = 0; v < V; ++v) write(x + j + v * N, narrowed<T>(total[v]));
        });
    });
}

template <typename T>
void norm_gradient(const Window &window, const T *gradient, const T *y, const T *x, T *result) {
    Places<double>(window, 1).each(window.batch, [=](auto &taps, int64_t from, int64_t to, int64_t length, bool) {
        sweep<LANES<double>>(length, [&](auto lanes, auto vectors, int64_t j) {
            constexpr int N = lanes, V = vectors;
            vec<double, N> total[V];
            auto slope = [&](int64_t t, int v) {
                int64_t at = from + taps.offsets[t] + j + v * N;
                auto root = doubled<N>(y + at), none = vec<double, N>{};
                return root == 0 ? none : doubled<N>(gradient + at) / root;
            };
            add_up<N, V>(taps, slope, total);
#pragma GCC unroll 16
            for (int v = 0; v < V; ++v) {
                int64_t at = to + j + v * N;
                write(result + at, halved<T>(doubled<N>(x + at) * total[v]));
            }
        });
    });
}

template <typename T>
void spread(const Window &window, bool last, const T *y, const int64_t *switches, T *x) {
    using Wide = typename striate::Wide<T>::type;
    constexpr bool rounds = !std::is_same_v<T, Wide>;
    int64_t size = 1, out = 1, channels = last ? window.in_channels : 1;
    for (auto &axis : window.axis) size *= axis.size, out *= axis.out;
    int64_t images = last ? window.batch : window.batch * window.in_channels;
    int64_t some = rounds ? std::min<int64_t>(channels, 64) : channels, slices = (channels + some - 1) / some;
    on_threads<Share::even>(
        images * slices, images * slices > 1, [&] { return std::vector<Wide>(rounds ? size * some : 0); },
        [&](std::vector<Wide> &sums, int64_t unit) {
            int64_t image = unit / slices, channel = unit % slices * some, width = std::min(some, channels - channel);
            const T *from = y + image * out * channels + channel;
            const int64_t *where = switches + image * out * channels + channel;
            T *to = x + image * size * channels + channel;
            Wide *total = sums.data();
            int64_t pitch = some;
            if constexpr (!rounds) total = to, pitch = channels;
            if (channels == 1) {
                std::fill_n(total, size, Wide(0));
                add(from, where, out, size, total);
            } else {
                for (int64_t i = 0; i < size; ++i) std::fill_n(total + i * pitch, width, Wide(0));
                for (int64_t o = 0; o < out; ++o)
                    add_apart(from + o * channels, where + o * channels, width, size, pitch, total);
            }
            if constexpr (rounds)
                for (int64_t i = 0; i < size; ++i)
                    for (int64_t c = 0; c < width; ++c) to[i * channels + c] = narrow<T, Wide>(total[i * pitch + c]);
        });
}

template void pool_direct(const Window &, Reduction, int64_t, const float *, float *, uint8_t *);
template void collect(const Window &, const float *, const uint8_t *, float *);
template void norm_gradient(const Window &, const float *, const float *, const float *, float *);
template void spread(const Window &, bool, const float *, const int64_t *, float *);
template void pool_direct(const Window &, Reduction, int64_t, const double *, double *, uint8_t *);
template void collect(const Window &, const double *, const uint8_t *, double *);
template void norm_gradient(const Window &, const double *, const double *, const double *, double *);
template void spread(const Window &, bool, const double *, const int64_t *, double *);
template void pool_direct(const Window &, Reduction, int64_t, const bfloat16 *, bfloat16 *, uint8_t *);
template void collect(const Window &, const bfloat16 *, const uint8_t *, bfloat16 *);
template void norm_gradient(const Window &, const bfloat16 *, const bfloat16 *, const bfloat16 *, bfloat16 *);
template void spread(const Window &, bool, const bfloat16 *, const int64_t *, bfloat16 *);

}  // namespace striate::STRIATE_SET
