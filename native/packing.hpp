// Tiles of maps, packed so that the lanes of a vector are channels: [position][lane], widened, bordered by zeros.
// Each instruction set packs vectors as wide as its registers. Compiled once for each set.
#pragma once

#include <algorithm>
#include <cstdlib>
#include <new>
#include <type_traits>
#include <utility>

#include "lanes.hpp"

// A namespace of its own: the headers of other kernels have functions of the same names.
namespace striate::STRIATE_SET {
inline namespace channel_lanes {

#if defined(__AVX512F__)
constexpr int BYTES = 64, REGISTERS = 32;
#elif defined(__AVX__)
constexpr int BYTES = 32, REGISTERS = 16;
#else
constexpr int BYTES = 16, REGISTERS = 16;
#endif

#define STRIATE_INLINE __attribute__((always_inline))

template <typename W>
struct Register;
template <>
struct Register<float> {
    typedef float type __attribute__((vector_size(BYTES)));
    typedef float loose __attribute__((vector_size(BYTES), aligned(4), may_alias));  // at any address
    typedef int32_t places __attribute__((vector_size(BYTES)));
};
template <>
struct Register<double> {
    typedef double type __attribute__((vector_size(BYTES)));
    typedef double loose __attribute__((vector_size(BYTES), aligned(8), may_alias));
    typedef int64_t places __attribute__((vector_size(BYTES)));
};
template <typename W>
using Lanes = typename Register<W>::type;
template <typename W>
constexpr int LANES = BYTES / int(sizeof(W));

// Calls f(0), f(1), ... f(N - 1) with numbers that are constants, so that arrays indexed by them live in registers.
template <int N, typename F>
STRIATE_INLINE inline void unroll(F f) {
    [&]<int... I>(std::integer_sequence<int, I...>) STRIATE_INLINE {
        (f(std::integral_constant<int, I>{}), ...);
    }(std::make_integer_sequence<int, N>{});
}

template <typename W>
STRIATE_INLINE inline Lanes<W> load(const W *from) {
    return *reinterpret_cast<const typename Register<W>::loose *>(from);
}
template <typename W>
STRIATE_INLINE inline void store(W *to, Lanes<W> x) {
    *reinterpret_cast<typename Register<W>::loose *>(to) = x;
}

typedef uint16_t halves __attribute__((vector_size(BYTES / 2), aligned(2), may_alias));
typedef uint32_t words __attribute__((vector_size(BYTES)));

STRIATE_INLINE inline Lanes<float> load(const bfloat16 *from) {
    words bits = __builtin_convertvector(*reinterpret_cast<const halves *>(from), words) << 16;
    return (Lanes<float>)bits;
}
STRIATE_INLINE inline void store(bfloat16 *to, Lanes<float> x) {
    words bits = (words)x;
    words rounded = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
    words quiet = bits >> 16 | 0x40;
    words chosen = (bits & 0x7fffffff) > 0x7f800000 ? quiet : rounded;
    *reinterpret_cast<halves *>(to) = __builtin_convertvector(chosen, halves);
}

template <typename T, typename W>
inline Lanes<W> load_some(const T *from, int64_t count) {
    alignas(BYTES) T some[LANES<W>] = {};
    std::memcpy(some, from, count * sizeof(T));
    return load(some);
}
template <typename T, typename W>
inline void store_some(T *to, Lanes<W> x, int64_t count) {
    alignas(BYTES) T some[LANES<W>];
    store(some, x);
    std::memcpy(to, some, count * sizeof(T));
}

// Rows become columns: one exchange of halves for each bit of the lane number.
template <typename W, int BIT = 1>
STRIATE_INLINE inline void transpose(Lanes<W> (&rows)[LANES<W>]) {
    constexpr int N = LANES<W>;
    if constexpr (BIT < N) {
        unroll<N>([&](auto row) STRIATE_INLINE {
            constexpr int low = row, high = low | BIT;
            if constexpr (low != high) {
                [&]<int... L>(std::integer_sequence<int, L...>) STRIATE_INLINE {
                    Lanes<W> a = rows[low], b = rows[high];
                    rows[low] = __builtin_shufflevector(a, b, (L & BIT ? N + (L ^ BIT) : L)...);
                    rows[high] = __builtin_shufflevector(a, b, (L & BIT ? N + L : L | BIT)...);
                }(std::make_integer_sequence<int, N>{});
            }
        });
        transpose<W, 2 * BIT>(rows);
    }
}

// Memory that a thread keeps from call to call.
struct Scratch {
    void *data = nullptr;
    size_t size = 0;
    ~Scratch() { std::free(data); }
    template <typename W>
    W *at_least(int64_t count) {
        size_t wanted = (count * sizeof(W) + 4095) / 4096 * 4096;
        if (wanted > size) {
            std::free(data);
            data = std::aligned_alloc(4096, wanted);
            size = data ? wanted : 0;
            if (!data) throw std::bad_alloc();
        }
        return static_cast<W *>(data);
    }
};

// Some positions of a map: [from, to) on each axis.
struct Region {
    int64_t from[AXES], to[AXES];
    int64_t extent(int axis) const { return std::max<int64_t>(to[axis] - from[axis], 0); }
    int64_t positions() const { return extent(0) * extent(1) * extent(2); }
};

// A region in scratch memory. Columns that lie `apart` from each other are neighbours: column c of the region is vector
// c % apart * (extent / apart, rounded up) + c / apart of its row.
template <typename W>
struct Tile {
    W *data;
    Region region;
    int64_t apart, step[2];  // in elements, from plane to plane and from row to row
    const int64_t *place;    // of each column in its row, in elements
};

inline int64_t row_of(const Region &region, int64_t apart) { return (region.extent(2) + apart - 1) / apart * apart; }
inline int64_t vectors(const Region &region, int64_t apart) {
    return region.extent(0) * region.extent(1) * row_of(region, apart);
}

template <typename W>
Tile<W> tile_of(W *data, const Region &region, int64_t apart, int64_t *place) {
    const int64_t row = row_of(region, apart);
    for (int64_t r = 0, c = 0; r < apart && r < region.extent(2); ++r)
        for (c = r; c < region.extent(2); c += apart) place[c] = (r * (row / apart) + c / apart) * LANES<W>;
    return {data, region, apart, {row * region.extent(1) * LANES<W>, row * LANES<W>}, place};
}

// Which channel each lane holds.
template <typename W>
struct Channels {
    int64_t of[LANES<W>], used, total;
    bool adjacent;  // lane l holds channel of[0] + l, and that channel exists if l < total - of[0]
};

// One row of positions, channels next to each other in memory, into `blocks` tiles that lie `apart` from each other.
template <typename T, typename W>
void pack_adjacent(W *to, const int64_t *place, const T *from, int64_t step, int64_t count, int64_t lanes,
                   int64_t blocks, int64_t apart) {
    constexpr int N = LANES<W>;
    const int64_t full = std::min(lanes / N, blocks);
    for (int64_t i = 0; i < count; ++i) {
        for (int64_t b = 0; b < full; ++b) {
            __builtin_prefetch(from + (i + count) * step + b * N);  // the next row
            store(to + b * apart + place[i], load(from + i * step + b * N));
        }
        if (full < blocks)
            store(to + full * apart + place[i], load_some<T, W>(from + i * step + full * N, lanes - full * N));
    }
}

// `rows` rows of `width` positions that follow each other in memory; in the tile, rows lie `pitch` elements apart.
template <typename T, typename W>
void pack_transposed(W *to, const int64_t *place, int64_t pitch, const T *const *lane, int64_t rows, int64_t width) {
    constexpr int N = LANES<W>;
    Lanes<W> block[N];
    int64_t count = rows * width, column = 0;
    for (int64_t start = 0; start < count; start += N) {
        const int64_t here = std::min<int64_t>(N, count - start);
        const int64_t skip = here < N && count >= N ? N - here : 0;  // the last ones are read with some before them
        if (here == N || skip)
            unroll<N>([&](auto l) STRIATE_INLINE { block[l] = load(lane[l] + start - skip); });
        else
            for (int l = 0; l < N; ++l) block[l] = load_some<T, W>(lane[l] + start, here);
        transpose<W>(block);
        if (here == N && column + N <= width) {
            unroll<N>([&](auto l) STRIATE_INLINE { store(to + place[column + l], block[l]); });
            column += N;
            if (column == width) column = 0, to += pitch;
            continue;
        }
        for (int64_t l = skip; l < skip + here; ++l) {
            store(to + place[column], block[l]);
            if (++column == width) column = 0, to += pitch;
        }
    }
}

template <typename T, typename W>
void pack_any(W *to, const int64_t *place, const T *const *lane, int64_t step, int64_t count) {
    for (int64_t i = 0; i < count; ++i)
        for (int l = 0; l < LANES<W>; ++l) to[place[i] + l] = widen(lane[l][i * step]);
}

// A region of one example, which may reach beyond the map: there it is 0. Of adjacent channels, more `blocks` than one
// may be packed at once, so that memory is read in order; their tiles lie `apart` from each other.
template <typename T, typename W>
void pack(const Tile<W> &tile, const Maps<T> &maps, int64_t example, const int64_t *size, const Channels<W> &channels,
          int64_t blocks = 1, int64_t apart = 0) {
    constexpr int N = LANES<W>;
    const Region &region = tile.region;
    const int64_t extent = region.extent(2), start = std::max<int64_t>(region.from[2], 0);
    const int64_t width = std::max<int64_t>(std::min(region.to[2], size[2]) - start, 0);
    const int64_t left = std::min(start - region.from[2], extent), right = std::min(left + width, extent);
    const int64_t first_row = std::max<int64_t>(region.from[1], 0), last_row = std::min(region.to[1], size[1]);
    const bool adjacent = channels.adjacent && maps.channel == 1;
    const bool rows_follow = !adjacent && maps.step[2] == 1 && maps.step[1] == width && width < N;
    const int64_t *place = tile.place + left;
    const auto zeros = [&](W *row, int64_t from, int64_t to) {
        for (int64_t b = 0; b < blocks; ++b)
            for (int64_t c = from; c < to; ++c) store(row + b * apart + tile.place[c], Lanes<W>{});
    };
    for (int64_t z = region.from[0]; z < region.to[0]; ++z) {
        const T *lane[N], *plane = maps.data + example * maps.batch + z * maps.step[0] + start * maps.step[2];
        const bool inside = z >= 0 && z < size[0] && width > 0;
        for (int64_t y = region.from[1]; y < region.to[1]; ++y) {
            W *row = tile.data + (z - region.from[0]) * tile.step[0] + (y - region.from[1]) * tile.step[1];
            if (!inside || y < 0 || y >= size[1]) {
                zeros(row, 0, extent);
                continue;
            }
            zeros(row, 0, left);
            zeros(row, right, extent);
            if (rows_follow && y > first_row) continue;
            const T *from = plane + y * maps.step[1];
            if (adjacent) {
                const int64_t lanes = channels.total - channels.of[0];
                pack_adjacent<T, W>(row, place, from + channels.of[0], maps.step[2], width, lanes, blocks, apart);
                continue;
            }
            for (int l = 0; l < N; ++l) lane[l] = from + channels.of[l] * maps.channel;
            const int64_t rows = rows_follow ? last_row - first_row : 1;
            if (maps.step[2] == 1)
                pack_transposed<T, W>(row, place, tile.step[1], lane, rows, width);
            else
                pack_any<T, W>(row, place, lane, maps.step[2], width);
        }
    }
}

// `count` packed positions that follow each other in memory, too.
template <typename T, typename W>
void unpack_transposed(T *const *lane, const W *from, int64_t count, int64_t used) {
    constexpr int N = LANES<W>;
    Lanes<W> block[N];
    for (int64_t start = 0; start < count; start += N) {
        int64_t here = std::min<int64_t>(N, count - start);
        int64_t first = count < N ? 0 : std::min(start, count - N);  // the last ones together with some before them
        if (count >= N)
            unroll<N>([&](auto i) STRIATE_INLINE { block[i] = load(from + (first + i) * N); });
        else
            for (int i = 0; i < N; ++i) block[i] = load(from + std::min<int64_t>(i, here - 1) * N);
        transpose<W>(block);
        if (used == N && count >= N)
            unroll<N>([&](auto l) STRIATE_INLINE { store(lane[l] + first, block[l]); });
        else
            for (int64_t l = 0; l < used; ++l) store_some<T, W>(lane[l] + first, block[l], std::min<int64_t>(N, count));
    }
}

// The inverse of `pack` for a region inside the map whose columns lie in order.
template <typename T, typename W>
void unpack(const W *tile, const Region &region, const Maps<T> &maps, int64_t example, const Channels<W> &channels) {
    constexpr int N = LANES<W>;
    const int64_t width = region.extent(2);
    const bool rows_follow = maps.step[2] == 1 && maps.step[1] == width;
    T *base = maps.data + example * maps.batch + region.from[2] * maps.step[2];
    T *lane[N];
    for (int64_t z = region.from[0]; z < region.to[0]; ++z)
        for (int64_t y = region.from[1]; y < region.to[1]; y += rows_follow ? region.extent(1) : 1) {
            const W *row = tile + ((z - region.from[0]) * region.extent(1) + y - region.from[1]) * width * N;
            T *to = base + z * maps.step[0] + y * maps.step[1];
            for (int l = 0; l < N; ++l) lane[l] = to + channels.of[l] * maps.channel;
            if (maps.step[2] == 1) {
                unpack_transposed<T, W>(lane, row, rows_follow ? width * region.extent(1) : width, channels.used);
            } else if (maps.channel == 1) {
                for (int64_t i = 0; i < width; ++i)
                    if (channels.used == N)
                        store(lane[0] + i * maps.step[2], load(row + i * N));
                    else
                        store_some<T, W>(lane[0] + i * maps.step[2], load(row + i * N), channels.used);
            } else {
                for (int64_t i = 0; i < width; ++i)
                    for (int64_t l = 0; l < channels.used; ++l)
                        lane[l][i * maps.step[2]] = narrow<T, W>(row[i * N + l]);
            }
        }
}

}  // namespace channel_lanes
}  // namespace striate::STRIATE_SET
