// Depthwise and small groups, with the channels in the lanes.
//
// Lanes are the channels of the result: output channels forward and for the weights, input channels for the input
// gradient. Where a group has more channels on the other side, its maps are packed as planes, plane i holding in each
// lane the i-th channel of that lane's group; a plane is one more tap. Then no two lanes ever meet, every load is a
// whole vector, and borders, strides and dilations are offsets in a packed tile.
#include <array>

#include "kernels.hpp"
#include "packing.hpp"

namespace striate::STRIATE_SET {
namespace {

constexpr int64_t TILE_BYTES = 256 * 1024;  // of scratch, which is to stay in the second-level cache
constexpr int64_t TASKS = 32;               // partial sums of a weight gradient: a number that no machine changes

int64_t floor_div(int64_t a, int64_t b) { return a / b - (a % b != 0 && (a < 0) != (b < 0)); }
int64_t ceil_div(int64_t a, int64_t b) { return -floor_div(-a, b); }

// Results on one axis that read the source in the same way: result `first + i * step` reads source
// `source + i * stride + j * dilation` through tap `tap + j * tap_step`, for each j < taps.
struct Line {
    int64_t count, first, step, source, stride, dilation, taps, tap, tap_step;
};

// Taps [from, to) of a line reach [0, size) from some of the results i to i + more - 1.
struct Reach {
    int64_t from, to;
};
Reach reach(const Line &line, int64_t i, int64_t more, int64_t size) {
    int64_t low = line.source + i * line.stride, high = low + (more - 1) * line.stride;
    int64_t from = std::max<int64_t>(ceil_div(-high, line.dilation), 0);
    int64_t to = std::min(floor_div(size - 1 - low, line.dilation) + 1, line.taps);
    return {from, std::max(from, to)};
}

// Forward, all results are alike. The input gradient gathers: input i is read through the taps for which
// i + before - tap * dilation is a multiple of the stride, so that there is one line for each remainder of i + before.
Line line_of(const Axis &axis, Direction direction, int64_t number) {
    if (direction != Direction::input_gradient)
        return {axis.out, 0, 1, -axis.before, axis.stride, axis.dilation, axis.kernel, 0, 1};
    int64_t common = 1, remainder = axis.before + number;
    remainder -= floor_div(remainder, axis.stride) * axis.stride;
    for (int64_t a = axis.stride, b = axis.dilation; b; std::swap(a, b)) a %= b, common = b;
    int64_t every = axis.stride / common, first_tap = 0;
    while (first_tap < every && (first_tap * axis.dilation - remainder) % axis.stride != 0) ++first_tap;
    int64_t taps = first_tap < every && first_tap < axis.kernel ? (axis.kernel - 1 - first_tap) / every + 1 : 0;
    int64_t last_tap = first_tap + (taps - 1) * every;
    int64_t from = ceil_div(axis.before - remainder, axis.stride);
    int64_t to = floor_div(axis.before + axis.size - 1 - remainder, axis.stride);
    int64_t source = from + (taps ? floor_div(remainder - last_tap * axis.dilation, axis.stride) : 0);
    return {std::max<int64_t>(to - from + 1, 0), axis.stride * from + remainder - axis.before, axis.stride,
            source, 1, axis.dilation / common, taps, last_tap, -every};
}

int64_t lines(const Axis &axis, Direction direction) {
    return direction == Direction::input_gradient ? std::min(axis.stride, axis.size) : 1;
}

// The line with those results alone that lie in [from, to).
Line within(Line line, int64_t from, int64_t to) {
    int64_t skip = std::max<int64_t>(ceil_div(from - line.first, line.step), 0);
    int64_t end = std::min(ceil_div(to - line.first, line.step), line.count);
    line.first += skip * line.step, line.source += skip * line.stride;
    line.count = std::max<int64_t>(end - skip, 0);
    return line;
}

// Which channels a block of lanes holds, and of which planes of the other side it is made.
struct Blocks {
    int64_t result_channels, source_channels, each, planes, count;  // `each` result channels in a group
    template <typename W>
    Channels<W> result(int64_t block) const {
        Channels<W> channels{{}, 0, result_channels, true};
        int64_t first = block * LANES<W>;
        channels.used = std::min<int64_t>(LANES<W>, result_channels - first);
        for (int64_t l = 0; l < LANES<W>; ++l) channels.of[l] = first + std::min(l, channels.used - 1);
        return channels;
    }
    template <typename W>
    Channels<W> source(int64_t block, int64_t plane) const {
        Channels<W> channels = result<W>(block);
        for (int64_t &channel : channels.of) channel = channel / each * planes + plane;
        channels.total = source_channels;
        channels.adjacent = each == 1 && planes == 1;
        return channels;
    }
};

template <typename W>
Blocks blocks_of(const Window &window) {
    bool inward = window.direction == Direction::input_gradient;
    int64_t results = inward ? window.in_channels : window.out_channels;
    int64_t sources = inward ? window.out_channels : window.in_channels;
    return {results, sources, results / window.groups, sources / window.groups, ceil_div(results, LANES<W>)};
}

// ------------------------------------------------------------------------------------------------ output and input

// What T results next to each other add up: x at `taps` offsets on three axes and on `planes`, each times its weights.
template <typename W>
struct Sums {
    const W *x, *w;
    W *result;
    int64_t planes, x_plane, w_plane, taps[AXES], x_tap[AXES], w_tap[AXES], x_step, result_step;
};

// K taps of one row into T results. Where taps lie as far apart as results do, each value of x serves up to K of them.
template <typename W, int T, int K>
STRIATE_INLINE inline void add_row(Lanes<W> (&sums)[T], const W *x, int64_t x_step, const W *w, int64_t w_step) {
    Lanes<W> weight[K];
    unroll<K>([&](auto k) STRIATE_INLINE { weight[k] = load(w + k * w_step); });
    unroll<T + K - 1>([&](auto column) STRIATE_INLINE {
        Lanes<W> value = load(x + column * x_step);
        unroll<K>([&](auto k) STRIATE_INLINE {
            constexpr int t = column - k;
            if constexpr (t >= 0 && t < T) sums[t] += value * weight[k];
        });
    });
}

template <typename W, int T, int K>
void add_up(const Sums<W> &s) {
    Lanes<W> sums[T] = {};
    for (int64_t p = 0; p < s.planes; ++p)
        for (int64_t a = 0; a < s.taps[0]; ++a)
            for (int64_t b = 0; b < s.taps[1]; ++b) {
                const W *x = s.x + p * s.x_plane + a * s.x_tap[0] + b * s.x_tap[1];
                const W *w = s.w + p * s.w_plane + a * s.w_tap[0] + b * s.w_tap[1];
                int64_t left = s.taps[2];
                for (; left >= K; left -= K, x += K * s.x_tap[2], w += K * s.w_tap[2])
                    add_row<W, T, K>(sums, x, s.x_step, w, s.w_tap[2]);
                if constexpr (K > 1)
                    for (; left > 0; --left, x += s.x_tap[2], w += s.w_tap[2])
                        add_row<W, T, 1>(sums, x, s.x_step, w, s.w_tap[2]);
            }
    unroll<T>([&](auto t) STRIATE_INLINE { store(s.result + t * s.result_step, sums[t]); });
}

constexpr int MOST_RESULTS = REGISTERS == 32 ? 14 : 7, MOST_TAPS = REGISTERS == 32 ? 8 : 5;

template <typename W>
auto add_up_of(int64_t results, int64_t taps) {
    using Kernel = void (*)(const Sums<W> &);
    static constexpr auto table = []<int... I>(std::integer_sequence<int, I...>) {
        return std::array<Kernel, sizeof...(I)>{add_up<W, I / MOST_TAPS + 1, I % MOST_TAPS + 1>...};
    }(std::make_integer_sequence<int, MOST_RESULTS * MOST_TAPS>{});
    return table[(results - 1) * MOST_TAPS + taps - 1];
}

// How many taps to take at once so that few are left over.
int64_t taps_at_once(int64_t taps) {
    if (taps <= MOST_TAPS) return std::max<int64_t>(taps, 1);
    int64_t best = MOST_TAPS;
    for (int64_t k = MOST_TAPS; k > MOST_TAPS / 2; --k)
        if (taps % k < taps % best) best = k;
    return best;
}

// All results of three lines, one for each axis, in a packed tile. `source` and `result` are their regions.
template <typename W>
void solve(const Line (&line)[AXES], const int64_t *size, View<const W> x, const Region &source, int64_t planes,
           int64_t x_plane, const W *w, const Axis *axis, View<W> out, const Region &result) {
    constexpr int64_t N = LANES<W>;
    const Line &row = line[2];
    const int64_t w_step[AXES] = {axis[1].kernel * axis[2].kernel * N, axis[2].kernel * N, N};
    const bool together = row.dilation % row.stride == 0;  // taps lie as far apart as every m-th result
    const int64_t m = together ? row.dilation / row.stride : 1;
    const int64_t at_once = together ? taps_at_once(row.taps) : 1;
    Sums<W> s{};
    s.planes = planes, s.x_plane = x_plane, s.w_plane = axis[0].kernel * w_step[0];
    for (int a = 0; a < AXES; ++a) s.x_tap[a] = line[a].dilation * x.step[a], s.w_tap[a] = line[a].tap_step * w_step[a];
    s.x_step = m * row.stride * N, s.result_step = m * row.step * out.step[2];
    for (int64_t i = 0; i < line[0].count; ++i)
        for (int64_t j = 0; j < line[1].count; ++j) {
            const int64_t at[2] = {i, j};
            int64_t x_row = 0, w_row = row.tap * N, out_row = 0;
            for (int a = 0; a < 2; ++a) {
                const Line &l = line[a];
                Reach taps = reach(l, at[a], 1, size[a]);
                s.taps[a] = taps.to - taps.from;
                x_row += (l.source + at[a] * l.stride + taps.from * l.dilation - source.from[a]) * x.step[a];
                w_row += (l.tap + taps.from * l.tap_step) * w_step[a];
                out_row += (l.first + at[a] * l.step - result.from[a]) * out.step[a];
            }
            for (int64_t r = 0; r < m && r < row.count; ++r) {
                int64_t count = (row.count - r - 1) / m + 1, pieces = ceil_div(count, MOST_RESULTS), from = 0;
                for (int64_t piece = 0; piece < pieces; ++piece) {
                    int64_t here = (count - from) / (pieces - piece), k = r + m * from;
                    Line part = row;
                    part.stride *= m;
                    part.source += k * row.stride;
                    Reach taps = reach(part, 0, here, size[2]);
                    s.taps[2] = taps.to - taps.from;
                    s.x = x.data + x_row + (part.source + taps.from * row.dilation - source.from[2]) * N;
                    s.w = w + w_row + taps.from * s.w_tap[2];
                    s.result = out.data + out_row + (row.first + k * row.step - result.from[2]) * out.step[2];
                    add_up_of<W>(here, at_once)(s);
                    from += here;
                }
            }
        }
}

// The source positions that a region of results reads: on the outer axes only real ones, on the last one as many beyond
// as the results of one piece may reach.
Region read_by(const Region &result, const Window &window, const int64_t *size, int64_t beyond) {
    Region source{};
    for (int a = 0; a < AXES; ++a) {
        int64_t low = size[a], high = 0, margin = a == 2 ? beyond : 0;
        for (int64_t r = 0; r < lines(window.axis[a], window.direction); ++r) {
            Line line = within(line_of(window.axis[a], window.direction, r), result.from[a], result.to[a]);
            if (line.count == 0 || line.taps == 0) continue;
            low = std::min(low, line.source);
            high = std::max(high, line.source + (line.count - 1) * line.stride + (line.taps - 1) * line.dilation + 1);
        }
        source.from[a] = std::max(low, -margin), source.to[a] = std::min(high, size[a] + margin);
        source.to[a] = std::max(source.from[a], source.to[a]);
    }
    return source;
}

// Cuts regions of results so that a tile of each, with its source, fits the scratch.
struct Tiles {
    int64_t extent[AXES], count[AXES], whole[AXES];
    int64_t all() const { return count[0] * count[1] * count[2]; }
    Region operator[](int64_t number) const {
        int64_t at[AXES] = {number / (count[1] * count[2]), number / count[2] % count[1], number % count[2]};
        Region region{};
        for (int a = 0; a < AXES; ++a) {
            region.from[a] = at[a] * extent[a];
            region.to[a] = std::min(region.from[a] + extent[a], whole[a]);
        }
        return region;
    }
};
template <typename F>
Tiles tiles_of(const int64_t *whole, F bytes) {
    Tiles tiles{{whole[0], whole[1], whole[2]}, {1, 1, 1}, {whole[0], whole[1], whole[2]}};
    for (int a = 0; a < AXES; ++a)
        while (tiles.extent[a] > 1 && bytes(tiles[tiles.all() / 2]) > TILE_BYTES) {
            tiles.count[a] = ceil_div(whole[a], ceil_div(tiles.extent[a], 2));
            tiles.extent[a] = ceil_div(whole[a], tiles.count[a]);
        }
    return tiles;
}

// Weights as the lanes of each block read them: [block][plane][tap][lane].
template <typename T, typename W>
void pack_weights(W *to, const T *weight, const Blocks &blocks, int64_t taps, bool inward) {
    for (int64_t block = 0; block < blocks.count; ++block) {
        const auto channels = blocks.result<W>(block);
        for (int64_t plane = 0; plane < blocks.planes; ++plane)
            for (int64_t l = 0; l < LANES<W>; ++l) {
                int64_t channel = channels.of[l];
                int64_t row = inward ? (channel / blocks.each * blocks.planes + plane) * blocks.each + channel % blocks.each
                                     : channel * blocks.planes + plane;
                W *column = to + (block * blocks.planes + plane) * taps * LANES<W> + l;
                for (int64_t tap = 0; tap < taps; ++tap) column[tap * LANES<W>] = widen(weight[row * taps + tap]);
            }
    }
}

thread_local Scratch tile_scratch, weight_scratch;

template <typename T, typename W>
void solve_maps(const Window &window, const Maps<T> &from, const Maps<T> &to, const T *weight) {
    constexpr int64_t N = LANES<W>;
    const bool inward = window.direction == Direction::input_gradient;
    const Blocks blocks = blocks_of<W>(window);
    const Axis *axis = window.axis;
    const int64_t taps = axis[0].kernel * axis[1].kernel * axis[2].kernel;
    int64_t size[AXES], whole[AXES];
    for (int a = 0; a < AXES; ++a) {
        size[a] = inward ? axis[a].out : axis[a].size;
        whole[a] = inward ? axis[a].size : axis[a].out;
    }
    const int64_t beyond = MOST_RESULTS * std::max(axis[2].stride, axis[2].dilation);
    const Tiles tiles = tiles_of(whole, [&](const Region &result) {
        return (blocks.planes * read_by(result, window, size, beyond).positions() + result.positions()) * N * int64_t(sizeof(W));
    });
    W *weights = weight_scratch.at_least<W>(blocks.count * blocks.planes * taps * N);
    pack_weights(weights, weight, blocks, taps, inward);
    const int64_t tasks = window.batch * tiles.all() * blocks.count;
#pragma omp parallel for schedule(dynamic)
    for (int64_t task = 0; task < tasks; ++task) {
        const int64_t block = task % blocks.count, example = task / blocks.count / tiles.all();
        const Region result = tiles[task / blocks.count % tiles.all()];
        const Region source = read_by(result, window, size, beyond);
        const int64_t plane = source.positions() * N;
        W *scratch = tile_scratch.at_least<W>(blocks.planes * plane + result.positions() * N);
        for (int64_t p = 0; p < blocks.planes; ++p)
            pack<T, W>(packed(scratch + p * plane, source), source, from, example, size, blocks.source<W>(block, p));
        const auto channels = blocks.result<W>(block);
        View<W> out = packed(scratch + blocks.planes * plane, result);
        bool direct = false;
        if constexpr (std::is_same_v<T, W>)
            if (to.channel == 1 && channels.used == N) {
                direct = true;
                out.data = to.data + example * to.batch + channels.of[0];
                for (int a = 0; a < AXES; ++a) {
                    out.data += result.from[a] * to.step[a];
                    out.step[a] = to.step[a];
                }
            }
        const View<W> tile = packed(scratch, source);
        const View<const W> x{tile.data, {tile.step[0], tile.step[1], tile.step[2]}};
        Line line[AXES];
        for (int64_t r = 0; r < lines(axis[0], window.direction); ++r)
            for (int64_t q = 0; q < lines(axis[1], window.direction); ++q)
                for (int64_t p = 0; p < lines(axis[2], window.direction); ++p) {
                    const int64_t number[AXES] = {r, q, p};
                    for (int a = 0; a < AXES; ++a)
                        line[a] = within(line_of(axis[a], window.direction, number[a]), result.from[a], result.to[a]);
                    solve<W>(line, size, x, source, blocks.planes, plane, weights + block * blocks.planes * taps * N, axis,
                             out, result);
                }
        if (!direct) unpack<T, W>(out, result, to, example, channels);
    }
}

// ---------------------------------------------------------------------------------------------------------- weights

// Sums over positions of x times y, for taps next to each other on the last two axes.
template <typename W>
struct Products {
    const W *x, *y;
    W *sums;
    int64_t count[AXES], x_step[AXES], y_step[AXES], x_tap[AXES], sums_step;
};

constexpr int AT_ONCE = 4;  // positions
constexpr int MOST_ROWS = REGISTERS == 32 ? 3 : 2;

// R x K taps. Where taps lie as far apart as positions do (`together`), each value of x serves up to AT_ONCE positions.
// Few taps keep several sums each, so that no addition waits for the one before it.
template <typename W, int R, int K, bool TOGETHER>
void multiply_up(const Products<W> &s) {
    constexpr int SPLIT = R * K >= 8 ? 1 : R * K >= 4 ? 2 : 4;
    Lanes<W> sums[R * K * SPLIT] = {};
    for (int64_t i = 0; i < s.count[0]; ++i)
        for (int64_t j = 0; j < s.count[1]; ++j) {
            const W *x = s.x + i * s.x_step[0] + j * s.x_step[1], *y = s.y + i * s.y_step[0] + j * s.y_step[1];
            const auto some = [&](auto positions) STRIATE_INLINE {
                constexpr int P = positions;
                Lanes<W> value[P];
                unroll<P>([&](auto p) STRIATE_INLINE { value[p] = load(y + p * s.y_step[2]); });
                unroll<R>([&](auto r) STRIATE_INLINE {
                    const W *row = x + r * s.x_tap[1];
                    if constexpr (TOGETHER)
                        unroll<P + K - 1>([&](auto column) STRIATE_INLINE {
                            Lanes<W> other = load(row + column * s.x_step[2]);
                            unroll<P>([&](auto p) STRIATE_INLINE {
                                constexpr int k = column - p;
                                if constexpr (k >= 0 && k < K)
                                    sums[(r * K + k) * SPLIT + p % SPLIT] += other * value[p];
                            });
                        });
                    else
                        unroll<P>([&](auto p) STRIATE_INLINE {
                            unroll<K>([&](auto k) STRIATE_INLINE {
                                sums[(r * K + k) * SPLIT + p % SPLIT] +=
                                    load(row + p * s.x_step[2] + k * s.x_tap[2]) * value[p];
                            });
                        });
                });
                x += P * s.x_step[2], y += P * s.y_step[2];
            };
            int64_t left = s.count[2];
            for (; left >= AT_ONCE; left -= AT_ONCE) some(std::integral_constant<int, AT_ONCE>{});
            for (; left > 0; --left) some(std::integral_constant<int, 1>{});
        }
    unroll<R>([&](auto r) STRIATE_INLINE {
        unroll<K>([&](auto k) STRIATE_INLINE {
            W *to = s.sums + r * s.sums_step + k * LANES<W>;
            Lanes<W> sum = load(to);
            unroll<SPLIT>([&](auto p) STRIATE_INLINE { sum += sums[(r * K + k) * SPLIT + p]; });
            store(to, sum);
        });
    });
}

template <typename W>
auto multiply_up_of(int64_t rows, int64_t taps, bool together) {
    using Kernel = void (*)(const Products<W> &);
    static constexpr auto table = []<int... I>(std::integer_sequence<int, I...>) {
        return std::array<Kernel, sizeof...(I)>{
            multiply_up<W, I / 2 / MOST_TAPS + 1, I / 2 % MOST_TAPS + 1, I % 2 != 0>...};
    }(std::make_integer_sequence<int, MOST_ROWS * MOST_TAPS * 2>{});
    return table[((rows - 1) * MOST_TAPS + taps - 1) * 2 + together];
}

// Positions [from, to) from which some of the taps k to k + more - 1 read [0, size).
Reach readers(const Line &line, int64_t k, int64_t more, int64_t size) {
    int64_t low = line.source + k * line.dilation, high = low + (more - 1) * line.dilation;
    int64_t from = std::max<int64_t>(ceil_div(-high, line.stride), 0);
    int64_t to = std::min(floor_div(size - 1 - low, line.stride) + 1, line.count);
    return {from, std::max(from, to)};
}

// Adds to the sums of all taps of a plane what the positions of three lines contribute.
template <typename W>
void contribute(const Line (&line)[AXES], const int64_t *size, View<const W> x, const Region &source, View<const W> y,
                const Region &result, W *sums) {
    constexpr int64_t N = LANES<W>;
    const Line &row = line[2];
    const bool together = row.dilation % row.stride == 0;
    const int64_t m = together ? row.dilation / row.stride : 1;
    const int64_t row_pieces = ceil_div(line[1].taps, MOST_ROWS), pieces = ceil_div(row.taps, MOST_TAPS);
    Products<W> s{};
    for (int a = 0; a < AXES; ++a) {
        int64_t apart = a == 2 ? m : 1;
        s.x_step[a] = apart * line[a].stride * x.step[a], s.y_step[a] = apart * y.step[a];
        s.x_tap[a] = line[a].dilation * x.step[a];
    }
    s.sums_step = row.taps * N;
    for (int64_t a = 0; a < line[0].taps; ++a)
        for (int64_t b = 0, rows = 0, rest = row_pieces; b < line[1].taps; b += rows, --rest) {
            rows = ceil_div(line[1].taps - b, rest);
            for (int64_t c = 0, columns = 0, left = pieces; c < row.taps; c += columns, --left) {
                columns = ceil_div(row.taps - c, left);
                const int64_t tap[AXES] = {a, b, c}, more[AXES] = {1, rows, columns};
                int64_t x_from = 0, y_from = 0, first = 0, count = 0;
                for (int d = 0; d < AXES; ++d) {
                    Reach reading = readers(line[d], tap[d], more[d], size[d]);
                    s.count[d] = count = reading.to - reading.from, first = reading.from;
                    x_from += (line[d].source + first * line[d].stride + tap[d] * line[d].dilation - source.from[d]) * x.step[d];
                    y_from += (line[d].first + first - result.from[d]) * y.step[d];
                }
                s.sums = sums + ((a * line[1].taps + b) * row.taps + c) * N;
                for (int64_t r = 0; r < m && r < count; ++r) {
                    s.count[2] = (count - r - 1) / m + 1;
                    s.x = x.data + x_from + r * row.stride * N, s.y = y.data + y_from + r * y.step[2];
                    multiply_up_of<W>(rows, columns, together)(s);
                }
            }
        }
}

template <typename T, typename W>
void solve_weights(const Window &window, const Maps<T> &input, const Maps<T> &output, T *weight) {
    constexpr int64_t N = LANES<W>;
    const Blocks blocks = blocks_of<W>(window);
    const Axis *axis = window.axis;
    const int64_t taps = axis[0].kernel * axis[1].kernel * axis[2].kernel;
    int64_t size[AXES], out[AXES], margin[AXES] = {};
    Line whole[AXES];
    for (int a = 0; a < AXES; ++a) {
        size[a] = axis[a].size, out[a] = axis[a].out;
        whole[a] = line_of(axis[a], Direction::forward, 0);
    }
    margin[1] = (MOST_ROWS - 1) * axis[1].dilation, margin[2] = (MOST_TAPS - 1) * axis[2].dilation;
    const auto read = [&](const Region &result) {
        Region source{};
        for (int a = 0; a < AXES; ++a) {
            Line line = within(whole[a], result.from[a], result.to[a]);
            source.from[a] = std::max(line.source, -margin[a]);
            source.to[a] = std::min(line.source + (line.count - 1) * line.stride + (line.taps - 1) * line.dilation + 1,
                                    size[a] + margin[a]);
            source.to[a] = std::max(source.from[a], source.to[a]);
        }
        return source;
    };
    const Tiles tiles = tiles_of(out, [&](const Region &result) {
        return (blocks.planes * read(result).positions() + result.positions()) * N * int64_t(sizeof(W));
    });
    const int64_t units = window.batch * tiles.all();
    const int64_t chunks = std::min(units, ceil_div(TASKS, blocks.count)), length = blocks.planes * taps * N;
    W *partial = weight_scratch.at_least<W>(blocks.count * chunks * length);
#pragma omp parallel for schedule(dynamic)
    for (int64_t task = 0; task < blocks.count * chunks; ++task) {
        const int64_t block = task % blocks.count, chunk = task / blocks.count;
        W *sums = partial + (block * chunks + chunk) * length;
        std::fill(sums, sums + length, W(0));
        const auto channels = blocks.result<W>(block);
        for (int64_t unit = chunk * units / chunks; unit < (chunk + 1) * units / chunks; ++unit) {
            const Region result = tiles[unit % tiles.all()], source = read(result);
            const int64_t example = unit / tiles.all(), plane = source.positions() * N;
            W *scratch = tile_scratch.at_least<W>(plane + result.positions() * N);
            View<W> y = packed(scratch + plane, result);
            pack<T, W>(y, result, output, example, out, channels);
            Line line[AXES];
            for (int a = 0; a < AXES; ++a) line[a] = within(whole[a], result.from[a], result.to[a]);
            for (int64_t p = 0; p < blocks.planes; ++p) {
                View<W> x = packed(scratch, source);
                pack<T, W>(x, source, input, example, size, blocks.source<W>(block, p));
                contribute<W>(line, size, {x.data, {x.step[0], x.step[1], x.step[2]}}, source,
                              {y.data, {y.step[0], y.step[1], y.step[2]}}, result, sums + p * taps * N);
            }
        }
    }
#pragma omp parallel for
    for (int64_t block = 0; block < blocks.count; ++block) {
        const auto channels = blocks.result<W>(block);
        W *sums = partial + block * chunks * length;
        for (int64_t chunk = 1; chunk < chunks; ++chunk)
            for (int64_t i = 0; i < length; ++i) sums[i] += sums[chunk * length + i];
        for (int64_t l = 0; l < channels.used; ++l)
            for (int64_t i = 0; i < blocks.planes * taps; ++i)
                weight[channels.of[l] * blocks.planes * taps + i] = narrow<T, W>(sums[i * N + l]);
    }
}

}  // namespace

template <typename T>
void channels(const Window &window, Maps<T> input, Maps<T> output, T *weight) {
    using W = typename Wide<T>::type;
    if (window.direction == Direction::forward)
        solve_maps<T, W>(window, input, output, weight);
    else if (window.direction == Direction::input_gradient)
        solve_maps<T, W>(window, output, input, weight);
    else
        solve_weights<T, W>(window, input, output, weight);
}

template void channels(const Window &, Maps<float>, Maps<float>, float *);
template void channels(const Window &, Maps<double>, Maps<double>, double *);
template void channels(const Window &, Maps<bfloat16>, Maps<bfloat16>, bfloat16 *);

}  // namespace striate::STRIATE_SET
