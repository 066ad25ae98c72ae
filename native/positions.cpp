// Small and local layers, with the examples and strips of positions in the lanes: weights are broadcast, so that any
// period of them, any window and any number of channels fill the registers.
//
// Maps are packed as [lane block][channel][position][lane]. What is left is a sum over reads k of packed vectors,
//     result[j][v] += weight[k][j] * source[v + offset[k]],
// for all vectors v whose positions have the same weights. The gradient of the weights is in
// position_weights.cpp, but for that of few channels.
#include <cstring>
#include <numeric>
#include <vector>

#include "boxes.hpp"
#include "kernels.hpp"

namespace striate::STRIATE_SET {
namespace {

using Offsets = std::vector<int64_t>;

// ------------------------------------------------------------------------------------------------ the register tiles

struct Shape {
    int rows, vectors;
};

#if defined(__AVX512F__)
constexpr Shape SHAPES[] = {{1, 8}, {2, 8}, {3, 8}, {4, 6}, {6, 4}, {8, 3}, {12, 2}, {16, 1}, {8, 1}, {4, 1}, {1, 1}};
#else
constexpr Shape SHAPES[] = {{1, 8}, {2, 4}, {3, 4}, {4, 3}, {6, 2}, {4, 2}, {3, 3}, {12, 1}, {8, 1}, {4, 1}, {1, 1}};
#endif

// The shape that takes the fewest cycles: two products or two loads each, and at least the latency of a chain.
Shape best_shape(int64_t rows, int64_t vectors, bool within = false) {
    Shape best{1, 1};
    double least = 1e300;
    for (Shape shape : SHAPES) {
        if (within && shape.rows > rows) continue;
        double tile = std::max({shape.rows * shape.vectors / 2.0, (shape.rows + shape.vectors + 1) / 2.0, 4.0});
        double cycles = double(ceil_div(rows, shape.rows)) * double(ceil_div(vectors, shape.vectors)) * (tile + 0.5);
        if (cycles < least) best = shape, least = cycles;
    }
    return best;
}

// Calls `run` with the shape's numbers as constants.
template <size_t I = 0, typename Run>
void with_shape(Shape shape, Run run) {
    if constexpr (I < std::size(SHAPES)) {
        if (shape.rows == SHAPES[I].rows && shape.vectors == SHAPES[I].vectors)
            run(std::integral_constant<int, SHAPES[I].rows>{}, std::integral_constant<int, SHAPES[I].vectors>{});
        else
            with_shape<I + 1>(shape, run);
    }
}

// Memory that is wanted next: at every read of a tile, some of it is fetched.
struct Ahead {
    const char *at;
    int64_t step;
};

template <int J, int V, typename W, typename Finish>
[[gnu::always_inline]] inline void multiply(const W *const *from, const int64_t *offsets, int64_t reads,
                                            const W *weight, int64_t step, Ahead ahead, Finish finish) {
    vec<W> sums[J][V] = {};
    const W *source[V];
    for (int v = 0; v < V; ++v) source[v] = from[v];
    for (int64_t k = 0; k < reads; ++k, weight += step, ahead.at += ahead.step) {
        const int64_t offset = offsets[k];
        __builtin_prefetch(ahead.at);
        vec<W> x[V];
#pragma GCC unroll 16
        for (int v = 0; v < V; ++v) x[v] = *reinterpret_cast<const vec<W> *>(source[v] + offset);
#pragma GCC unroll 16
        for (int j = 0; j < J; ++j)
#pragma GCC unroll 16
            for (int v = 0; v < V; ++v) sums[j][v] += x[v] * weight[j];
    }
#pragma GCC unroll 16
    for (int j = 0; j < J; ++j)
#pragma GCC unroll 16
        for (int v = 0; v < V; ++v) finish(j, v, sums[j][v]);
}

// Rows of the result are stored each in a plane of its own. Weights come as [tile of rows][read][row]. `ahead` is as
// large as the weights, in elements of its step.
template <typename W>
[[gnu::noinline]] void store_tiles(Shape shape, const W *from, const Offsets &at, const Offsets &reads,
                                   const W *weights, Ahead ahead, int64_t rows, W *to, const Offsets &into,
                                   int64_t plane) {
    with_shape(shape, [&](auto J, auto V) {
        const int64_t count = reads.size(), last = int64_t(at.size()) - 1;
        for (int64_t v = 0; v <= last; v += V) {
            const W *sources[V];
            W *targets[V];
            for (int i = 0; i < V; ++i) {  // past the last, the last again
                sources[i] = from + at[std::min(v + i, last)];
                targets[i] = to + into[std::min(v + i, last)];
            }
            for (int64_t j = 0; j < rows; j += J) {
                const int64_t here = std::min<int64_t>(J, rows - j);
                const Ahead next{ahead.at + j * count * ahead.step, J * ahead.step};
                multiply<J, V>(sources, reads.data(), count, weights + j * count, J, next,
                               [&](int i, int n, vec<W> sum) {
                                   if (i < here) *reinterpret_cast<vec<W> *>(targets[n] + (j + i) * plane) = sum;
                               });
            }
        }
    });
}

// Rows of the result are added each at an offset of its own. Weights come as [read][row], `step` from read to read, and
// so does what is ahead.
template <typename W>
[[gnu::noinline]] void add_tiles(Shape shape, const W *from, const Offsets &at, const Offsets &reads, const W *weights,
                                 int64_t step, Ahead ahead, int64_t rows, W *to, const Offsets &into,
                                 const Offsets &targets) {
    with_shape(shape, [&](auto J, auto V) {
        const int64_t count = reads.size(), last = int64_t(at.size()) - 1;
        for (int64_t v = 0; v <= last; v += V) {
            const W *sources[V];
            W *results[V];
            for (int i = 0; i < V; ++i) {
                sources[i] = from + at[std::min(v + i, last)];
                results[i] = to + into[std::min(v + i, last)];
            }
            for (int64_t next = 0; next < rows; next += J) {
                const int64_t j = std::min(next, rows - J), skip = next - j;  // the last tile overlaps the one before
                const Ahead then{ahead.at + j * int64_t(sizeof(W)), ahead.step};
                multiply<J, V>(sources, reads.data(), count, weights + j, step, then, [&](int i, int n, vec<W> sum) {
                    if (i >= skip && v + n <= last)
                        *reinterpret_cast<vec<W> *>(results[n] + targets[j + i]) += sum;
                });
            }
        }
    });
}

// Sums over positions of output row j times input read q, lane by lane.
template <int J, int Q, typename W>
[[gnu::always_inline]] inline void correlate(const W *const *outputs, const W *const *inputs, const int64_t *to,
                                             const int64_t *from, int64_t positions, vec<W> (&sums)[J * Q]) {
    vec<W> held[J * Q] = {};
    const W *y[J], *x[Q];
    for (int j = 0; j < J; ++j) y[j] = outputs[j];
    for (int q = 0; q < Q; ++q) x[q] = inputs[q];
    for (int64_t v = 0; v < positions; ++v) {
        const int64_t yv = to[v], xv = from[v];
        vec<W> rows[J];
#pragma GCC unroll 16
        for (int j = 0; j < J; ++j) rows[j] = *reinterpret_cast<const vec<W> *>(y[j] + yv);
#pragma GCC unroll 16
        for (int q = 0; q < Q; ++q) {
            vec<W> read = *reinterpret_cast<const vec<W> *>(x[q] + xv);
#pragma GCC unroll 16
            for (int j = 0; j < J; ++j) held[j * Q + q] += rows[j] * read;
        }
    }
    for (int i = 0; i < J * Q; ++i) sums[i] = held[i];
}

// The sums of the lanes of up to `LANES` vectors, as one vector.
template <typename W>
inline vec<W> sums_of_lanes(const vec<W> *vectors, int64_t count) {
    vec<W> rows[LANES<W>];
    for (int i = 0; i < LANES<W>; ++i) rows[i] = i < count ? vectors[i] : vec<W>{};
    transpose<W>(rows);
    vec<W> sum = rows[0];
    for (int i = 1; i < LANES<W>; ++i) sum += rows[i];
    return sum;
}

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

// ------------------------------------------------------------------------- the output, or the input by its residues

template <typename T>
class Solve {
    using W = typename Call<T>::W;
    static constexpr int L = Call<T>::L;
    const Call<T> &call;
    const bool backwards;
    const int64_t rows, channels;  // of the result and of the source, in a group
    Grid grid;
    int64_t together;  // lane blocks in a box
    Shape shape;
    std::vector<W> packed;
    Offsets starts;
    int64_t group_size = 0;

