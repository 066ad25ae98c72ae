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
#include "pooling_rows.hpp"
#include "threads.hpp"

namespace striate::STRIATE_SET {
namespace {

// ---------------------------------------------------------------------------------------------------- runs of values

// How the values of a row, or of a plane of rows, lie in a tensor: runs of `length` neighbours.
struct Run {
    int64_t rows, row_pitch, row_place, count, pitch, place, length;
    int lane;
    int64_t total() const { return rows * count * length; }
};

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

// ------------------------------------------------------------------------------------------------------------ planes

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
            return on_threads<Share::even>(images, images > 1, [&](int64_t image) {
                rows_of_one(x + image * size, y + image * out);
            });
        }
        using Kept = std::unique_ptr<Block>;  // serves all images that a thread sees one after another
        const int64_t units = images * slices * parts;
        on_threads<Share::even>(
            units, units > 1, [] { return Kept(); },
            [&](Kept &block, int64_t unit) {
                int64_t image = unit % images, channel = unit / images % slices * some;
                int64_t first = unit / images / slices * outputs, channels = std::min(some, inner - channel);
                if (!block || block->first != first || block->some != channels)
                    block = std::make_unique<Block>(*this, channels, inner, first, std::min(first + outputs, width.out));
                block->run(x + image * size + channel, y + image * out + channel,
                           values ? values + image * out + channel : nullptr);
            });
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

template void pool(const Window &, Reduction, bool, int64_t, const float *, void *, float *);
template void pool(const Window &, Reduction, bool, int64_t, const double *, void *, double *);
template void pool(const Window &, Reduction, bool, int64_t, const bfloat16 *, void *, bfloat16 *);

}  // namespace striate::STRIATE_SET
