// Boxes of positions: what a thread takes at once, so that it stays in its cache.
#pragma once

#include <algorithm>

#include "strips.hpp"

namespace striate::STRIATE_SET {
inline namespace position_lanes {

constexpr int64_t BUDGET = 448 << 10;  // bytes of a box: it shares the second level of cache with the weights
constexpr int64_t TASKS = 4;           // boxes that a call has at least, where it can be cut

inline int64_t modulo(int64_t a, int64_t b) { return a - floor_div(a, b) * b; }

struct Box {
    int64_t lo[AXES], n[AXES];
};

// Boxes of equal size, but for the last of each axis.
struct Grid {
    int64_t size[AXES], step[AXES];
    int64_t count(int a) const { return ceil_div(size[a], step[a]); }
    int64_t boxes() const { return count(0) * count(1) * count(2); }
    Box box(int64_t number) const {
        Box box{};
        for (int a = AXES - 1; a >= 0; --a) {
            box.lo[a] = number % count(a) * step[a];
            box.n[a] = std::min(step[a], size[a] - box.lo[a]);
            number /= count(a);
        }
        return box;
    }
};

inline Box corner(const int64_t *step) { return {{0, 0, 0}, {step[0], step[1], step[2]}}; }

// Halve boxes until `bytes(box)` fits and there are enough of them; only axes that `may` be cut are.
template <typename Bytes>
Grid cut(const int64_t *size, const bool *may, int axis, int64_t others, Bytes bytes) {
    Grid grid{};
    for (int a = 0; a < AXES; ++a) grid.size[a] = grid.step[a] = size[a];
    auto halve = [&](int a, int64_t least) {
        if (!may[a] || grid.step[a] <= least) return false;
        grid.step[a] = ceil_div(ceil_div(grid.step[a], 2), least) * least;
        return true;
    };
    while (bytes(grid.step) > BUDGET)
        if (!halve(0, 1) && !halve(1, 1) && !halve(2, 16) && !halve(2, 1)) break;
    while (grid.boxes() * others < TASKS)
        if (!halve(axis, 1)) break;
    return grid;
}

}  // namespace position_lanes
}  // namespace striate::STRIATE_SET
