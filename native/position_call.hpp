// What the kernels of positions share: which positions share weights, what they read, and how maps are packed.
#pragma once

#include <cstring>
#include <numeric>
#include <vector>

#include "position_tiles.hpp"

namespace striate::STRIATE_SET {
namespace {

// -------------------------------------------------------------------------------------- positions that share weights

struct Tap {
    int64_t index, offset, residue;
};

// The positions target + target_step * n of one axis whose weights are the same, and what they read.
struct Class {
    int64_t id, target, count, target_step, source, source_step;
    std::vector<Tap> taps;
};
using Classes = std::array<std::vector<Class>, AXES>;

// Outputs lo, ..., lo + n - 1: one class for each residue of the period. Sources count in steps of the pitch.
std::vector<Class> outputs_by_class(const Axis &axis, int64_t lo, int64_t n, int64_t pitch) {
    std::vector<Class> classes;
    const int64_t period = axis.period;
    for (int64_t f = 0; f < std::min(period, n); ++f) {
        const int64_t id = modulo(lo + f, period);
        Class found{id, f, ceil_div(n - f, period), period, f * axis.stride / pitch, period * axis.stride / pitch, {}};
        for (int64_t t = 0; t < axis.kernel; ++t) found.taps.push_back({t, t * axis.dilation / pitch, id});
        classes.push_back(std::move(found));
    }
    return classes;
}

int64_t first_output(const Axis &axis, int64_t lo) {
    return floor_div(lo + axis.before, axis.stride) - (axis.kernel - 1) * axis.dilation / axis.stride;
}

// Inputs lo, ..., lo + n - 1: one class for each residue of stride times period, with the taps that reach it from
// outputs, which count from first_output.
std::vector<Class> inputs_by_class(const Axis &axis, int64_t lo, int64_t n) {
    std::vector<Class> classes;
    const int64_t stride = axis.stride, period = axis.period, step = stride * period;
    for (int64_t f = 0; f < std::min(step, n); ++f) {
        const int64_t i = lo + f + axis.before, rest = modulo(i, stride), o = floor_div(i, stride);
        Class found{modulo(i, step), f, ceil_div(n - f, step), step, o - first_output(axis, lo), period, {}};
        for (int64_t t = 0; t < axis.kernel; ++t)
            if (t * axis.dilation % stride == rest) {
                const int64_t back = (t * axis.dilation - rest) / stride;
                found.taps.push_back({t, -back, modulo(o - back, period)});
            }
        classes.push_back(std::move(found));
    }
    return classes;
}

// Where the vectors of a class stand in packed maps of some lane blocks.
void places(Offsets &found, const Class *const *of, const int64_t *extent, int64_t blocks, int64_t block, int lanes,
            bool source) {
    found.clear();
    int64_t first[AXES], step[AXES];
    for (int a = 0; a < AXES; ++a) {
        first[a] = source ? of[a]->source : of[a]->target;
        step[a] = source ? of[a]->source_step : of[a]->target_step;
    }
    for (int64_t b = 0; b < blocks; ++b)
        for (int64_t i = 0; i < of[0]->count; ++i)
            for (int64_t j = 0; j < of[1]->count; ++j) {
                int64_t row = (first[0] + i * step[0]) * extent[1] + first[1] + j * step[1];
                for (int64_t k = 0; k < of[2]->count; ++k)
                    found.push_back(b * block + (row * extent[2] + first[2] + k * step[2]) * lanes);
            }
}

// Where the reads of a class stand, relative to its vectors: channels, then taps.
void reads_of(Offsets &found, const Class *const *of, const Region &source, int64_t channels, int lanes) {
    found.clear();
    const auto &e = source.extent;
    const int64_t plane = source.plane();
    for (int64_t c = 0; c < channels; ++c)
        for (const Tap &i : of[0]->taps)
            for (const Tap &j : of[1]->taps)
                for (const Tap &k : of[2]->taps)
                    found.push_back((c * plane + (i.offset * e[1] + j.offset) * e[2] + k.offset) * lanes);
}

// ------------------------------------------------------------------------------------------------------------ a call

template <typename T>
struct Call {
    using W = typename Wide<T>::type;
    static constexpr int L = LANES<W>;