  public:
    Solve(const Call<T> &call, bool backwards)
        : call(call), backwards(backwards), rows(backwards ? call.in : call.out),
          channels(backwards ? call.out : call.in) {
        const Window &window = call.window;
        int64_t size[AXES], alike = 1;
        for (int a = 0; a < AXES; ++a) {
            size[a] = backwards ? call.sizes[a] : call.outputs[a];
            if (a == call.axis) size[a] = std::min(size[a], backwards ? call.strip_inputs() : call.strip_outputs);
            alike *= ceil_div(size[a], ids(a));
        }
        together = std::min({call.blocks(), ceil_div(8, alike), int64_t(8)});
        const bool may[AXES] = {true, true, true};
        const int64_t others = ceil_div(call.blocks(), together) * window.groups;
        grid = cut(size, may, call.axis, others, [&](const int64_t *step) {
            const Box box = corner(step);
            const Region source = backwards ? outputs_of(window, box) : inputs_of(window, box, false);
            return int64_t(sizeof(W)) * L * together *
                   (channels * source.plane() + rows * plain(box).plane());
        });
        int64_t vectors = together;
        for (int a = 0; a < AXES; ++a) vectors *= ceil_div(grid.step[a], ids(a));
        shape = best_shape(rows, vectors);
        if (!call.own) pack_weights();
    }

