// Vectors as wide as a register of the instruction set whose lanes are independent sub-problems of one geometry: the
// examples of a batch, or strips of their positions. Here maps are brought into that order and back.
#pragma once

#include <algorithm>
#include <array>
#include <cstdlib>
#include <memory>
#include <new>
#include <utility>

#if defined(__AVX512F__)
#include <immintrin.h>
#endif

#include "lanes.hpp"
#include "window.hpp"

// A namespace of its own: the headers of other kernels have functions of the same names.
namespace striate::STRIATE_SET {
inline namespace position_lanes {

#if defined(__AVX512F__)
constexpr int REGISTER = 64;
#elif defined(__AVX2__)
constexpr int REGISTER = 32;
#else
constexpr int REGISTER = 16;
#endif

template <typename W>
struct Register;
template <>
struct Register<float> {
    typedef float vector __attribute__((vector_size(REGISTER)));
    typedef float loose __attribute__((vector_size(REGISTER), aligned(4)));
    typedef uint32_t bits __attribute__((vector_size(REGISTER)));
    typedef uint16_t halves __attribute__((vector_size(REGISTER / 2), aligned(2)));
};
template <>
struct Register<double> {
    typedef double vector __attribute__((vector_size(REGISTER)));
    typedef double loose __attribute__((vector_size(REGISTER), aligned(8)));
    typedef uint64_t bits __attribute__((vector_size(REGISTER)));
};

template <typename W>
using vec = typename Register<W>::vector;
template <typename W>
constexpr int LANES = REGISTER / int(sizeof(W));

// ---------------------------------------------------------------------------------------------- loading and storing

inline vec<float> load(const float *p) { return *reinterpret_cast<const Register<float>::loose *>(p); }
inline vec<double> load(const double *p) { return *reinterpret_cast<const Register<double>::loose *>(p); }
inline vec<float> load(const bfloat16 *p) {
    auto halves = *reinterpret_cast<const Register<float>::halves *>(p);
    return (vec<float>)(__builtin_convertvector(halves, Register<float>::bits) << 16);
}

inline void store(float *p, vec<float> v) { *reinterpret_cast<Register<float>::loose *>(p) = v; }
inline void store(double *p, vec<double> v) { *reinterpret_cast<Register<double>::loose *>(p) = v; }
inline void store(bfloat16 *p, vec<float> v) {
    auto u = (Register<float>::bits)v;
    auto rounded = (u + 0x7fff + (u >> 16 & 1)) >> 16;
    auto kept = (u & 0x7fffffffu) > 0x7f800000u ? (u >> 16 | 0x40) : rounded;
    *reinterpret_cast<Register<float>::halves *>(p) = __builtin_convertvector(kept, Register<float>::halves);
}

// Lanes [first, last) only, first being 0 or more; the others are 0, and their memory is not touched.
template <typename T, typename W = typename Wide<T>::type>
inline vec<W> load(const T *p, int64_t first, int64_t last) {
    if (first <= 0 && last >= LANES<W>) return load(p);
    last = std::min<int64_t>(last, LANES<W>);
    if (first >= last) return vec<W>{};
#if defined(__AVX512F__)
    if constexpr (std::is_same_v<T, float>)
        return (vec<W>)_mm512_maskz_loadu_ps(__mmask16((0xffffu >> (LANES<W> - last)) & (0xffffu << first)), p);
#endif
    alignas(REGISTER) W lanes[LANES<W>] = {};
    for (int64_t i = first; i < last; ++i) lanes[i] = widen(p[i]);
    return load(lanes);
}

template <typename T, typename W = typename Wide<T>::type>
inline void store(T *p, vec<W> v, int64_t first, int64_t last) {
    if (first <= 0 && last >= LANES<W>) return store(p, v);
    last = std::min<int64_t>(last, LANES<W>);
    if (first >= last) return;
#if defined(__AVX512F__)
    if constexpr (std::is_same_v<T, float>)
        return _mm512_mask_storeu_ps(p, __mmask16((0xffffu >> (LANES<W> - last)) & (0xffffu << first)), (__m512)v);
#endif
    alignas(REGISTER) W lanes[LANES<W>];
    store(lanes, v);
    for (int64_t i = first; i < last; ++i) p[i] = narrow<T, W>(lanes[i]);
}

// A store past the caches of what nobody reads soon, where a whole line is written.
inline void stream(float *p, vec<float> v) {
#if defined(__AVX512F__)
    if (reinterpret_cast<uintptr_t>(p) % REGISTER == 0) return _mm512_stream_ps(p, (__m512)v);
#endif
    store(p, v);
}
inline void stream(double *p, vec<double> v) { store(p, v); }
inline void stream(bfloat16 *p, vec<float> v) { store(p, v); }

// What was streamed is there for other threads.
inline void settle() {
#if defined(__AVX512F__)
    _mm_sfence();
#endif
}

// --------------------------------------------------------------------------------------------------- the transpose

// Rows i and i + S exchange the lanes that differ in the bit S.
template <typename W, int S, size_t... I>
[[gnu::always_inline]] inline void exchange(vec<W> &a, vec<W> &b, std::index_sequence<I...>) {
    constexpr int N = LANES<W>;
    typedef typename Register<W>::bits Bits;
    constexpr Bits low = {(int(I) & S ? N + (I ^ S) : I)...};
    constexpr Bits high = {(int(I) & S ? N + I : I ^ S)...};
    vec<W> kept = a;
    a = __builtin_shuffle(kept, b, low);
    b = __builtin_shuffle(kept, b, high);
}

template <typename W, int S = 1>
[[gnu::always_inline]] inline void transpose(vec<W> (&rows)[LANES<W>]) {
    constexpr int N = LANES<W>;
#pragma GCC unroll 16
    for (int i = 0; i < N; ++i)
        if (!(i & S)) exchange<W, S>(rows[i], rows[i + S], std::make_index_sequence<N>{});
    if constexpr (2 * S < N) transpose<W, 2 * S>(rows);
}

// ------------------------------------------------------------------------------------------------- maps and strips

// Where each lane's sub-problem lies in a tensor: its first element, and how far that is along the axis of the strips.
// A lane that has no sub-problem has no address.
template <typename T>
struct Block {
    static constexpr int N = LANES<typename Wide<T>::type>;
    std::array<T *, N> base;
    std::array<int64_t, N> shift;
    int axis;
    int count;
};

// Positions origin + pitch * (0, ..., extent - 1) of each axis.
struct Region {
    int64_t origin[AXES], extent[AXES], pitch[AXES];
    // Positions of a channel, and one more where channels would fall into the same sets of the cache.
    int64_t plane() const {
        const int64_t positions = extent[0] * extent[1] * extent[2];
        return positions + (positions % 16 == 0);
    }
};

inline int64_t floor_div(int64_t a, int64_t b) { return a / b - (a % b < 0); }
inline int64_t ceil_div(int64_t a, int64_t b) { return -floor_div(-a, b); }

// Which of the region's positions along an axis a lane has: what lies outside the tensor is 0.
template <typename T>
inline std::pair<int64_t, int64_t> clip(const Block<T> &block, int lane, const Region &region, int axis, int64_t size) {
    if (!block.base[lane]) return {0, 0};
    int64_t origin = region.origin[axis] + (axis == block.axis ? block.shift[lane] : 0), pitch = region.pitch[axis];
    int64_t first = std::clamp<int64_t>(ceil_div(-origin, pitch), 0, region.extent[axis]);
    return {first, std::clamp<int64_t>(ceil_div(size - origin, pitch), first, region.extent[axis])};
}

// Elements that lie next to each other in each lane: lane l has [first[l], last[l]) of `length` from at[l]. In packed
// maps they begin at `start`; `inner` of them are `plane` apart, then comes the next position.
template <typename T>
struct Run {
    static constexpr int N = Block<T>::N;
    std::array<T *, N> at;
    std::array<int64_t, N> first, last;
    int64_t start, length, inner, plane;
};

// Calls `visit` for every run of a region of maps, the longest that their strides allow.
template <typename T, typename Visit>
void runs(const Maps<T> &maps, const Block<T> &block, const Region &region, const int64_t *sizes, int64_t channel,
          int64_t channels, Visit visit) {
    constexpr int N = Block<T>::N;
    const auto &e = region.extent;
    std::array<std::array<std::pair<int64_t, int64_t>, N>, AXES> has;
    for (int a = 0; a < AXES; ++a)
        for (int l = 0; l < N; ++l) has[a][l] = clip(block, l, region, a, sizes[a]);
    const int64_t plane = region.plane(), step = maps.step[2] * region.pitch[2];
    const bool dense = maps.channel == 1 || channels == 1;
    const bool both = dense && step == channels && e[2] > 1;
    const bool row = both || (step == 1 && !(dense && channels > e[2]));
    const int64_t inner = both ? channels : row ? 1 : dense ? channels : 1, columns = row ? 1 : e[2];
    Run<T> run{};
    run.inner = inner, run.plane = plane, run.length = row ? e[2] * inner : inner;
    for (int64_t c = 0; c < channels; c += inner)
        for (int64_t i = 0; i < e[0]; ++i)
            for (int64_t j = 0; j < e[1]; ++j)
                for (int64_t k = 0; k < columns; ++k) {
                    run.start = c * plane + (i * e[1] + j) * e[2] + k;
                    const int64_t offset = (channel + c) * maps.channel +
                                           (region.origin[0] + i * region.pitch[0]) * maps.step[0] +
                                           (region.origin[1] + j * region.pitch[1]) * maps.step[1] +
                                           (region.origin[2] + k * region.pitch[2]) * maps.step[2];
                    for (int l = 0; l < N; ++l) {
                        auto within = [&](int a, int64_t p) { return p >= has[a][l].first && p < has[a][l].second; };
                        const bool here = within(0, i) && within(1, j);
                        run.at[l] = block.base[l] + offset;
                        run.first[l] = row ? has[2][l].first * inner : 0;
                        run.last[l] = !here ? 0 : row ? has[2][l].second * inner : within(2, k) ? inner : 0;
                    }
                    visit(run);
                }
}

// Maps into packed[channel][position][lane].
template <typename T, typename W>
[[gnu::noinline]] void pack(W *packed, const Maps<T> &maps, const Block<T> &block, const Region &region,
                            const int64_t *sizes, int64_t channel, int64_t channels) {
    constexpr int N = LANES<W>;
    runs(maps, block, region, sizes, channel, channels, [&](const Run<T> &run) {
        int64_t place = run.start, within = 0;
        for (int64_t k = 0; k < run.length; k += N) {
            vec<W> rows[N];
            for (int l = 0; l < N; ++l)
                rows[l] = load(run.at[l] + k, std::max<int64_t>(run.first[l] - k, 0), run.last[l] - k);
            transpose<W>(rows);
            for (int i = 0; i < std::min<int64_t>(N, run.length - k); ++i) {
                *reinterpret_cast<vec<W> *>(packed + (place + within * run.plane) * N) = rows[i];
                if (++within == run.inner) within = 0, ++place;
            }
        }
    });
}

// The way back; what a lane does not have is dropped.
template <typename T, typename W>
[[gnu::noinline]] void unpack(const W *packed, const Maps<T> &maps, const Block<T> &block, const Region &region,
                              const int64_t *sizes, int64_t channel, int64_t channels) {
    constexpr int N = LANES<W>;
    runs(maps, block, region, sizes, channel, channels, [&](const Run<T> &run) {
        int64_t place = run.start, within = 0;
        for (int64_t k = 0; k < run.length; k += N) {
            vec<W> rows[N];
            for (int i = 0; i < N; ++i) {
                rows[i] = k + i < run.length
                              ? *reinterpret_cast<const vec<W> *>(packed + (place + within * run.plane) * N)
                              : vec<W>{};
                if (++within == run.inner) within = 0, ++place;
            }
            transpose<W>(rows);
            for (int l = 0; l < N; ++l)
                store(run.at[l] + k, rows[l], std::max<int64_t>(run.first[l] - k, 0), run.last[l] - k);
        }
    });
}

// A thread's workspace, kept between calls while it is small.
class Workspace {
  public:
    template <typename W>
    W *get(int64_t elements) {
        size_t bytes = (size_t(elements) * sizeof(W) + 63) / 64 * 64;
        if (bytes > size_) {
            memory_.reset(static_cast<char *>(std::aligned_alloc(64, bytes)));
            size_ = memory_ ? bytes : 0;
            if (!memory_) throw std::bad_alloc();
        }
        return reinterpret_cast<W *>(memory_.get());
    }
    void trim() {
        if (size_ > KEPT) memory_.reset(), size_ = 0;
    }

  private:
    static constexpr size_t KEPT = size_t(4) << 20;
    struct Free {
        void operator()(char *p) const { std::free(p); }
    };
    std::unique_ptr<char, Free> memory_;
    size_t size_ = 0;
};

}  // namespace position_lanes
}  // namespace striate::STRIATE_SET
