// The gradient of the input where kernels are used once: added up in the lanes.
#pragma once

#include "position_call.hpp"
#include "threads.hpp"

namespace striate::STRIATE_SET {
namespace {

// Bands of output rows are added to a window of input rows that moves along with them.
template <typename T>
class Scatter {
    using W = typename Call<T>::W;
    static constexpr int L = Call<T>::L;
    const Call<T> &call;
    Grid grid;
    int64_t together, parts, part;  // lane blocks in a task; parts of the channels, and channels of a part
    Region reach;                   // inputs of a band, whose origin along the axis moves

  public:
    explicit Scatter(const Call<T> &call) : call(call) {
        const Window &window = call.window;
        together = std::min<int64_t>(call.blocks(), 4);
        const int64_t others = ceil_div(call.blocks(), together) * window.groups;
        parts = std::clamp<int64_t>(ceil_div(TASKS, others), 1, call.in);
        part = ceil_div(call.in, parts);
        parts = ceil_div(call.in, part);
        bool may[AXES] = {};
        may[call.axis] = true;
        grid = cut(call.outputs, may, call.axis, TASKS, [&](const int64_t *step) {
            return int64_t(sizeof(W)) * L * together *
                   (part * region(corner(step)).plane() + call.out * plain(corner(step)).plane());
        });
        reach = region(corner(grid.step));
    }

    void run() const {
        const int64_t groups = call.window.groups, tasks = ceil_div(call.blocks(), together) * groups * parts;
        on_threads(tasks, tasks > 1, [&](int64_t task) {
            const int64_t first = task / parts / groups * together;
            add(first, std::min(together, call.blocks() - first), task / parts % groups, task % parts * part);
        });
    }

  private:
    // All inputs of the other axes, read or not, and what a band reads of the axis that is cut.
    Region region(const Box &box) const {
        Region found = inputs_of(call.window, box, true);
        for (int a = 0; a < AXES; ++a)
            if (a != call.axis) {
                const int64_t stop = std::max(found.origin[a] + found.extent[a], call.sizes[a]);
                found.origin[a] = std::min<int64_t>(found.origin[a], 0);
                found.extent[a] = stop - found.origin[a];
            }
        return found;
    }

    struct Held {
        W *sums;
        Region region;
        int64_t first, blocks, channel, channels;
    };

    // Rows before `top` are complete: write them and move the others up.
    void advance(Held &held, int64_t top) const {
        const int a = call.axis;
        int64_t inner = L, outer = 1;
        for (int b = 0; b < AXES; ++b) (b > a ? inner : outer) *= b == a ? 1 : held.region.extent[b];
        const int64_t planes = held.blocks * held.channels, size = held.region.plane() * L;
        const int64_t rows = held.region.extent[a];
        while (held.region.origin[a] < top) {
            const int64_t done = std::min(rows, top - held.region.origin[a]);
            int64_t sizes[AXES] = {call.sizes[0], call.sizes[1], call.sizes[2]};
            sizes[a] = std::min(sizes[a], held.region.origin[a] + done);
            for (int64_t b = 0; b < held.blocks; ++b)
                unpack(held.sums + b * held.channels * size, call.x,
                       call.input_block(held.first + b), held.region, sizes, held.channel, held.channels);
            for (int64_t i = 0; i < planes * outer; ++i) {
                W *part = held.sums + i / outer * size + i % outer * rows * inner;
                std::memmove(part, part + done * inner, (rows - done) * inner * sizeof(W));
                std::memset(part + (rows - done) * inner, 0, done * inner * sizeof(W));
            }
            held.region.origin[a] += done;
        }
    }

    void add(int64_t first, int64_t blocks, int64_t group, int64_t channel) const {
        static thread_local Workspace workspace;
        const Window &window = call.window;
        const Axis &axis = window.axis[call.axis];
        const int64_t channels = std::min(part, call.in - channel), plane = reach.plane() * L;
        const int64_t most = plain(corner(grid.step)).plane() * L;
        const bool widens = !std::is_same_v<T, W>;
        W *sums = workspace.get<W>(blocks * (channels * plane + call.out * most) +
                                   (widens ? call.out * channels * call.taps : 0));
        W *from = sums + blocks * channels * plane, *wide = from + blocks * call.out * most;
        std::memset(sums, 0, blocks * channels * plane * sizeof(W));
        Held held{sums, reach, first, blocks, group * call.in + channel, channels};
        held.region.origin[call.axis] = std::min<int64_t>(-axis.before, 0);
        const int64_t rows = channels * call.taps;
        const Shape shape = best_shape(rows, blocks, true);
        Offsets reads, at, into, targets;
        for (int64_t number = 0; number < grid.boxes(); ++number) {
            const Box box = grid.box(number);
            const Region source = plain(box);
            const int64_t source_plane = source.plane() * L;
            advance(held, box.lo[call.axis] * axis.stride - axis.before);
            for (int64_t b = 0; b < blocks; ++b)
                pack(from + b * call.out * source_plane, call.y, call.output_block(first + b), source, call.outputs,
                     group * call.out, call.out);
            reads.clear();
            for (int64_t o = 0; o < call.out; ++o) reads.push_back(o * source_plane);
            Classes classes;
            for (int a = 0; a < AXES; ++a) {
                classes[a] = outputs_by_class(window.axis[a], box.lo[a], box.n[a], 1);
                for (Class &found : classes[a])
                    found.source += box.lo[a] * window.axis[a].stride - window.axis[a].before - held.region.origin[a];
            }
            const Class *some[AXES] = {&classes[0][0], &classes[1][0], &classes[2][0]};
            reads_of(targets, some, held.region, channels, L);
            for (const Class &i : classes[0])
                for (const Class &j : classes[1])
                    for (const Class &k : classes[2]) {
                        const Class *of[AXES] = {&i, &j, &k};
                        places(at, of, source.extent, blocks, call.out * source_plane, L, false);
                        places(into, of, held.region.extent, blocks, channels * plane, L, true);
                        const T *kernel = call.kernels(i.id, j.id, k.id, group) + channel * call.taps;
                        const auto [weights, step] = widened(kernel, wide, rows);
                        const T *next = kernel + window.out_channels * call.reads;
                        const Ahead ahead{reinterpret_cast<const char *>(next), call.reads * int64_t(sizeof(T))};
                        add_tiles(shape, from, at, reads, weights, step, ahead, rows, sums, into, targets);
                    }
        }
        advance(held, std::max(call.sizes[call.axis], held.region.origin[call.axis]));
        workspace.trim();
    }

    // The part of a kernel that is used, and how far it is from one output channel to the next.
    std::pair<const W *, int64_t> widened(const T *kernel, W *wide, int64_t rows) const {
        if constexpr (std::is_same_v<T, W>) {
            return {kernel, call.reads};
        } else {
            for (int64_t o = 0; o < call.out; ++o)
                for (int64_t q = 0; q < rows; ++q) wide[o * rows + q] = widen(kernel[o * call.reads + q]);
            return {wide, rows};
        }
    }
};

}  // namespace
}  // namespace striate::STRIATE_SET