    void run() {
        const int64_t chunks = ceil_div(call.blocks(), together), boxes = grid.boxes();
        const int64_t tasks = chunks * boxes * call.window.groups;
#pragma omp parallel for schedule(dynamic) if (tasks > 1)
        for (int64_t task = 0; task < tasks; ++task) {
            const int64_t first = task / call.window.groups / boxes * together;
            const int64_t blocks = std::min(together, call.blocks() - first);
            solve(grid.box(task / call.window.groups % boxes), first, blocks, task % call.window.groups);
        }
    }

  private:
    int64_t ids(int a) const {
        const Axis &axis = call.window.axis[a];
        return backwards ? axis.stride * axis.period : axis.period;
    }

    Classes classes(const Box &box, const Region &source) const {
        Classes found;
        for (int a = 0; a < AXES; ++a) {
            const Axis &axis = call.window.axis[a];
            found[a] = backwards ? inputs_by_class(axis, box.lo[a], box.n[a])
                                 : outputs_by_class(axis, box.lo[a], box.n[a], source.pitch[a]);
        }
        return found;
    }

    // Weights of a class as [tile of rows][read][row], rows past the last being 0.
    void pack_class(W *to, const Class *const *of, int64_t group) const {
        const int64_t kernel1 = call.window.axis[1].kernel, kernel2 = call.window.axis[2].kernel;
        const int64_t row_step = backwards ? call.taps : call.reads, step = backwards ? call.reads : call.taps;
        for (int64_t start = 0; start < rows; start += shape.rows)
            for (int64_t c = 0; c < channels; ++c)
                for (const Tap &i : of[0]->taps)
                    for (const Tap &j : of[1]->taps)
                        for (const Tap &k : of[2]->taps) {
                            const T *from = call.kernels(i.residue, j.residue, k.residue, group) + c * step +
                                            (i.index * kernel1 + j.index) * kernel2 + k.index;
                            for (int64_t row = start; row < start + shape.rows; ++row)
                                *to++ = row < rows ? W(widen(from[row * row_step])) : W(0);
                        }
    }

    // The same where a class has a kernel to itself, by transposing blocks of it.
    void pack_kernel(W *to, const T *from) const {
        const int64_t reads = call.reads;
        for (int64_t start = 0; start < rows; start += shape.rows, to += reads * shape.rows)
            for (int64_t q = 0; q < reads; q += L)
                for (int64_t j = 0; j < shape.rows; j += L) {
                    const int64_t count = std::min<int64_t>(L, reads - q), wide = std::min<int64_t>(L, shape.rows - j);
                    vec<W> block[L];
                    for (int i = 0; i < L; ++i)
                        block[i] = i < wide && start + j + i < rows ? load(from + (start + j + i) * reads + q, 0, count)
                                                                    : vec<W>{};
                    transpose<W>(block);
                    for (int i = 0; i < count; ++i) store(to + (q + i) * shape.rows + j, block[i], 0, wide);
                }
    }

    int64_t class_size(const Class *const *of) const {
        int64_t taps = of[0]->taps.size() * of[1]->taps.size() * of[2]->taps.size();
        return ceil_div(rows, shape.rows) * shape.rows * channels * taps;
    }

    template <typename Visit>
    static void each(const Classes &classes, Visit visit) {
        for (const Class &i : classes[0])
            for (const Class &j : classes[1])
                for (const Class &k : classes[2]) {
                    const Class *of[AXES] = {&i, &j, &k};
                    visit(of);
                }
    }

    int64_t number(const Class *const *of) const { return (of[0]->id * ids(1) + of[1]->id) * ids(2) + of[2]->id; }

