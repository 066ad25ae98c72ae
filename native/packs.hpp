// Vectors as wide as the registers of the instruction set, and the way of maps into their lanes and back: channels
// stand in the lanes, whatever the layout of the tensor.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <new>
#include <type_traits>
#include <utility>

#include "lanes.hpp"

// A namespace of its own: the headers of other kernels have functions of the same names.
namespace striate::STRIATE_SET {
inline namespace tile_lanes {

#if defined(__AVX512F__)
constexpr int BYTES = 64;
#elif defined(__AVX__)
constexpr int BYTES = 32;
#else
constexpr int BYTES = 16;
#endif

template <typename W>
constexpr int LANES = BYTES / int(sizeof(W));

template <typename W>
struct Register {
    typedef W type __attribute__((vector_size(BYTES)));
};
template <typename W>
using Pack = typename Register<W>::type;

template <typename W>
inline Pack<W> load(const W *from) {
    Pack<W> pack;
    std::memcpy(&pack, from, BYTES);
    return pack;
}

inline Pack<float> load(const bfloat16 *from) {
    typedef uint16_t halves __attribute__((vector_size(BYTES / 2)));
    typedef uint32_t bits __attribute__((vector_size(BYTES)));
    halves upper;
    std::memcpy(&upper, from, BYTES / 2);
    return (Pack<float>)(__builtin_convertvector(upper, bits) << 16);
}

template <typename W>
inline void store(W *to, Pack<W> pack) {
    std::memcpy(to, &pack, BYTES);
}

// To nearest, ties to even; a NaN stays one: as narrow() does.
inline void store(bfloat16 *to, Pack<float> pack) {
    typedef uint16_t halves __attribute__((vector_size(BYTES / 2)));
    typedef uint32_t bits __attribute__((vector_size(BYTES)));
    bits exact = (bits)pack;
    bits rounded = (exact + 0x7fff + (exact >> 16 & 1)) >> 16;
    bits nan = exact >> 16 | 0x40;
    halves upper = __builtin_convertvector((exact & 0x7fffffffu) > 0x7f800000u ? nan : rounded, halves);
    std::memcpy(to, &upper, BYTES / 2);
}

// Memory that starts on a cache line and is not set to anything.
template <typename W>
class Room {
   public:
    explicit Room(int64_t count)
        : start(static_cast<W *>(std::aligned_alloc(64, (count * sizeof(W) + 127) / 64 * 64))) {
        if (!start) throw std::bad_alloc();
    }
    ~Room() { std::free(start); }
    Room(const Room &) = delete;
    Room &operator=(const Room &) = delete;
    operator W *() const { return start; }

   private:
    W *start;
};

template <typename W, int S, int... I>
inline void exchange(Pack<W> &a, Pack<W> &b, std::integer_sequence<int, I...>) {
    constexpr int L = sizeof...(I);
    Pack<W> low = __builtin_shufflevector(a, b, ((I & S) ? L + (I ^ S) : I)...);
    Pack<W> high = __builtin_shufflevector(a, b, ((I & S) ? L + I : (I ^ S))...);
    a = low, b = high;
}

// Exchanges rows and lanes of a square of packs, one bit of their numbers after the other.
template <typename W, int S = LANES<W> / 2>
inline void transpose(Pack<W> *square) {
    if constexpr (S > 0) {
#pragma GCC unroll 16
        for (int i = 0; i < LANES<W>; ++i)
            if (!(i & S)) exchange<W, S>(square[i], square[i + S], std::make_integer_sequence<int, LANES<W>>());
        transpose<W, S / 2>(square);
    }
}

// A rectangle of maps: `channels` of them (at most as many as there are lanes), `rows` of `width` positions each.
struct Rectangle {
    int64_t channel, row, step;  // strides
    int channels;
    int64_t rows, width;

    // Rows without a gap between them are one long row.
    bool whole() const { return step == 1 && row == width; }
};

// Walks over the positions of a rectangle inside rows of `pitch` packs.
struct Walk {
    int64_t width, pitch, x, row;
    Walk(int64_t start, int64_t width, int64_t pitch)
        : width(width), pitch(pitch), x(start % width), row(start / width * pitch) {}
    int64_t next() {
        int64_t here = row + x;
        if (++x == width) x = 0, row += pitch;
        return here;
    }
};

// From the maps to packs with a channel in each lane, 0 in lanes without one; rows of `to` are `pitch` packs.
template <typename T, typename W>
inline void to_lanes(const T *from, const Rectangle &r, Pack<W> *to, int64_t pitch) {
    constexpr int L = LANES<W>;
    if (r.channel == 1 && r.channels == L) {
        for (int64_t y = 0; y < r.rows; ++y)
            for (int64_t x = 0; x < r.width; ++x) to[y * pitch + x] = load(from + y * r.row + x * r.step);
        return;
    }
    int64_t runs = r.whole() ? 1 : r.rows, run = r.whole() ? r.rows * r.width : r.width;
    if (r.step != 1 || run < L) {
        for (int64_t y = 0; y < r.rows; ++y)
            for (int64_t x = 0; x < r.width; ++x) {
                Pack<W> pack{};
                const T *value = from + y * r.row + x * r.step;
                for (int c = 0; c < r.channels; ++c) pack[c] = widen(value[c * r.channel]);
                to[y * pitch + x] = pack;
            }
        return;
    }
    for (int64_t y = 0; y < runs; ++y)
        for (int64_t start = 0; start < run; start += L) {
            int64_t q = start + L <= run ? start : run - L;
            const T *value = from + y * r.row + q;
            Pack<W> square[L];
#pragma GCC unroll 16
            for (int c = 0; c < L; ++c) square[c] = c < r.channels ? load(value + c * r.channel) : Pack<W>{};
            transpose<W>(square);
            Walk walk(q, r.width, pitch);
#pragma GCC unroll 16
            for (int i = 0; i < L; ++i) to[y * pitch + walk.next()] = square[i];
        }
}

// The way back.
template <typename T, typename W>
inline void from_lanes(const Pack<W> *from, int64_t pitch, const Rectangle &r, T *to) {
    constexpr int L = LANES<W>;
    if (r.channel == 1 && r.channels == L) {
        for (int64_t y = 0; y < r.rows; ++y)
            for (int64_t x = 0; x < r.width; ++x) store(to + y * r.row + x * r.step, from[y * pitch + x]);
        return;
    }
    int64_t runs = r.whole() ? 1 : r.rows, run = r.whole() ? r.rows * r.width : r.width;
    if (r.step != 1 || run < L) {
        for (int64_t y = 0; y < r.rows; ++y)
            for (int64_t x = 0; x < r.width; ++x) {
                T *value = to + y * r.row + x * r.step;
                for (int c = 0; c < r.channels; ++c) value[c * r.channel] = narrow<T, W>(from[y * pitch + x][c]);
            }
        return;
    }
    for (int64_t y = 0; y < runs; ++y)
        for (int64_t start = 0; start < run; start += L) {
            int64_t q = start + L <= run ? start : run - L;
            T *value = to + y * r.row + q;
            Pack<W> square[L];
            Walk walk(q, r.width, pitch);
#pragma GCC unroll 16
            for (int i = 0; i < L; ++i) square[i] = from[y * pitch + walk.next()];
            transpose<W>(square);
#pragma GCC unroll 16
            for (int c = 0; c < L; ++c)
                if (c < r.channels) store(value + c * r.channel, square[c]);
        }
}

}  // namespace tile_lanes
}  // namespace striate::STRIATE_SET
