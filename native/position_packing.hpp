// Boxes of maps packed with their channels last, so that what a row of taps reads is one run of numbers.
#pragma once

#include <cstring>

#include "boxes.hpp"
#include "window.hpp"

namespace striate::STRIATE_SET {
namespace {

// As many channels as lanes, of which at most N are there, of some neighbouring positions.
template <int N, typename T, typename W>
void pack_square(W *to, const T *from, int64_t channel, int64_t channels, int64_t width, int64_t wanted, int64_t count,
                 int64_t next) {
    constexpr int L = LANES<W>;
    for (int64_t k = 0; k < count; k += L) {
        const int64_t left = count - k;
        vec<W> block[L] = {};
#pragma GCC unroll 16
        for (int i = 0; i < N; ++i)
            if (i < channels) {
                const T *some = from + i * channel + k;
                block[i] = left < L ? load(some, 0, left) : load(some);
                __builtin_prefetch(some + next);
            }
        transpose<W>(block);
        for (int i = 0; i < std::min<int64_t>(L, left); ++i) store(to + (k + i) * width, block[i], 0, wanted);
    }
}

// Channels of some neighbouring positions of a row, `width` numbers for each; those past the last channel are 0. The
// row that will be packed next lies `next` further.
template <typename T, typename W>
void pack_row(W *to, const T *from, int64_t step, int64_t channel, int64_t channels, int64_t width, int64_t count,
              int64_t next) {
    constexpr int L = LANES<W>;
    auto copy = [](W *into, const T *source, int64_t has, int64_t wanted) {
        for (int64_t i = 0; i < wanted; i += L) store(into + i, load(source + i, 0, has - i), 0, wanted - i);
    };
    if (width == channels && step == channels && (channel == 1 || channels == 1)) {
        copy(to, from, count * channels, count * channels);
    } else if (channel == 1) {
        for (int64_t k = 0; k < count; ++k) copy(to + k * width, from + k * step, channels, width);
    } else if (step == 1) {
        for (int64_t c = 0; c < width; c += L)
            if (channels - c <= L / 2)
                pack_square<L / 2>(to + c, from + c * channel, channel, channels - c, width, width - c, count, next);
            else
                pack_square<L>(to + c, from + c * channel, channel, channels - c, width, width - c, count, next);
    } else {
        for (int64_t k = 0; k < count; ++k)
            for (int64_t c = 0; c < width; ++c)
                to[k * width + c] = c < channels ? W(widen(from[c * channel + k * step])) : W(0);
    }
}

// How a box of maps is packed: positions origin + pitch * i, `step` numbers apart, `width` of them used.
struct Packing {
    int64_t pitch[AXES], step[AXES], width, size;

    void set_steps(const int64_t *extent) {
        step[2] = width, step[1] = extent[2] * step[2], step[0] = extent[1] * step[1];
        const int64_t line = 16, slack = 48;  // vectors are loaded past the end
        size = (ceil_div(extent[0] * step[0] + slack, line) | 1) * line;  // apart in the sets of the cache
    }
};

// Positions outside the tensor are 0.
template <typename T, typename W>
void pack_box(W *to, const Packing &packing, const Maps<T> &maps, const T *base, const int64_t *origin,
              const int64_t *extent, const int64_t *sizes, int64_t channels) {
    int64_t first[AXES], last[AXES];
    for (int a = 0; a < AXES; ++a) {
        first[a] = std::clamp<int64_t>(ceil_div(-origin[a], packing.pitch[a]), 0, extent[a]);
        last[a] = std::clamp<int64_t>(ceil_div(sizes[a] - origin[a], packing.pitch[a]), first[a], extent[a]);
    }
    const bool joined = first[2] == 0 && last[2] == extent[2] && packing.step[1] == extent[2] * packing.width &&
                        maps.step[1] * packing.pitch[1] == extent[2] * maps.step[2] * packing.pitch[2];
    auto zero = [&](W *row, int64_t positions) { std::memset(row, 0, positions * packing.width * sizeof(W)); };
    for (int64_t i = 0; i < extent[0]; ++i)
        for (int64_t j = 0; j < extent[1]; ++j) {
            W *row = to + i * packing.step[0] + j * packing.step[1];
            if (i < first[0] || i >= last[0] || j < first[1] || j >= last[1]) {
                zero(row, extent[2]);
                continue;
            }
            int64_t offset = 0;
            const int64_t at[AXES] = {i, j, first[2]};
            for (int a = 0; a < AXES; ++a) offset += (origin[a] + at[a] * packing.pitch[a]) * maps.step[a];
            const int64_t rows = joined ? last[1] - j : 1;
            zero(row, first[2]);
            pack_row(row + first[2] * packing.width, base + offset, maps.step[2] * packing.pitch[2], maps.channel,
                     channels, packing.width, rows * (last[2] - first[2]), maps.step[1] * packing.pitch[1]);
            zero(row + last[2] * packing.width, extent[2] - last[2]);
            j += rows - 1;
        }
}

}  // namespace
}  // namespace striate::STRIATE_SET