    void pack_weights() {
        Box box{};
        for (int a = 0; a < AXES; ++a) {
            box.lo[a] = backwards ? -call.window.axis[a].before : 0;
            box.n[a] = ids(a);
        }
        const Classes all = classes(box, inputs_of(call.window, box, true));
        std::vector<std::array<const Class *, AXES>> list;
        each(all, [&](const Class *const *of) {
            list.push_back({of[0], of[1], of[2]});
            starts.push_back(group_size);
            group_size += class_size(of);
        });
        packed.resize(group_size * call.window.groups);
        const int64_t tasks = list.size() * call.window.groups;
#pragma omp parallel for if (packed.size() > 1 << 16)
        for (int64_t task = 0; task < tasks; ++task) {
            const int64_t item = task % list.size(), group = task / list.size();
            pack_class(packed.data() + group * group_size + starts[item], list[item].data(), group);
        }
    }

    void solve(const Box &box, int64_t first, int64_t blocks, int64_t group) const {
        static thread_local Workspace workspace;
        const Window &window = call.window;
        const Region source = backwards ? outputs_of(window, box) : inputs_of(window, box, false), target = plain(box);
        const int64_t source_plane = source.plane() * L, target_plane = target.plane() * L;
        const Classes found = classes(box, source);
        const int64_t room = call.own ? ceil_div(rows, shape.rows) * shape.rows * call.reads : 0;
        W *from = workspace.get<W>(blocks * (channels * source_plane + rows * target_plane) + room);
        W *to = from + blocks * channels * source_plane, *kernel = to + blocks * rows * target_plane;
        for (int64_t b = 0; b < blocks; ++b) {
            W *at = from + b * channels * source_plane;
            if (backwards)
                pack(at, call.y, call.output_block(first + b), source, call.outputs, group * channels, channels);
            else
                pack(at, call.x, call.input_block(first + b), source, call.sizes, group * channels, channels);
        }
        Offsets reads, at, into;
        each(found, [&](const Class *const *of) {
            reads_of(reads, of, source, channels, L);
            places(at, of, source.extent, blocks, channels * source_plane, L, true);
            places(into, of, target.extent, blocks, rows * target_plane, L, false);
            const W *weights = kernel;
            Ahead ahead{reinterpret_cast<const char *>(kernel), 0};
            if (call.own) {
                const T *own = call.kernels(of[0]->id, of[1]->id, of[2]->id, group);
                pack_kernel(kernel, own);
                ahead = {reinterpret_cast<const char *>(own + window.out_channels * call.reads), sizeof(T)};
            } else {
                weights = packed.data() + group * group_size + starts[number(of)];
            }
            store_tiles(shape, from, at, reads, weights, ahead, rows, to, into, target_plane);
        });
        for (int64_t b = 0; b < blocks; ++b) {
            const W *at = to + b * rows * target_plane;
            if (backwards)
                unpack(at, call.x, call.input_block(first + b), target, call.sizes, group * rows, rows);
            else
                unpack(at, call.y, call.output_block(first + b), target, call.outputs, group * rows, rows);
        }
        workspace.trim();
    }
};

// ------------------------------------------------------- the input where kernels are used once: added up in the lanes

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
#pragma omp parallel for schedule(dynamic) if (tasks > 1)
        for (int64_t task = 0; task < tasks; ++task) {
            const int64_t first = task / parts / groups * together;
            add(first, std::min(together, call.blocks() - first), task / parts % groups, task % parts * part);
        }
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

// ---------------------------------------------------------------------------------------- the weights of few channels

// Examples and strips fill the lanes where neither the channels nor the reads do.
template <typename T>
class FewWeights {
    using W = typename Call<T>::W;
    static constexpr int L = Call<T>::L;
    static constexpr int64_t CHUNKS = 8;
    const Call<T> &call;
    Grid grid;

  public:
    explicit FewWeights(const Call<T> &call) : call(call) {
        const Window &window = call.window;
        const bool may[AXES] = {true, true, true};
        int64_t size[AXES] = {call.outputs[0], call.outputs[1], call.outputs[2]};
        size[call.axis] = std::min(size[call.axis], call.strip_outputs);
        grid = cut(size, may, call.axis, call.blocks() * window.groups, [&](const int64_t *step) {
            const Box box = corner(step);
            return int64_t(sizeof(W)) * L *
                   (call.in * inputs_of(window, box, false).plane() + call.out * plain(box).plane());
        });
    }

