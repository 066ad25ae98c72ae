// Depthwise and small groups, with the channels in the lanes.
//
// Lanes are the channels of the result: output channels forward and for the weights, input channels for the input
// gradient. Where a group has more channels on the other side, its maps are packed as planes, plane i holding in each
// lane the i-th channel of that lane's group; a plane is one more tap. Then no two lanes ever meet, every load is a
// whole vector, and borders, strides and dilations are offsets in a packed tile.
#include <array>

#include "direct.hpp"
#include "kernels.hpp"
#include "lines.hpp"
#include "packing.hpp"
#include "threads.hpp"

namespace striate::STRIATE_SET {
namespace {

constexpr int64_t TILE_BYTES = 256 * 1024;  // of scratch, which is to stay in the second-level cache
constexpr int64_t AT_ONCE = 8;              // blocks of channels that lie next to each other in memory
constexpr int64_t TASKS = 32;               // partial sums of a weight gradient: a number that no machine changes

// How many vectors of sums, and of weights, the registers hold at once. With the sanitizers each kernel takes long to
// compile, so that there are few.
#ifdef __SANITIZE_ADDRESS__
template <typename W>
constexpr int MOST_RESULTS = 3;
template <typename W>
constexpr int MOST_TAPS = 2;
#else
template <typename W>
constexpr int MOST_RESULTS = REGISTERS == 32 && sizeof(W) == 4 ? 14 : 7;
template <typename W>
constexpr int MOST_TAPS = REGISTERS == 32 && sizeof(W) == 4 ? 8 : 4;
#endif

thread_local Scratch tile_scratch, weight_scratch, number_scratch;

// ------------------------------------------------------------------------------------------------ output and input

// Taps of one row that follow each other, in the packed weights and in the tile; offsets in elements.
struct Run {
    int64_t x, w, taps;
};

// What T results next to each other add up: x in `runs` of each of `taps` rows of each plane, times the weights.
template <typename W>
struct Sums {
    const W *x, *w;
    W *result;
    const Run *run;
    int64_t runs, planes, x_plane, w_plane, taps[2], x_tap[2], w_tap[2], result_step;
};

// K taps of one row into T results: each value of x serves up to K of them.
template <typename W, int T, int K>
STRIATE_INLINE inline void add_row(Lanes<W> (&sums)[T], const W *x, const W *w) {
    Lanes<W> weight[K];
    unroll<K>([&](auto k) STRIATE_INLINE { weight[k] = load(w + k * LANES<W>); });
    unroll<T + K - 1>([&](auto column) STRIATE_INLINE {
        Lanes<W> value = load(x + column * LANES<W>);
        unroll<K>([&](auto k) STRIATE_INLINE {
            constexpr int t = column - k;
            if constexpr (t >= 0 && t < T) sums[t] += value * weight[k];
        });
    });
}

template <typename W, int T, int K>
void add_up(const Sums<W> &s) {
    constexpr int N = LANES<W>;
    Lanes<W> sums[T] = {};
    for (int64_t p = 0; p < s.planes; ++p)
        for (int64_t a = 0; a < s.taps[0]; ++a)
            for (int64_t b = 0; b < s.taps[1]; ++b) {
                const W *x_row = s.x + p * s.x_plane + a * s.x_tap[0] + b * s.x_tap[1];
                const W *w_row = s.w + p * s.w_plane + a * s.w_tap[0] + b * s.w_tap[1];
                for (int64_t r = 0; r < s.runs; ++r) {
                    const W *x = x_row + s.run[r].x, *w = w_row + s.run[r].w;
                    int64_t left = s.run[r].taps;
                    for (; left >= K; left -= K, x += K * N, w += K * N) add_row<W, T, K>(sums, x, w);
                    if constexpr (K > 1)
                        for (; left > 0; --left, x += N, w += N) add_row<W, T, 1>(sums, x, w);
                }
            }
    W *to = s.result;
    unroll<T>([&](auto t) STRIATE_INLINE {
        store(to, sums[t]);
        to += s.result_step;
        __asm__("" : "+r"(to));  // one pointer that moves, not one register for each multiple of the step
    });
}

template <typename W>
auto add_up_of(int64_t results, int64_t taps) {
    using Kernel = void (*)(const Sums<W> &);
    static constexpr auto table = []<int... I>(std::integer_sequence<int, I...>) {
        return std::array<Kernel, sizeof...(I)>{add_up<W, I / MOST_TAPS<W> + 1, I % MOST_TAPS<W> + 1>...};
    }(std::make_integer_sequence<int, MOST_RESULTS<W> * MOST_TAPS<W>>{});
    return table[(results - 1) * MOST_TAPS<W> + taps - 1];
}

// How many taps to take at once so that few are left over.
template <typename W>
int64_t taps_at_once(int64_t taps) {
    constexpr int64_t most = MOST_TAPS<W>;
    if (taps <= most) return std::max<int64_t>(taps, 1);
    int64_t best = most;
    for (int64_t k = most; k > most / 2; --k)
        if (taps % k < taps % best) best = k;
    return best;
}

// The part of a row that starts at result i and tap j and goes on by turns.
Line turn_of(const Line &row, const Turns &turns, int64_t i, int64_t j) {
    Line part = row;
    part.count = std::max<int64_t>(ceil_div(row.count - i, turns.results), 0);
    part.first += i * row.step, part.step *= turns.results;
    part.source += i * row.stride + j * row.dilation;
    part.stride = part.dilation = turns.apart;
    part.taps = std::max<int64_t>(ceil_div(row.taps - j, turns.taps), 0);
    part.tap += j * row.tap_step, part.tap_step *= turns.taps;
    return part;
}

// Results in memory: of what region, and how far apart its positions are, in elements.
template <typename W>
struct Results {
    W *data;
    Region region;
    int64_t step[AXES];
};

// Packed weights of one block, and where in a row of taps each tap stands.
template <typename W>
struct Weights {
    const W *data;
    const int64_t *place;
    int64_t planes, plane, row[2];
};

// All results of three lines, one for each axis, from a packed tile of each plane.
template <typename W>
void solve(const Line (&line)[AXES], const int64_t *size, const Tile<W> &x, int64_t x_plane, const Weights<W> &w,
           const Results<W> &out, Run *run) {
    const Line &row = line[2];
    const Turns turns = turns_of(row);
    const int64_t at_once = taps_at_once<W>(ceil_div(row.taps, turns.taps));
    Sums<W> s{};
    s.run = run, s.planes = w.planes, s.x_plane = x_plane, s.w_plane = w.plane;
    for (int a = 0; a < 2; ++a) s.x_tap[a] = line[a].dilation * x.step[a], s.w_tap[a] = line[a].tap_step * w.row[a];
    s.result_step = row.step * turns.results * out.step[2];
    for (int64_t i = 0; i < line[0].count; ++i)
        for (int64_t j = 0; j < line[1].count; ++j) {
            const int64_t at[2] = {i, j};
            s.x = x.data, s.w = w.data;
            W *out_row = out.data;
            for (int a = 0; a < 2; ++a) {
                const Line &l = line[a];
                const Reach taps = reach(l.source + at[a] * l.stride, l.dilation, l.taps, 0, size[a]);
                s.taps[a] = taps.to - taps.from;
                if (s.taps[a] == 0) continue;
                s.x += (l.source + at[a] * l.stride + taps.from * l.dilation - x.region.from[a]) * x.step[a];
                s.w += (l.tap + taps.from * l.tap_step) * w.row[a];
            }
            for (int a = 0; a < 2; ++a)
                out_row += (line[a].first + at[a] * line[a].step - out.region.from[a]) * out.step[a];
            for (int64_t r = 0; r < turns.results && r < row.count; ++r) {
                const int64_t count = ceil_div(row.count - r, turns.results);
                int64_t from = 0, here = 0;
                for (int64_t pieces = ceil_div(count, MOST_RESULTS<W>); pieces > 0; --pieces, from += here) {
                    here = floor_div(count - from, pieces);
                    const int64_t first = r + from * turns.results;
                    s.runs = 0;
                    for (int64_t q = 0; q < turns.taps && q < row.taps; ++q) {
                        const int64_t reads = row.source + first * row.stride + q * row.dilation;
                        const int64_t all = ceil_div(row.taps - q, turns.taps);
                        const Reach taps = reach(reads, turns.apart, all, (here - 1) * turns.apart, size[2]);
                        if (taps.to == taps.from) continue;
                        run[s.runs++] = {x.place[reads + taps.from * turns.apart - x.region.from[2]],
                                         w.place[row.tap + (q + taps.from * turns.taps) * row.tap_step],
                                         taps.to - taps.from};
                    }
                    s.result = out_row + (row.first + first * row.step - out.region.from[2]) * out.step[2];
                    add_up_of<W>(here, at_once)(s);
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

// Blocks of channels that are packed at once: several where they are neighbours in memory.
template <typename T>
int64_t blocks_at_once(const Blocks &blocks, const Maps<T> &maps) {
    return blocks.each == 1 && blocks.planes == 1 && maps.channel == 1 ? std::min<int64_t>(AT_ONCE, blocks.count) : 1;
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
// `bytes` of scratch a region needs for each of the blocks at once: so many that borders packed twice do not add half.
template <typename F>
Tiles tiles_of(const int64_t *whole, int64_t &at_once, F bytes) {
    for (;; at_once = ceil_div(at_once, 2)) {
        Tiles tiles{{whole[0], whole[1], whole[2]}, {1, 1, 1}, {whole[0], whole[1], whole[2]}};
        const int64_t undivided = bytes(tiles[0]);
        for (int a = 0; a < AXES; ++a)
            while (tiles.extent[a] > 1 && at_once * bytes(tiles[tiles.all() / 2]) > TILE_BYTES) {
                tiles.count[a] = ceil_div(whole[a], ceil_div(tiles.extent[a], 2));
                tiles.extent[a] = ceil_div(whole[a], tiles.count[a]);
            }
        if (at_once == 1 || 2 * tiles.all() * bytes(tiles[tiles.all() / 2]) <= 3 * undivided) return tiles;
    }
}

// Where results go at once: into the maps, if these hold whole blocks of channels as they are, or else into scratch.
template <typename T, typename W>
Results<W> results_of(W *scratch, const Region &region, const Maps<T> &to, int64_t example,
                      const Channels<W> &channels) {
    const int64_t row = LANES<W> * region.extent(2);
    Results<W> out{scratch, region, {row * region.extent(1), row, LANES<W>}};
    if constexpr (std::is_same_v<T, W>)
        if (to.channel == 1 && channels.used == LANES<W>) {
            out.data = to.data + example * to.batch + channels.of[0];
            for (int a = 0; a < AXES; ++a) out.data += region.from[a] * to.step[a], out.step[a] = to.step[a];
        }
    return out;
}

// All planes of a block, `plane` elements apart, from a tile that is the first of them; one more is there for scratch.
// Or the one plane of several blocks.
template <typename T, typename W>
void pack_planes(const Tile<W> &tile, int64_t plane, const Maps<T> &maps, int64_t example, const int64_t *size,
                 const Blocks &blocks, int64_t block, int64_t here) {
    constexpr int64_t N = LANES<W>;
    Channels<W> all;
    Tile<W> other = tile;
    if (here > 1) return pack<T, W>(tile, maps, example, size, blocks.source<W>(block, 0), here, plane);
    if (!blocks.span<W>(block, all)) {
        for (int64_t p = 0; p < blocks.planes; ++p, other.data += plane)
            pack<T, W>(other, maps, example, size, blocks.source<W>(block, p));
        return;
    }
    other.data += blocks.planes * plane;
    pack<T, W>(other, maps, example, size, all);
    for (int64_t p = 0; p < blocks.planes; ++p) {
        const Channels<W> channels = blocks.source<W>(block, p);
        typename Register<W>::places lane;
        for (int64_t l = 0; l < N; ++l) lane[l] = channels.of[l] - all.of[0];
        W *to = tile.data + p * plane;
        for (int64_t i = 0; i < plane; i += N) store<W>(to + i, __builtin_shuffle(load(other.data + i), lane));
    }
}

// One more plane where planes are chosen from the lanes of one vector.
int64_t planes_in_scratch(const Blocks &blocks) { return blocks.planes + (blocks.each > 1 || blocks.planes > 1); }

template <typename T, typename W>
void solve_maps(const Window &window, const Maps<T> &from, const Maps<T> &to, const T *weight) {
    constexpr int64_t N = LANES<W>;
    const Direction direction = window.direction;
    const bool inward = direction == Direction::input_gradient;
    const Blocks blocks = blocks_of<W>(window);
    const Axis *axis = window.axis;
    const int64_t columns = axis[2].kernel, rows = axis[1].kernel, taps = axis[0].kernel * rows * columns;
    int64_t size[AXES], whole[AXES];
    for (int a = 0; a < AXES; ++a) {
        size[a] = inward ? axis[a].out : axis[a].size;
        whole[a] = inward ? axis[a].size : axis[a].out;
    }
    int64_t at_once = blocks_at_once(blocks, from);
    const int64_t apart = turns_of(line_of(axis[2], direction, 0)).apart, beyond = MOST_RESULTS<W> * apart;
    const Tiles tiles = tiles_of(whole, at_once, [&](const Region &result) {
        const Region source = read_by(result, window, size, beyond);
        return (planes_in_scratch(blocks) * vectors(source, apart) + vectors(result, 1)) * BYTES;
    });
    const int64_t groups = ceil_div(blocks.count, at_once);
    W *weights = weight_scratch.at_least<W>(blocks.count * blocks.planes * taps * N + columns * 8 / int64_t(sizeof(W)));
    int64_t *tap_place = reinterpret_cast<int64_t *>(weights + blocks.count * blocks.planes * taps * N);
    std::fill(tap_place, tap_place + columns, -1);
    place_taps(tap_place, axis[2], direction, N);
    pack_weights(weights, tap_place, weight, blocks, axis, inward);
    const int64_t tasks = window.batch * tiles.all() * groups;
    on_threads(tasks, tasks > 1, [&](int64_t task) {
        const int64_t first = task % groups * at_once, here = std::min(at_once, blocks.count - first);
        const int64_t example = task / groups / tiles.all();
        const Region result = tiles[task / groups % tiles.all()];
        const Region source = read_by(result, window, size, beyond);
        const int64_t plane = vectors(source, apart) * N;
        int64_t *place = number_scratch.at_least<int64_t>(source.extent(2) + 3 * columns);
        Run *run = reinterpret_cast<Run *>(place + source.extent(2));
        const int64_t all_planes = at_once * planes_in_scratch(blocks) * plane;
        W *scratch = tile_scratch.at_least<W>(all_planes + vectors(result, 1) * N), *unpacked = scratch + all_planes;
        Tile<W> tile = tile_of(scratch, source, apart, place);
        pack_planes<T, W>(tile, plane, from, example, size, blocks, first, here);
        for (int64_t block = first; block < first + here; ++block, tile.data += plane) {
            const auto channels = blocks.result<W>(block);
            const Results<W> out = results_of<T, W>(unpacked, result, to, example, channels);
            const Weights<W> w{weights + block * blocks.planes * taps * N, tap_place, blocks.planes, taps * N,
                               {rows * columns * N, columns * N}};
            for (int64_t r = 0; r < lines(axis[0], direction); ++r)
                for (int64_t q = 0; q < lines(axis[1], direction); ++q)
                    for (int64_t p = 0; p < lines(axis[2], direction); ++p) {
                        const int64_t number[AXES] = {r, q, p};
                        Line line[AXES];
                        for (int a = 0; a < AXES; ++a)
                            line[a] = within(line_of(axis[a], direction, number[a]), result.from[a], result.to[a]);
                        solve<W>(line, size, tile, plane, w, out, run);
                    }
            if (out.data == unpacked) unpack<T, W>(unpacked, result, to, example, channels);
        }
    });
}

// ---------------------------------------------------------------------------------------------------------- weights

// Sums over positions of x times y, for `taps` on the last two axes; on the last one, positions and taps that follow
// each other do so in both tiles.
template <typename W>
struct Products {
    const W *x, *y;
    W *sums;
    int64_t count[AXES], x_step[2], y_step[2], x_row, sums_step[2];
};

constexpr int POSITIONS = 4;
constexpr int MOST_ROWS = REGISTERS == 32 ? 3 : 2;

// R x K taps: each value of x serves up to POSITIONS. Few taps keep several sums each, so that no addition waits
// for the one before it.
template <typename W, int R, int K>
void multiply_up(const Products<W> &s) {
    constexpr int N = LANES<W>, SPLIT = R * K >= 8 ? 1 : R * K >= 4 ? 2 : 4;
    Lanes<W> sums[R * K * SPLIT] = {};
    for (int64_t i = 0; i < s.count[0]; ++i)
        for (int64_t j = 0; j < s.count[1]; ++j) {
            const W *x = s.x + i * s.x_step[0] + j * s.x_step[1], *y = s.y + i * s.y_step[0] + j * s.y_step[1];
            const auto some = [&](auto positions) STRIATE_INLINE {
                constexpr int P = positions;
                Lanes<W> value[P];
                unroll<P>([&](auto p) STRIATE_INLINE { value[p] = load(y + p * N); });
                unroll<R>([&](auto r) STRIATE_INLINE {
                    const W *row = x + r * s.x_row;
                    unroll<P + K - 1>([&](auto column) STRIATE_INLINE {
                        Lanes<W> other = load(row + column * N);
                        unroll<P>([&](auto p) STRIATE_INLINE {
                            constexpr int k = column - p;
                            if constexpr (k >= 0 && k < K) sums[(r * K + k) * SPLIT + p % SPLIT] += other * value[p];
                        });
                    });
                });
                x += P * N, y += P * N;
            };
            int64_t left = s.count[2];
            for (; left >= POSITIONS; left -= POSITIONS) some(std::integral_constant<int, POSITIONS>{});
            for (; left > 0; --left) some(std::integral_constant<int, 1>{});
        }
    unroll<R>([&](auto r) STRIATE_INLINE {
        unroll<K>([&](auto k) STRIATE_INLINE {
            W *to = s.sums + r * s.sums_step[0] + k * s.sums_step[1];
            Lanes<W> sum = load(to);
            unroll<SPLIT>([&](auto p) STRIATE_INLINE { sum += sums[(r * K + k) * SPLIT + p]; });
            store(to, sum);
        });
    });
}

template <typename W>
auto multiply_up_of(int64_t rows, int64_t taps) {
    using Kernel = void (*)(const Products<W> &);
    static constexpr auto table = []<int... I>(std::integer_sequence<int, I...>) {
        return std::array<Kernel, sizeof...(I)>{multiply_up<W, I / MOST_TAPS<W> + 1, I % MOST_TAPS<W> + 1>...};
    }(std::make_integer_sequence<int, MOST_ROWS * MOST_TAPS<W>>{});
    return table[(rows - 1) * MOST_TAPS<W> + taps - 1];
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
void contribute(const Line (&line)[AXES], const int64_t *size, const Tile<W> &x, const Tile<W> &y, W *sums) {
    const Turns turns = turns_of(line[2]);
    const int64_t row_pieces = ceil_div(line[1].taps, MOST_ROWS);
    Products<W> s{};
    for (int a = 0; a < 2; ++a) s.x_step[a] = line[a].stride * x.step[a], s.y_step[a] = y.step[a];
    s.x_row = line[1].dilation * x.step[1];
    s.sums_step[0] = line[2].taps * LANES<W>, s.sums_step[1] = turns.taps * LANES<W>;
    const auto columns = [&](int64_t a, int64_t b, int64_t rows, const W *x_row, const W *y_row, int64_t r, int64_t q) {
        const Line part = turn_of(line[2], turns, r, q);
        int64_t taps = 0;
        for (int64_t c = 0, pieces = ceil_div(part.taps, MOST_TAPS<W>); c < part.taps; c += taps, --pieces) {
            taps = ceil_div(part.taps - c, pieces);
            const Reach reading = readers(part, c, taps, size[2]);
            s.count[2] = reading.to - reading.from;
            if (s.count[2] == 0) continue;
            s.x = x_row + x.place[part.source + reading.from * part.stride + c * part.dilation - x.region.from[2]];
            s.y = y_row + y.place[part.first + reading.from * part.step - y.region.from[2]];
            s.sums = sums + ((a * line[1].taps + b) * line[2].taps + part.tap + c * part.tap_step) * LANES<W>;
            multiply_up_of<W>(rows, taps)(s);
        }
    };
    for (int64_t a = 0; a < line[0].taps; ++a)
        for (int64_t b = 0, rows = 0, rest = row_pieces; b < line[1].taps; b += rows, --rest) {
            rows = ceil_div(line[1].taps - b, rest);
            const int64_t tap[2] = {a, b}, more[2] = {1, rows};
            const W *x_row = x.data, *y_row = y.data;
            for (int d = 0; d < 2; ++d) {
                const Line &l = line[d];
                const Reach reading = readers(l, tap[d], more[d], size[d]);
                s.count[d] = reading.to - reading.from;
                x_row += (l.source + reading.from * l.stride + tap[d] * l.dilation - x.region.from[d]) * x.step[d];
                y_row += (l.first + reading.from - y.region.from[d]) * y.step[d];
            }
            if (s.count[0] == 0 || s.count[1] == 0) continue;
            for (int64_t r = 0; r < turns.results && r < line[2].count; ++r)
                for (int64_t q = 0; q < turns.taps && q < line[2].taps; ++q) columns(a, b, rows, x_row, y_row, r, q);
        }
}

template <typename T, typename W>
void solve_weights(const Window &window, const Maps<T> &input, const Maps<T> &output, T *weight) {
    constexpr int64_t N = LANES<W>;
    const Blocks blocks = blocks_of<W>(window);
    const Axis *axis = window.axis;
    const int64_t taps = axis[0].kernel * axis[1].kernel * axis[2].kernel;
    const Turns turns = turns_of(line_of(axis[2], Direction::forward, 0));
    int64_t size[AXES], out[AXES], margin[AXES] = {};
    Line whole[AXES];
    for (int a = 0; a < AXES; ++a) {
        size[a] = axis[a].size, out[a] = axis[a].out;
        whole[a] = line_of(axis[a], Direction::forward, 0);
    }
    margin[1] = (MOST_ROWS - 1) * axis[1].dilation, margin[2] = MOST_TAPS<W> * turns.apart;
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
    int64_t at_once = std::min(blocks_at_once(blocks, input), blocks_at_once(blocks, output));
    const Tiles tiles = tiles_of(out, at_once, [&](const Region &result) {
        const int64_t x = planes_in_scratch(blocks) * vectors(read(result), turns.apart);
        return (x + vectors(result, turns.results)) * BYTES;
    });
    const int64_t groups = ceil_div(blocks.count, at_once);
    const int64_t units = window.batch * tiles.all();
    const int64_t chunks = std::min(units, ceil_div(TASKS, groups)), length = blocks.planes * taps * N;
    W *partial = weight_scratch.at_least<W>(blocks.count * chunks * length);
    on_threads(groups * chunks, groups * chunks > 1, [&](int64_t task) {
        const int64_t group = task % groups * at_once, here = std::min(at_once, blocks.count - group);
        const int64_t chunk = task / groups;
        for (int64_t block = group; block < group + here; ++block) {
            W *sums = partial + (block * chunks + chunk) * length;
            std::fill(sums, sums + length, W(0));
        }
        const auto channels = blocks.result<W>(group);
        for (int64_t unit = chunk * units / chunks; unit < (chunk + 1) * units / chunks; ++unit) {
            const Region result = tiles[unit % tiles.all()], source = read(result);
            const int64_t example = unit / tiles.all();
            const int64_t x_plane = vectors(source, turns.apart) * N, y_plane = vectors(result, turns.results) * N;
            int64_t *place = number_scratch.at_least<int64_t>(source.extent(2) + result.extent(2));
            W *scratch = tile_scratch.at_least<W>(at_once * (planes_in_scratch(blocks) * x_plane + y_plane));
            Tile<W> y = tile_of(scratch, result, turns.results, place);
            Tile<W> x = tile_of(scratch + at_once * y_plane, source, turns.apart, place + result.extent(2));
            pack<T, W>(y, output, example, out, channels, here, y_plane);
            pack_planes<T, W>(x, x_plane, input, example, size, blocks, group, here);
            Line line[AXES];
            for (int a = 0; a < AXES; ++a) line[a] = within(whole[a], result.from[a], result.to[a]);
            for (int64_t block = group; block < group + here; ++block, y.data += y_plane)
                for (int64_t p = 0; p < blocks.planes; ++p, x.data += x_plane)
                    contribute<W>(line, size, x, y, partial + (block * chunks + chunk) * length + p * taps * N);
        }
    });
    on_threads<Share::even>(blocks.count, blocks.count > 1, [&](int64_t block) {
        const auto channels = blocks.result<W>(block);
        W *sums = partial + block * chunks * length;
        for (int64_t chunk = 1; chunk < chunks; ++chunk)
            for (int64_t i = 0; i < length; ++i) sums[i] += sums[chunk * length + i];
        for (int64_t l = 0; l < channels.used; ++l)
            for (int64_t i = 0; i < blocks.planes * taps; ++i)
                weight[channels.of[l] * blocks.planes * taps + i] = narrow<T, W>(sums[i * N + l]);
    });
}

}  // namespace

template <typename T>
void channels(const Window &window, Maps<T> input, Maps<T> output, T *weight) {
    using W = typename Wide<T>::type;
    if (window.direction != Direction::weight_gradient && direct<T>(window, input, output, weight)) return;
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
