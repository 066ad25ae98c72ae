// Windows of maxima and of sums, and the adjoints of both, one axis after another.
//
// A window merges values by an operation that is associative and never takes a value back (no difference of running
// sums), so that nothing cancels and a NaN stays with the windows that read it. Rows of a plane are merged first, straight
// from memory into a row that stays in cache, then the neighbours within that row. Long windows are merged by blocks from
// both ends (M. van Herk, "A fast algorithm for local minimum and maximum filters on rectangular and octagonal kernels",
// 1992; J. Gil and M. Werman, "Computing 2-D min, median, and max filters", 1993) or, within a row, by doubling: windows
// of 1, 2, 4, ... taps at every position. Adjoints of sums are sums too, over outputs set `stride` apart.
#include <algorithm>
#include <cmath>
#include <memory>
#include <numeric>
#include <type_traits>
#include <utility>
#include <vector>

#include "kernels.hpp"
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

// ------------------------------------------------------------------------------------------------ what windows merge
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

// ---------------------------------------------------------------------------------------------------- runs of values

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

// How the values of a row, or of a plane of rows, lie in a tensor: runs of `length` neighbours.
struct Run {
    int64_t rows, row_pitch, row_place, count, pitch, place, length;
    int lane;
    int64_t total() const { return rows * count * length; }
};

template <typename Op, bool RAW, int N, typename Source>
inline auto fetch(const Source *at, int64_t place, int lane) {
    if constexpr (RAW)
        return Op::template load<N>(at, place, lane);
    else
        return (void)place, (void)lane, read<vec<Source, N>>(at);
}

// The same for the first of the largest values of rows in the order of their places: comparing takes half the
// instructions of merging pairs.
template <typename Op, typename T>
void first_of_rows(const T *const *rows, const int64_t *places, int64_t taps, const Run &run, typename Op::Wide *out) {
    using Real = typename Op::Real;
    using Bits = typename Op::Bits;
    for (int64_t r = 0; r < run.rows; ++r)
        for (int64_t c = 0; c < run.count; ++c, out += run.length) {
            int64_t offset = r * run.row_pitch + c * run.pitch, place = r * run.row_place + c * run.place;
            sweep<LANES<Real>>(run.length, [&](auto lanes, auto vectors, int64_t j) {
                constexpr int N = lanes, V = vectors;
                vec<Real, N> best[V];
                vec<Bits, N> from[V], across{};
                for (int i = 0; i < N; ++i) across[i] = i * run.lane;
                for (int v = 0; v < V; ++v) {
                    best[v] = widened<N>(rows[0] + offset + j + v * N);
                    from[v] = vec<Bits, N>{} + Bits(places[0]);
                }
                for (int64_t t = 1; t < taps; ++t)
                    for (int v = 0; v < V; ++v) {
                        auto value = widened<N>(rows[t] + offset + j + v * N);
                        auto wins = ~(value <= best[v]) & (best[v] == best[v]);
                        best[v] = wins ? value : best[v];
                        from[v] = wins ? vec<Bits, N>{} + Bits(places[t]) : from[v];
                    }
                for (int v = 0; v < V; ++v, j += N)
                    Op::template store<N>(out + j, best[v], from[v] + Bits(place + j * run.lane) + across);
            });
        }
}

// out[j] = rows[0][j] merged with rows[1][j], ...; many rows are merged by blocks, so that sums keep their digits.
template <typename Op, bool RAW, typename Source>
void merge_rows(const std::vector<const Source *> &rows, const std::vector<int64_t> &places, const Run &run,
                typename Op::Wide *out) {
    using Wide = typename Op::Wide;
    constexpr int64_t MANY = 64;
    int64_t taps = int64_t(rows.size());
    if (taps == 0) {
        std::fill(out, out + run.total(), Op::identity());
        return;
    }
    if constexpr (RAW && std::is_same_v<Wide, int64_t>) {
        first_of_rows<Op>(rows.data(), places.data(), taps, run, out);
        return;
    }
    for (int64_t r = 0; r < run.rows; ++r)
        for (int64_t c = 0; c < run.count; ++c, out += run.length) {
            int64_t offset = r * run.row_pitch + c * run.pitch, place = r * run.row_place + c * run.place;
            sweep<LANES<Wide>>(run.length, [&](auto lanes, auto vectors, int64_t j) {
                constexpr int N = lanes, V = vectors;
                auto row = [&](int64_t t, int v) {
                    int64_t at = j + v * N;
                    return fetch<Op, RAW, N>(rows[t] + offset + at, places[t] + place + at * run.lane, run.lane);
                };
                vec<Wide, N> whole[V], part[V];
                for (int v = 0; v < V; ++v) whole[v] = row(0, v);
                for (int64_t t = 1; t < std::min(taps, MANY); ++t)
                    for (int v = 0; v < V; ++v) whole[v] = Op::merge(whole[v], row(t, v));
                for (int64_t first = MANY; first < taps; first += MANY) {
                    for (int v = 0; v < V; ++v) part[v] = row(first, v);
                    for (int64_t t = first + 1; t < std::min(taps, first + MANY); ++t)
                        for (int v = 0; v < V; ++v) part[v] = Op::merge(part[v], row(t, v));
                    for (int v = 0; v < V; ++v) whole[v] = Op::merge(whole[v], part[v]);
                }
                for (int v = 0; v < V; ++v) write(out + j + v * N, whole[v]);
            });
        }
}

