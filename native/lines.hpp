// The lines of a window: which taps of which sources its results read, on each axis and in blocks of channels, and the
// weights in the order in which those blocks read them. Compiled once for each instruction set.
#pragma once

#include <numeric>

#include "packing.hpp"

namespace striate::STRIATE_SET {
inline namespace channel_lanes {

// Divisors are strides and dilations: mostly 1, and division is slow.
inline int64_t floor_div(int64_t a, int64_t b) { return b == 1 ? a : a / b - (a % b < 0); }
inline int64_t ceil_div(int64_t a, int64_t b) { return -floor_div(-a, b); }

// Results on one axis that read the source in the same way: result `first + i * step` reads source
// `source + i * stride + j * dilation` through tap `tap + j * tap_step`, for each j < taps.
struct Line {
    int64_t count, first, step, source, stride, dilation, taps, tap, tap_step;
};

// Taps [from, to) reach [0, size) from some of the results whose first one reads `source` through tap 0, and whose last
// one reads `ahead` of it. Numbers and no Line, because a copy of a Line is read back only when all results stored
// before it have reached the cache.
struct Reach {
    int64_t from, to;
};
inline Reach reach(int64_t source, int64_t dilation, int64_t taps, int64_t ahead, int64_t size) {
    int64_t from = std::max<int64_t>(ceil_div(-source - ahead, dilation), 0);
    int64_t to = std::min(floor_div(size - 1 - source, dilation) + 1, taps);
    return {from, std::max(from, to)};
}

// Forward, all results are alike. The input gradient gathers: input i is read through the taps for which
// i + before - tap * dilation is a multiple of the stride, so that there is one line for each remainder of i + before.
inline Line line_of(const Axis &axis, Direction direction, int64_t number) {
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

inline int64_t lines(const Axis &axis, Direction direction) {
    return direction == Direction::input_gradient ? std::min(axis.stride, axis.size) : 1;
}

// The line with those results alone that lie in [from, to).
inline Line within(Line line, int64_t from, int64_t to) {
    int64_t skip = std::max<int64_t>(ceil_div(from - line.first, line.step), 0);
    int64_t end = std::min(ceil_div(to - line.first, line.step), line.count);
    line.first += skip * line.step, line.source += skip * line.stride;
    line.count = std::max<int64_t>(end - skip, 0);
    return line;
}

// How results and taps of a row are taken in turn so that those in one turn read columns `apart` from each other:
// every `results`-th result and every `taps`-th tap.
struct Turns {
    int64_t apart, results, taps;
};
inline Turns turns_of(const Line &row) {
    int64_t common = std::gcd(row.stride, row.dilation);
    return {row.stride / common * row.dilation, row.dilation / common, row.stride / common};
}

// Which channels a block of lanes holds, and of which planes of the other side it is made.
struct Blocks {
    int64_t result_channels, source_channels, each, planes, count;  // `each` result channels in a group
    bool overlap = false;                                          // so that the last block is whole, too
    template <typename W>
    int64_t first(int64_t block) const {
        return overlap ? std::min<int64_t>(block * LANES<W>, result_channels - LANES<W>) : block * LANES<W>;
    }
    template <typename W>
    Channels<W> result(int64_t block) const {
        Channels<W> channels{{}, 0, result_channels, true};
        int64_t first = this->first<W>(block);
        channels.used = std::min<int64_t>(LANES<W>, result_channels - first);
        for (int64_t l = 0; l < LANES<W>; ++l) channels.of[l] = first + std::min(l, channels.used - 1);
        return channels;
    }
    template <typename W>
    Channels<W> source(int64_t block, int64_t plane) const {
        Channels<W> channels = result<W>(block);
        channels.total = source_channels;
        if (each == 1 && planes == 1) return channels;
        channels.adjacent = false;
        int64_t group = channels.of[0] / each, own = channels.of[0] % each;
        for (int64_t l = 0; l < LANES<W>; ++l) {
            channels.of[l] = group * planes + plane;
            if (l + 1 < channels.used && ++own == each) own = 0, ++group;
        }
        return channels;
    }
    // The channels of all planes, if one vector has room for them: then each plane is a choice among its lanes.
    template <typename W>
    bool span(int64_t block, Channels<W> &all) const {
        const Channels<W> first = source<W>(block, 0), last = source<W>(block, planes - 1);
        all = result<W>(block);
        if (first.adjacent || last.of[LANES<W> - 1] - first.of[0] >= LANES<W>) return false;
        all.total = source_channels;
        for (int64_t l = 0; l < LANES<W>; ++l) all.of[l] = std::min(first.of[0] + l, last.of[LANES<W> - 1]);
        return true;
    }
};

template <typename W>
Blocks blocks_of(const Window &window) {
    bool inward = window.direction == Direction::input_gradient;
    int64_t results = inward ? window.in_channels : window.out_channels;
    int64_t sources = inward ? window.out_channels : window.in_channels;
    return {results, sources, results / window.groups, sources / window.groups, ceil_div(results, LANES<W>)};
}

// Where the taps of a row stand in the packed weights: those that one turn of one line reads, one after the other.
inline void place_taps(int64_t *place, const Axis &axis, Direction direction, int64_t lanes) {
    int64_t next = 0;
    for (int64_t number = 0; number < lines(axis, direction); ++number) {
        const Line line = line_of(axis, direction, number);
        const Turns turns = turns_of(line);
        for (int64_t q = 0; q < turns.taps && q < line.taps; ++q)
            for (int64_t j = q; j < line.taps; j += turns.taps) place[line.tap + j * line.tap_step] = lanes * next++;
    }
}

// Weights as the lanes of each block read them: [block][plane][row of taps][tap][lane].
template <typename T, typename W>
void pack_weights(W *to, const int64_t *place, const T *weight, const Blocks &blocks, const Axis *axis, bool inward) {
    const int64_t rows = axis[0].kernel * axis[1].kernel, columns = axis[2].kernel, length = rows * columns;
    for (int64_t block = 0; block < blocks.count; ++block) {
        const auto channels = blocks.result<W>(block);
        for (int64_t plane = 0; plane < blocks.planes; ++plane, to += length * LANES<W>)
            for (int64_t l = 0; l < LANES<W>; ++l) {
                const int64_t channel = channels.of[l], group = channel / blocks.each, own = channel % blocks.each;
                const int64_t pair = inward ? (group * blocks.planes + plane) * blocks.each + own
                                            : channel * blocks.planes + plane;
                for (int64_t row = 0; row < rows; ++row)
                    for (int64_t tap = 0; tap < columns; ++tap)
                        if (place[tap] >= 0)  // a stride may pass over some
                            to[row * columns * LANES<W> + place[tap] + l] =
                                widen(weight[pair * length + row * columns + tap]);
            }
    }
}

}  // namespace channel_lanes
}  // namespace striate::STRIATE_SET