    // Fixed shares of the boxes are summed apart, then together in their order.
    void run() const {
        const int64_t groups = call.window.groups, boxes = grid.boxes() * call.blocks();
        const int64_t size = kernels() * call.window.out_channels * call.reads;
        const int64_t chunks = std::clamp<int64_t>((int64_t(1) << 22) / size, 1, std::min(CHUNKS, boxes));
        std::vector<W> sums(size * chunks);
#pragma omp parallel for schedule(dynamic) if (chunks * groups > 1)
        for (int64_t task = 0; task < chunks * groups; ++task) {
            const int64_t chunk = task / groups;
            for (int64_t n = chunk * boxes / chunks; n < (chunk + 1) * boxes / chunks; ++n)
                box(grid.box(n % grid.boxes()), n / grid.boxes(), task % groups, sums.data() + chunk * size);
        }
#pragma omp parallel for if (size * chunks > 1 << 16)
        for (int64_t i = 0; i < size; ++i) {
            W sum = sums[i];
            for (int64_t chunk = 1; chunk < chunks; ++chunk) sum += sums[chunk * size + i];
            call.weight[i] = narrow<T, W>(sum);
        }
    }

  private:
    int64_t kernels() const {
        int64_t found = 1;
        for (const Axis &axis : call.window.axis) found *= axis.period;
        return found;
    }

    void box(const Box &box, int64_t first, int64_t group, W *sums) const {
        static thread_local Workspace workspace;
        const Window &window = call.window;
        const Region inputs = inputs_of(window, box, false), outputs = plain(box);
        const int64_t x_plane = inputs.plane() * L, y_plane = outputs.plane() * L;
        W *x = workspace.get<W>(call.in * x_plane + call.out * y_plane), *y = x + call.in * x_plane;
        pack(x, call.x, call.input_block(first), inputs, call.sizes, group * call.in, call.in);
        pack(y, call.y, call.output_block(first), outputs, call.outputs, group * call.out, call.out);
        Classes classes;
        for (int a = 0; a < AXES; ++a)
            classes[a] = outputs_by_class(window.axis[a], box.lo[a], box.n[a], inputs.pitch[a]);
        const Class *some[AXES] = {&classes[0][0], &classes[1][0], &classes[2][0]};
        Offsets reads, from, to;
        reads_of(reads, some, inputs, call.in, L);
        for (const Class &i : classes[0])
            for (const Class &j : classes[1])
                for (const Class &k : classes[2]) {
                    const Class *of[AXES] = {&i, &j, &k};
                    places(from, of, inputs.extent, 1, 0, L, true);
                    places(to, of, outputs.extent, 1, 0, L, false);
                    const int64_t kernel = call.kernels(i.id, j.id, k.id, group) - call.weight;
                    over_positions(x, from, reads, y, to, y_plane, sums + kernel);
                }
        workspace.trim();
    }

    // Lanes are summed last.
    [[gnu::noinline]] void over_positions(const W *x, const Offsets &from, const Offsets &reads, const W *y,
                                          const Offsets &to, int64_t plane, W *sums) const {
        with_shape(best_shape(call.out, call.reads), [&](auto J, auto Q) {
            for (int64_t o = 0; o < call.out; o += J)
                for (int64_t q = 0; q < call.reads; q += Q) {
                    const W *outputs[J], *inputs[Q];
                    for (int j = 0; j < J; ++j) outputs[j] = y + std::min(o + j, call.out - 1) * plane;
                    for (int i = 0; i < Q; ++i) inputs[i] = x + reads[std::min(q + i, call.reads - 1)];
                    vec<W> held[J * Q];
                    correlate<J, Q>(outputs, inputs, to.data(), from.data(), to.size(), held);
                    alignas(REGISTER) W totals[J * Q + L];
                    for (int i = 0; i < J * Q; i += L)
                        store(totals + i, sums_of_lanes<W>(held + i, std::min<int64_t>(L, J * Q - i)));
                    for (int j = 0; j < J && o + j < call.out; ++j)
                        for (int i = 0; i < Q && q + i < call.reads; ++i)
                            sums[(o + j) * call.reads + q + i] += totals[j * Q + i];
                }
        });
    }
};

}  // namespace

template <typename T>
void positions(const Window &window, Maps<T> input, Maps<T> output, T *weight) {
    const bool weights = window.direction == Direction::weight_gradient;
    if (weights && position_weights(window, input, output, weight)) return;
    const Call<T> call(window, input, output, weight);
    if (weights)
        FewWeights<T>(call).run();
    else if (window.direction == Direction::input_gradient && call.own)
        Scatter<T>(call).run();
    else
        Solve<T>(call, window.direction == Direction::input_gradient).run();
}

template void positions(const Window &, Maps<float>, Maps<float>, float *);
template void positions(const Window &, Maps<double>, Maps<double>, double *);
template void positions(const Window &, Maps<bfloat16>, Maps<bfloat16>, bfloat16 *);

}  // namespace striate::STRIATE_SET