// ------------------------------------------------------------------------------------------------------ along an axis

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

template <typename Op>
struct Buffers {
    using Wide = typename Op::Wide;
    std::vector<Wide> suffixes, prefixes[2];
};

// Merges rows over the windows of one axis; each result stands in `room` when sink(o, again) is called, where `again`
// says that it is the one before.
template <typename Op, bool RAW, typename Source, typename Sink>
void along(const Line &axis, const Source *base, int64_t pitch, int64_t origin, int64_t place, const Run &run,
           Buffers<Op> &buffers, typename Op::Wide *room, Sink sink) {
    using Wide = typename Op::Wide;
    std::vector<const Source *> rows;
    std::vector<int64_t> places;
    if (axis.one_by_one()) {
        for (int64_t o = 0; o < axis.out; ++o) {
            if (!axis.again[o]) {
                rows.clear(), places.clear();
                for (int64_t r = axis.ends[o]; r < axis.ends[o + 1]; ++r) {
                    rows.push_back(base + axis.reads[r] * pitch);
                    places.push_back(origin + axis.reads[r] * place);
                }
                merge_rows<Op, RAW>(rows, places, run, room);
            }
            sink(o, bool(axis.again[o]));
        }
        return;
    }
    int64_t length = run.total(), kernel = axis.kernel, common = std::gcd(axis.stride, axis.dilation);
    int64_t classes = axis.dilation / common, hop = axis.stride / common;
    Run flat{1, 0, 0, 1, 0, 0, length, 0};
    buffers.suffixes.resize(kernel * length);
    for (auto &prefix : buffers.prefixes) prefix.resize(length);
    std::vector<const Wide *> suffix(kernel), both;
    const std::vector<int64_t> nowhere(2);
    // What stands so far merged with the row at a position, if there is one.
    auto joined = [&](const Wide *sofar, int64_t position, Wide *to) -> const Wide * {
        int64_t i = axis.index(position);
        if (i < 0) return sofar;
        rows.assign(1, base + i * pitch), places.assign(1, origin + i * place);
        if (!sofar) {
            merge_rows<Op, RAW>(rows, places, run, to);
            return to;
        }
        const Source *row = rows[0];
        const Wide *old = sofar;
        Wide *next = to;
        for (int64_t r = 0; r < run.rows; ++r)
            for (int64_t c = 0; c < run.count; ++c, old += run.length, next += run.length) {
                const Source *at = row + r * run.row_pitch + c * run.pitch;
                int64_t here = places[0] + r * run.row_place + c * run.place;
                sweep<LANES<Wide>>(run.length, [&](auto lanes, auto vectors, int64_t j) {
                    constexpr int N = lanes, V = vectors;
                    for (int v = 0; v < V; ++v, j += N)
                        write(next + j, Op::merge(read<vec<Wide, N>>(old + j),
                                                  fetch<Op, RAW, N>(at + j, here + j * run.lane, run.lane)));
                });
            }
        return to;
    };
    for (int64_t one = 0; one < classes && one < axis.out; ++one) {
        int64_t outputs = (axis.out - one + classes - 1) / classes, start = one * axis.stride - axis.before;
        for (int64_t m = 0; m < outputs;) {
            int64_t block = m * hop / kernel * kernel;
            const Wide *sofar = nullptr;
            for (int64_t i = kernel - 1; i >= 0; --i) {
                sofar = joined(sofar, start + (block + i) * axis.dilation, &buffers.suffixes[i * length]);
                suffix[i] = sofar;
            }
            sofar = nullptr;
            for (int64_t i = 0; i < kernel && m < outputs; ++i) {
                if (m * hop == block + i) {
                    both.clear();
                    for (auto part : {suffix[i], sofar})
                        if (part) both.push_back(part);
                    merge_rows<Op, false>(both, nowhere, flat, room);
                    sink(one + m * classes, false);
                    ++m;
                }
                Wide *next = buffers.prefixes[sofar == buffers.prefixes[0].data()].data();
                sofar = joined(sofar, start + (block + kernel + i) * axis.dilation, next);
            }
        }
    }
}