    const Window &window;
    Maps<T> x, y;
    T *weight;
    int64_t in, out, taps, reads;          // channels of a group; taps of the kernel; in * taps
    int64_t sizes[AXES], outputs[AXES];    // positions of the input and of the output
    int axis = AXES - 1;                   // of the strips, and of the boxes that threads share: the first with outputs
    bool own;                              // along it no weight is used twice
    int64_t strips = 1, strip_outputs, lanes;

    Call(const Window &window, Maps<T> x, Maps<T> y, T *weight)
        : window(window), x(x), y(y), weight(weight), in(window.in_channels / window.groups),
          out(window.out_channels / window.groups), taps(1) {
        for (int a = 0; a < AXES; ++a) {
            taps *= window.axis[a].kernel;
            sizes[a] = window.axis[a].size, outputs[a] = window.axis[a].out;
        }
        reads = in * taps;
        for (int a = AXES - 1; a >= 0; --a)
            if (outputs[a] > 1) axis = a;
        own = window.axis[axis].period > 1 && window.axis[axis].period >= outputs[axis];
        choose_strips();
    }

    int64_t blocks() const { return ceil_div(lanes, L); }
    int64_t strip_inputs() const { return strip_outputs * window.axis[axis].stride; }

    // The lane block `number` of the input or of the output.
    Block<T> block(const Maps<T> &maps, int64_t number, int64_t strip) const {
        Block<T> found{{}, {}, axis, 0};
        for (int l = 0; l < L; ++l) {
            const int64_t lane = number * L + l;
            if (lane >= lanes) continue;
            found.shift[l] = lane % strips * strip;
            found.base[l] = maps.data + lane / strips * maps.batch + found.shift[l] * maps.step[axis];
            found.count = l + 1;
        }
        return found;
    }
    Block<T> input_block(int64_t number) const { return block(x, number, strip_inputs()); }
    Block<T> output_block(int64_t number) const { return block(y, number, strip_outputs); }

    // The first weight of some residues and a group.
    T *kernels(int64_t r0, int64_t r1, int64_t r2, int64_t group) const {
        const auto &a = window.axis;
        const int64_t residue = (r0 * a[1].period + r1) * a[2].period + r2;
        return weight + (residue * window.out_channels + group * out) * reads;
    }

  private:
    // Where weights are shared along the axis, an example may be cut into strips that fill the lanes.
    void choose_strips() {
        const Axis &a = window.axis[axis];
        const bool inputs = window.direction == Direction::input_gradient;
        const int64_t all = inputs ? ceil_div(a.size, a.stride) : a.out;
        double best = 0;
        for (int64_t wanted = 1; wanted <= (own ? 1 : L); wanted *= 2) {
            const int64_t length = ceil_div(ceil_div(all, wanted), a.period) * a.period, pieces = ceil_div(all, length);
            const int64_t filled = ceil_div(window.batch * pieces, L) * L;
            const double used = double(window.batch * all) / double(filled * length);
            if (used > 1.05 * best) best = used, strips = pieces, strip_outputs = length;
        }
        lanes = window.batch * strips;
    }
};

Region inputs_of(const Window &window, const Box &box, bool spread) {
    Region region{};
    for (int a = 0; a < AXES; ++a) {
        const Axis &axis = window.axis[a];
        int64_t pitch = axis.kernel == 1 ? axis.stride : box.n[a] == 1 ? axis.dilation : 0;
        region.pitch[a] = spread ? 1 : pitch ? pitch : std::gcd(axis.stride, axis.dilation);
        region.origin[a] = box.lo[a] * axis.stride - axis.before;
        region.extent[a] = ((box.n[a] - 1) * axis.stride + (axis.kernel - 1) * axis.dilation) / region.pitch[a] + 1;
    }
    return region;
}

Region outputs_of(const Window &window, const Box &box) {
    Region region{};
    for (int a = 0; a < AXES; ++a) {
        const Axis &axis = window.axis[a];
        const int64_t first = first_output(axis, box.lo[a]);
        region.origin[a] = first, region.pitch[a] = 1;
        region.extent[a] = floor_div(box.lo[a] + box.n[a] - 1 + axis.before, axis.stride) - first + 1;
    }
    return region;
}

Region plain(const Box &box) {
    Region region{};
    for (int a = 0; a < AXES; ++a) region.origin[a] = box.lo[a], region.extent[a] = box.n[a], region.pitch[a] = 1;
    return region;
}

}  // namespace
}  // namespace striate::STRIATE_SET