// --------------------------------------------------------------------------------------------------------- in a row

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

// ------------------------------------------------------------------------------------------------------------ planes

Line line_of(const Axis &axis, Direction direction) {
    int64_t extent = (axis.kernel - 1) * axis.dilation + 1;
    if (direction == Direction::forward)
        return {axis.size, axis.out, axis.kernel, axis.stride, axis.dilation, axis.before, 1, {}, {}, {}};
    return {axis.out, axis.size, axis.kernel, 1, axis.dilation, extent - 1 - axis.before, axis.stride, {}, {}, {}};
}

// The part of an axis that outputs [first, last) read; returns its first input.
int64_t part_of(const Line &axis, int64_t first, int64_t last, Line &part) {
    int64_t low = first * axis.stride - axis.before;
    int64_t high = (last - 1) * axis.stride - axis.before + (axis.kernel - 1) * axis.dilation;
    int64_t begin = std::clamp<int64_t>(low <= 0 ? 0 : (low + axis.apart - 1) / axis.apart, 0, axis.size);
    int64_t end = std::clamp<int64_t>(high < 0 ? 0 : high / axis.apart + 1, begin, axis.size);
    part = axis;
    part.size = end - begin, part.out = last - first;
    part.before = axis.before - first * axis.stride + begin * axis.apart;
    return begin;
}

// How many real taps each window of an axis has.
std::vector<int64_t> real_taps(const Line &axis) {
    std::vector<int64_t> counts(axis.out);
    for (int64_t o = 0; o < axis.out; ++o)
        for (int64_t t = 0; t < axis.kernel; ++t)
            counts[o] += axis.index(o * axis.stride + t * axis.dilation - axis.before) >= 0;
    return counts;
}

template <typename Op, typename T>
class Pooling {
    using Wide = typename Op::Wide;
    using Out = typename Op::Out;
    static constexpr bool places = std::is_same_v<Out, int64_t>;
    Line axes[AXES];
    int64_t batch, channels, divisor;
    bool last;
    std::vector<int64_t> counts[AXES];

  public:
    Pooling(const Window &window, bool last, int64_t divisor)
        : batch(window.batch), channels(window.in_channels), divisor(divisor), last(last) {
        for (int a = 0; a < AXES; ++a) {
            axes[a] = line_of(window.axis[a], window.direction);
            if (divisor == 0) counts[a] = real_taps(axes[a]);
        }
        join();
        for (int a = 0; a < AXES - 1; ++a) axes[a].list();
    }

    // Where there is room for values, what stands at the switches is written too.
    void operator()(const T *x, Out *y, T *values = nullptr) const {
        const Line &width = axes[2];
        int64_t room = BLOCK / sizeof(Wide), extent = width.kernel * width.dilation;
        int64_t inner = last ? channels : 1, columns = std::min(width.span(), 4 * extent);
        int64_t some = std::min(inner, std::max<int64_t>(64, room / columns / 64 * 64));
        int64_t outputs = std::max((room / some - extent) / width.stride, 4 * extent / width.stride + 1);
        int64_t parts = (width.out + outputs - 1) / outputs, slices = (inner + some - 1) / some;
        int64_t images = last ? batch : batch * channels;
        int64_t size = inner * volume(false), out = inner * volume(true);
        if (!last && !places && axes[2].single() && axes[0].identity() && axes[1].identity() && divisor) {
#pragma omp parallel for schedule(static)
            for (int64_t image = 0; image < images; ++image) rows_of_one(x + image * size, y + image * out);
            return;
        }
#pragma omp parallel
        {
            std::unique_ptr<Block> block;  // serves all images that a thread sees one after another
#pragma omp for schedule(static)
            for (int64_t unit = 0; unit < images * slices * parts; ++unit) {
                int64_t image = unit % images, channel = unit / images % slices * some;
                int64_t first = unit / images / slices * outputs, channels = std::min(some, inner - channel);
                if (!block || block->first != first || block->some != channels)
                    block = std::make_unique<Block>(*this, channels, inner, first, std::min(first + outputs, width.out));
                block->run(x + image * size + channel, y + image * out + channel,
                           values ? values + image * out + channel : nullptr);
            }
        }
    }

  private:
    int64_t volume(bool out) const {
        int64_t product = 1;
        for (auto &axis : axes) product *= out ? axis.out : axis.size;
        return product;
    }

    // Axes over which one window is all there is are one axis: the last, or where channels are last the one before.
    void join() {
        auto all = [&](auto test) { return std::all_of(axes, axes + AXES, test); };
        if (places || divisor == 0) return;
        bool forward = all([](const Line &a) { return a.whole(); });
        if (!forward && !all([](const Line &a) { return a.broadcast(); })) return;
        int64_t n = volume(!forward);
        Line one{1, 1, 1, 1, 1, 0, 1, {}, {}, {}};
        for (auto &axis : axes) axis = one;
        Line &joined = axes[last ? 1 : 2];
        joined.kernel = n, joined.size = forward ? n : 1, joined.out = forward ? 1 : n;
        joined.before = forward ? 0 : n - 1;
    }

    // Rows whose one window is all of the row, and the adjoint of that.
    void rows_of_one(const T *x, Out *y) const {
        const Line &width = axes[2];
        for (int64_t r = 0; r < axes[0].out * axes[1].out; ++r)
            if (width.out == 1) {
                y[r] = Op::finish(whole<Op, true>(x + r * width.size, width.size, r * width.size, 1), Wide(divisor));
            } else {
                std::fill_n(y + r * width.out, width.out, Op::finish(whole<Op, true>(x + r, 1, r, 1), Wide(divisor)));
            }
    }

    // What one thread works on: some channels of some columns, all rows.
    struct Block {
        const Pooling &pooling;
        Line width;
        int64_t some, inner, first, begin, left;
        RowPass<Op> pass;
        std::vector<Wide> row, compact, result, plane, divisors;
        Buffers<Op> tall, deep;
        const T *image = nullptr;
        const Out *origin = nullptr;
        T *found = nullptr;

        Block(const Pooling &pooling, int64_t some, int64_t inner, int64_t first, int64_t end)
            : pooling(pooling), some(some), inner(inner), first(first),
              begin(part_of(pooling.axes[2], first, end, width)), left(std::max<int64_t>(width.before, 0)),
              pass(width, some) {
            int64_t columns = std::max(left + width.size * width.apart, left - width.before + width.span());
            row.assign(columns * some + SLACK, Op::identity());
            if (width.apart > 1) compact.resize(width.size * some);
            result.resize(width.out * some + SLACK);
            divisors.resize(width.out * some, Wide(pooling.divisor));
            for (int64_t j = 0; j < width.out * some && pooling.divisor == 0; ++j)
                divisors[j] = Wide(pooling.counts[2][first + j / some]);
        }

        Run run_of(int64_t rows) const {
            int64_t across = pooling.axes[2].size;
            if (inner > 1 && (places || some < inner))
                return {rows, across * inner, across, width.size, inner, 1, some, 0};
            if (inner == 1 && width.size == across) return {1, 0, 0, 1, 0, 0, rows * across, 1};
            return {rows, across * inner, across, 1, 0, 0, width.size * some, inner == 1};
        }

        // All begin at the first of the channels.
        void run(const T *x, Out *y, T *values) {
            image = x, origin = y, found = values;
            x += begin * inner, y += first * inner;
            const Line &depth = pooling.axes[0], &height = pooling.axes[1];
            int64_t pitch = pooling.axes[2].size * inner, across = pooling.axes[2].size;
            Wide *room = width.apart > 1 ? compact.data() : row.data() + left * some;
            Run lying = run_of(1);
            int64_t rows = height.out * pooling.axes[2].out * inner;
            if (depth.identity()) {
                for (int64_t d = 0; d < depth.out; ++d)
                    along<Op, true>(height, x + d * height.size * pitch, pitch, d * height.size * across + begin, across,
                                    lying, tall, room, [&](int64_t o, bool again) { row_done(y + d * rows, d, o, again); });
                return;
            }
            int64_t length = width.size * some;
            plane.resize(height.size * length);
            Run packed{1, 0, 0, 1, 0, 0, length, 0};
            along<Op, true>(depth, x, height.size * pitch, begin, height.size * across, run_of(height.size), deep,
                            plane.data(), [&](int64_t d, bool) {
                                along<Op, false>(height, plane.data(), length, 0, 0, packed, tall, room,
                                                 [&](int64_t o, bool again) { row_done(y + d * rows, d, o, again); });
                            });
        }

        // A row of merged rows stands in the buffer: merge its neighbours and write them to row o of the result.
        void row_done(Out *y, int64_t d, int64_t o, bool again) {
            int64_t pitch = pooling.axes[2].out * inner, n = width.out * some;
            y += o * pitch;
            bool dense = some == inner && (inner == 1 || !found);
            if (again && dense && pooling.divisor) {
                std::copy_n(y - pitch, n, y);
                return;
            }
            if (width.apart > 1) spread_row();
            const Wide *x = row.data() + (left - width.before) * some;
            if constexpr (Op::plain)
                if (dense && pooling.divisor && pass.tidy()) {
                    pass(x, y);
                    if (pooling.divisor != 1) finish(y, divisors.data(), 1, n, y);
                    return;
                }
            pass(x, result.data());
            Wide scale = pooling.divisor ? 1 : Wide(pooling.counts[0][d] * pooling.counts[1][o]);
            int64_t runs = dense ? 1 : width.out, length = n / runs;
            for (int64_t r = 0; r < runs; ++r) {
                finish(&result[r * length], &divisors[r * length], scale, length, y + r * inner);
                if constexpr (places)
                    if (found) select(y + r * inner, found + (y + r * inner - origin), length);
            }
        }

        // What stands at the switches.
        void select(const Out *switches, T *values, int64_t n) const {
            int64_t pitch = inner, step = inner > 1;
            const T *from = image;
#pragma GCC ivdep
            for (int64_t j = 0; j < n; ++j) {
                int64_t place = switches[j] < 0 ? 0 : switches[j];  // -1 where a window reads nothing
                values[j] = from[place * pitch + j * step];
            }
        }

        // In place or not.
        void finish(const Wide *x, const Wide *divisors, Wide scale, int64_t n, Out *y) {
            if constexpr (std::is_floating_point_v<Wide>)
                if (int64_t whole = pooling.divisor; whole > 0 && (whole & (whole - 1)) == 0) {
                    Wide exact = 1 / Wide(whole);
#pragma GCC ivdep
                    for (int64_t j = 0; j < n; ++j) y[j] = Op::finish(x[j] * exact, 1);
                    return;
                }
#pragma GCC ivdep
            for (int64_t j = 0; j < n; ++j) y[j] = Op::finish(x[j], divisors[j] * scale);
        }

        void spread_row() {
            const Wide *from = compact.data();
            Wide *to = row.data() + left * some;
            int64_t step = width.apart * some;
            if (some == 1)
                for (int64_t i = 0; i < width.size; ++i) to[i * step] = from[i];
            else
                for (int64_t i = 0; i < width.size; ++i) std::copy_n(from + i * some, some, to + i * step);
        }
    };
};

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

}  // namespace

template <typename T>
void pool(const Window &window, Reduction reduction, bool last, int64_t divisor, const T *x, void *y, T *values) {
    if (reduction == Reduction::maximum)
        Pooling<Largest<T>, T>(window, last, 1)(x, static_cast<T *>(y));
    else if (reduction == Reduction::switches)
        Pooling<First<T>, T>(window, last, 1)(x, static_cast<int64_t *>(y), values);
    else if (reduction == Reduction::norm)
        Pooling<Norm<T>, T>(window, last, 1)(x, static_cast<T *>(y));
    else
        Pooling<Sum<T>, T>(window, last, divisor)(x, static_cast<T *>(y));
}

template <typename T>
void spread(const Window &window, bool last, const T *y, const int64_t *switches, T *x) {
    using Wide = typename striate::Wide<T>::type;
    constexpr bool rounds = !std::is_same_v<T, Wide>;
    int64_t size = 1, out = 1, channels = last ? window.in_channels : 1;
    for (auto &axis : window.axis) size *= axis.size, out *= axis.out;
    int64_t images = last ? window.batch : window.batch * window.in_channels;
    int64_t some = std::min<int64_t>(channels, 64), slices = (channels + some - 1) / some;
#pragma omp parallel
    {
        std::vector<Wide> sums(rounds ? size * some : 0);
#pragma omp for schedule(static)
        for (int64_t unit = 0; unit < images * slices; ++unit) {
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
        }
    }
}

template void pool(const Window &, Reduction, bool, int64_t, const float *, void *, float *);
template void pool(const Window &, Reduction, bool, int64_t, const double *, void *, double *);
template void pool(const Window &, Reduction, bool, int64_t, const bfloat16 *, void *, bfloat16 *);
template void spread(const Window &, bool, const float *, const int64_t *, float *);
template void spread(const Window &, bool, const double *, const int64_t *, double *);
template void spread(const Window &, bool, const bfloat16 *, const int64_t *, bfloat16 *);

}  // namespace striate::STRIATE_SET
