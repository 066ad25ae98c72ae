// The gradient of the weights of small and local layers: for every kernel one product of two matrices,
//     weight[o][q] = sum over depth of output[depth][o] * input[depth][q],
// whose depth goes over the examples and the positions that share the kernel. Maps are packed with their channels last,
// so that what a row of taps reads is one run of numbers and no window is gathered. The numbers of one side stand in
// the lanes, those of the other are broadcast.
#include <array>
#include <cstring>
#include <numeric>
#include <vector>

#include "kernels.hpp"
#include "position_packing.hpp"
#include "threads.hpp"

namespace striate::STRIATE_SET {
namespace {

// ------------------------------------------------------------------------------------------------------- the product

// The steps of the depth: lines of them at equal distances in both factors.
struct Line {
    int64_t left, right, steps;
};
struct Depth {
    std::vector<Line> lines;
    int64_t left, right;  // from step to step
};

// The rows of the left factor come in runs: run r is what lies next to each other from taps[r] on.
struct Runs {
    const int64_t *taps;
    int64_t count, length;
};

// Rows of sums that fill the registers, with V vectors in each.
#if defined(__AVX512F__)
template <int V>
constexpr int ROWS = V == 1 ? 25 : V == 2 ? 14 : 8;
#else
template <int V>
constexpr int ROWS = V == 1 ? 12 : V == 2 ? 6 : 4;
#endif

// N rows of each of R runs.
template <typename W, int R, int N, int V>
void few_rows(const W *left, Runs runs, const W *right, const Depth &depth, W *sums, bool more) {
    constexpr int L = LANES<W>;
    vec<W> held[R][N][V];
    const int64_t apart = runs.length * V * L;
    const W *from[R];
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
        from[r] = left + runs.taps[r];
#pragma GCC unroll 32
        for (int n = 0; n < N; ++n)
#pragma GCC unroll 4
            for (int v = 0; v < V; ++v)
                held[r][n][v] = more ? load(sums + r * apart + (n * V + v) * L) : vec<W>{};
    }
    for (const Line &line : depth.lines) {
        const W *to = right + line.right;
        int64_t at = line.left;
        for (int64_t step = 0; step < line.steps; ++step, at += depth.left, to += depth.right) {
            vec<W> row[V];
#pragma GCC unroll 4
            for (int v = 0; v < V; ++v) row[v] = load(to + v * L);
#pragma GCC unroll 16
            for (int r = 0; r < R; ++r)
#pragma GCC unroll 32
                for (int n = 0; n < N; ++n)
#pragma GCC unroll 4
                    for (int v = 0; v < V; ++v) held[r][n][v] += row[v] * from[r][at + n];
        }
    }
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 32
        for (int n = 0; n < N; ++n)
#pragma GCC unroll 4
            for (int v = 0; v < V; ++v) store(sums + r * apart + (n * V + v) * L, held[r][n][v]);
}

// sums (rows x V vectors) = left (rows) times right (V vectors) of every step, or += where there is `more` already.
// Long runs are cut into blocks of nearly equal size, short ones go together.
template <typename W, int V, int R = 5>
void product(const W *left, Runs runs, const W *right, const Depth &depth, W *sums, bool more) {
    using Few = void (*)(const W *, Runs, const W *, const Depth &, W *, bool);
    static constexpr int most = ROWS<V> / R, width = V * LANES<W>;
    if constexpr (most > 0) {
        static constexpr auto table = []<int... N>(std::integer_sequence<int, N...>) {
            return std::array<Few, most>{few_rows<W, R, N + 1, V>...};
        }(std::make_integer_sequence<int, most>());
        if (R == 1 || runs.length <= most) {
            const int length = int(runs.length), blocks = (length + most - 1) / most;
            const int size = length / blocks, larger = length % blocks;
            for (; runs.count >= R; runs.count -= R, runs.taps += R, sums += R * length * width)
                for (int b = 0, first = 0; b < blocks; ++b) {
                    const int count = size + (b < larger);
                    table[count - 1](left + first, runs, right, depth, sums + first * width, more);
                    first += count;
                }
        }
    }
    if constexpr (R > 1)
        if (runs.count > 0) product<W, V, R - 1>(left, runs, right, depth, sums, more);
}

template <typename W>
void product(int vectors, const W *left, Runs runs, const W *right, const Depth &depth, W *sums, bool more) {
    constexpr decltype(&product<W, 1>) table[] = {product<W, 1>, product<W, 2>, product<W, 3>};
    table[vectors - 1](left, runs, right, depth, sums, more);
}

// S steps for as many rows as lanes, wherever they lie: a place is loaded once for all steps, and never kept.
template <int S, typename W>
[[gnu::always_inline]] inline void some_steps(const W *left, const int64_t *places, const W *right, int64_t next_left,
                                              int64_t next_right, vec<W> (&held)[LANES<W>]) {
    vec<W> row[S];
    const W *at[S];
#pragma GCC unroll 4
    for (int s = 0; s < S; ++s) row[s] = load(right + s * next_right), at[s] = left + s * next_left;
    asm volatile("" : "+r"(places));
#pragma GCC unroll 16
    for (int n = 0; n < LANES<W>; ++n)
#pragma GCC unroll 4
        for (int s = 0; s < S; ++s) held[n] += row[s] * at[s][places[n]];
}

// The product of such rows and one vector, turned; the sums stay in registers.
template <typename W>
[[gnu::always_inline]] inline void square(const W *left, const int64_t *places, const W *right, Line depth,
                                          int64_t next_left, int64_t next_right, vec<W> (&sums)[LANES<W>]) {
    constexpr int S = 4;
    vec<W> held[LANES<W>] = {};
    int64_t steps = depth.steps;
    for (; steps >= S; steps -= S, left += S * next_left, right += S * next_right)
        some_steps<S>(left, places, right, next_left, next_right, held);
    for (; steps > 0; --steps, left += next_left, right += next_right)
        some_steps<1>(left, places, right, next_left, next_right, held);
    transpose<W>(held);
#pragma GCC unroll 16
    for (int n = 0; n < LANES<W>; ++n) sums[n] = held[n];
}

// How many of so many vectors are taken together: without waste, and rather 2 or 3 than 1.
int together_of(int64_t vectors) { return vectors % 2 == 0 ? 2 : vectors % 3 == 0 ? 3 : 1; }

// ------------------------------------------------------------------------------------------------------------ a call

template <typename T>
class Weights {
    using W = typename Wide<T>::type;
    static constexpr int L = LANES<W>;
    static constexpr int64_t CHUNKS = 8, DEPTH = 512;  // partial sums at most, and the least depth of one
    static constexpr int64_t SUMS = 1 << 22;           // numbers in all partial sums, at most
    static constexpr int64_t FEW = 32;                 // examples up to which writing takes longer than multiplying

    const Window &window;
    const Maps<T> x, y;
    T *const weight;
    const int64_t in, out;  // channels of a group
    int64_t reads, run, runs = 1, kernels = 1, alike = 1;
    Packing inputs, outputs;
    Grid grid;
    std::vector<int64_t> taps;    // where each run begins in the packed input
    std::vector<int64_t> places;  // of the reads of a kernel in the packed input, the last one repeated
    std::vector<int64_t> order;   // of the reads of a kernel, in the order of runs
    int64_t stride[AXES];         // from window to window in the packed input
    bool turned;                  // what is read stands in the lanes
    int vectors;                  // of a panel of sums, which has so many rows
    int64_t panels, each, rows;   // all panels of a kernel, and those of one run

  public:
    Weights(const Window &window, Maps<T> x, Maps<T> y, T *weight)
        : window(window), x(x), y(y), weight(weight), in(window.in_channels / window.groups),
          out(window.out_channels / window.groups), reads(in), run(in) {
        for (const Axis &axis : window.axis)
            kernels *= axis.period, alike *= ceil_div(axis.out, axis.period), reads *= axis.kernel;
        choose_pitches();
        choose_lanes();
        choose_boxes();
        choose_order();
    }

    // Whether most lanes would have nothing to do, and there are positions enough to fill them.
    bool idle() const { return alike > 1 && 9 * panels * panel_size() > 20 * out * reads; }

    void solve() const {
        const int64_t bytes = kernels * window.out_channels * reads * sizeof(T);
        if (alike == 0) {
            std::memset(static_cast<void *>(weight), 0, bytes);
        } else if (own()) {
            for (const Axis &axis : window.axis)
                if (axis.period > axis.out) std::memset(static_cast<void *>(weight), 0, bytes);
            run_own();
        } else {
            run_shared();
        }
    }

  private:
    // ------------------------------------------------------------------------------------------------- decisions

    void choose_pitches() {
        for (int a = 0; a < AXES; ++a) {
            const Axis &axis = window.axis[a];
            inputs.pitch[a] = axis.kernel == 1 ? axis.stride
                              : axis.out == 1  ? axis.dilation
                                               : std::gcd(axis.stride, axis.dilation);
            outputs.pitch[a] = 1;
        }
        const Axis &last = window.axis[AXES - 1];
        if (last.dilation == inputs.pitch[AXES - 1]) run = in * last.kernel;
        runs = reads / run;
    }

    // The side that leaves fewer lanes empty; results whose lanes are reads are put in their order one by one.
    void choose_lanes() {
        const int64_t plain = ceil_div(out, L) * reads, other = ceil_div(run, L) * runs * out;
        turned = 5 * other < 4 * plain;
        const int64_t wide = ceil_div(turned ? run : out, L);
        vectors = together_of(wide);
        each = wide / vectors, panels = turned ? each * runs : each;
        rows = turned ? out : reads;
        inputs.width = in;
        outputs.width = turned ? out : wide * L;
    }

    int64_t extent(int a, int64_t positions) const {
        const Axis &axis = window.axis[a];
        return ((positions - 1) * axis.stride + (axis.kernel - 1) * axis.dilation) / inputs.pitch[a] + 1;
    }

    void choose_boxes() {
        int64_t size[AXES];
        bool may[AXES];
        int first = AXES - 1;
        for (int a = AXES - 1; a >= 0; --a) {
            size[a] = std::max<int64_t>(window.axis[a].out, 1), may[a] = true;
            if (size[a] > 1) first = a;
        }
        // Many examples of one position fill the second level of cache alone.
        const int64_t at_once = own() ? window.batch : 1, share = own() && window.batch > FEW ? 4 : 1;
        const int64_t tasks = own() ? TASKS : window.batch;
        grid = cut(size, may, first, tasks, [&](const int64_t *step) {
            int64_t from = in, to = outputs.width;
            for (int a = 0; a < AXES; ++a) from *= extent(a, step[a]), to *= step[a];
            return at_once * (from + to) * int64_t(sizeof(W)) / share;
        });
        int64_t reach[AXES];
        for (int a = 0; a < AXES; ++a) reach[a] = extent(a, grid.step[a]);
        inputs.set_steps(reach);
        outputs.set_steps(grid.step);
        for (int a = 0; a < AXES; ++a) stride[a] = window.axis[a].stride / inputs.pitch[a] * inputs.step[a];
    }

    void choose_order() {
        order.resize(reads);
        const Axis *a = window.axis;
        const bool whole = run != in || a[2].kernel == 1;
        int64_t read = 0;
        for (int64_t c = 0; c < in; ++c)
            for (int64_t i = 0; i < a[0].kernel; ++i)
                for (int64_t j = 0; j < a[1].kernel; ++j)
                    for (int64_t k = 0; k < a[2].kernel; ++k)
                        order[read++] = ((i * a[1].kernel + j) * a[2].kernel + k) * in + c;
        auto far = [&](int axis, int64_t tap) {
            return tap * a[axis].dilation / inputs.pitch[axis] * inputs.step[axis];
        };
        for (int64_t i = 0; i < a[0].kernel; ++i)
            for (int64_t j = 0; j < a[1].kernel; ++j)
                for (int64_t k = 0; k < (whole ? 1 : a[2].kernel); ++k)
                    taps.push_back(far(0, i) + far(1, j) + far(2, k));
        for (int64_t q = 0; q < ceil_div(reads, L) * L; ++q) {
            const int64_t at = order[std::min(q, reads - 1)];
            places.push_back(taps[at / run] + at % run);
        }
    }

    bool own() const { return alike == 1 && kernels > 1; }
    int64_t panel_size() const { return rows * vectors * L; }
    T *kernel_of(int64_t kernel, int64_t group) const {
        return weight + (kernel * window.out_channels + group * out) * reads;
    }

    // ---------------------------------------------------------------------------------------------------- pieces

    void pack(W *from, W *to, const Box &box, int64_t example, int64_t group) const {
        int64_t origin[AXES], reach[AXES], sizes[AXES], outs[AXES];
        for (int a = 0; a < AXES; ++a) {
            const Axis &axis = window.axis[a];
            origin[a] = box.lo[a] * axis.stride - axis.before, reach[a] = extent(a, box.n[a]);
            sizes[a] = axis.size, outs[a] = axis.out;
        }
        pack_box(from, inputs, x, x.data + example * x.batch + group * in * x.channel, origin, reach, sizes, in);
        pack_box(to, outputs, y, y.data + example * y.batch + group * out * y.channel, box.lo, box.n, outs, out);
    }

    // How far an output of a box, by its position in it, and its window are from the first, where they are packed.
    Line far(int64_t i, int64_t j, int64_t k) const {
        const int64_t at[AXES] = {i, j, k};
        int64_t from = 0, to = 0;
        for (int a = 0; a < AXES; ++a) from += at[a] * stride[a], to += at[a] * outputs.step[a];
        return {turned ? to : from, turned ? from : to, 0};
    }

    void multiply(int64_t panel, const W *left, const W *right, const Depth &depth, W *sums, bool more) const {
        const int64_t width = vectors * L, zero = 0;
        if (turned)
            product(vectors, left, {&zero, 1, out}, right + taps[panel / each] + panel % each * width, depth, sums, more);
        else
            product(vectors, left, {taps.data(), runs, run}, right + panel * width, depth, sums, more);
    }

    // A square of weights, from output channel o and read q on.
    [[gnu::always_inline]] void put(T *kernel, int64_t o, int64_t q, const vec<W> *square) const {
        T *row = kernel + o * reads + q;
        const int64_t left = reads - q, count = std::min<int64_t>(L, out - o);
        for (int64_t i = 0; i < count; ++i, row += reads)
            left < L ? store(row, square[i], 0, left) : stream(row, square[i]);
    }

    // Writes a panel of a kernel: the total of some partial sums of it, which lie `apart`.
    void write(T *kernel, int64_t panel, const W *sums, int64_t partial, int64_t apart) const {
        const int64_t width = vectors * L;
        auto total = [&](int64_t at) {
            vec<W> sum = load(sums + at);
            for (int64_t p = 1; p < partial; ++p) sum += load(sums + p * apart + at);
            return sum;
        };
        if (turned) return write_turned(kernel, panel, total);
        for (int64_t q = 0; q < reads; q += L)
            for (int64_t v = 0; v < vectors; ++v) {
                vec<W> block[L];
                const int64_t o = panel * width + v * L, left = reads - q;
                for (int i = 0; i < L; ++i) block[i] = i < left ? total(order[q + i] * width + v * L) : vec<W>{};
                transpose<W>(block);
                put(kernel, o, q, block);
            }
    }

    template <typename Total>
    void write_turned(T *kernel, int64_t panel, Total total) const {
        const int64_t width = vectors * L;
        const int64_t first = panel / each * run + panel % each * width, stop = (panel / each + 1) * run;
        alignas(REGISTER) W lanes[L];
        std::vector<int64_t> place(reads);
        for (int64_t q = 0; q < reads; ++q) place[order[q]] = q;
        for (int64_t o = 0; o < out; ++o)
            for (int64_t v = 0; v < vectors; ++v) {
                store(lanes, total(o * width + v * L));
                for (int64_t r = first + v * L; r < std::min(stop, first + (v + 1) * L); ++r)
                    kernel[o * reads + place[r]] = narrow<T, W>(lanes[r - first - v * L]);
            }
    }

    // ----------------------------------------------------------------------- a kernel for every position, at once

    void run_own() const {
        for (int64_t number = 0; number < grid.boxes(); ++number)
            for (int64_t group = 0; group < window.groups; ++group) own_box(grid.box(number), group);
    }

    void own_box(const Box &box, int64_t group) const {
        static thread_local Workspace workspace;
        W *const from = workspace.get<W>(window.batch * (inputs.size + outputs.size));
        W *const to = from + window.batch * inputs.size;
        const int64_t positions = box.n[0] * box.n[1] * box.n[2];
        on_threads<Share::even>(window.batch, window.batch > 1, [&](int64_t e) {
            pack(from + e * inputs.size, to + e * outputs.size, box, e, group);
        });
        Depth examples{{{0, 0, window.batch}}, inputs.size, outputs.size};
        if (turned) std::swap(examples.left, examples.right);
        on_threads(positions, positions > 1, [&](int64_t position) {
            const int64_t k = position % box.n[2], j = position / box.n[2] % box.n[1];
            const int64_t i = position / box.n[2] / box.n[1];
            const Axis *a = window.axis;
            const int64_t row = (box.lo[0] + i) * a[1].period + box.lo[1] + j;
            const Line at = far(i, j, k);
            own_kernel((turned ? to : from) + at.left, (turned ? from : to) + at.right, examples,
                       kernel_of(row * a[2].period + box.lo[2] + k, group));
        });
        workspace.trim();
    }

    void own_kernel(const W *left, const W *right, const Depth &examples, T *kernel) const {
        static thread_local Workspace workspace;
        if (!turned && window.batch <= FEW) {
            stream_kernel(left, right, examples, kernel);
        } else {
            W *const sums = workspace.get<W>(panel_size());
            for (int64_t panel = 0; panel < panels; ++panel) {
                multiply(panel, left, right, examples, sums, false);
                write(kernel, panel, sums, 1, 0);
            }
            workspace.trim();
        }
        settle();
    }

    // With few examples the time goes into writing: sums go to memory from the registers, past the cache.
    [[gnu::noinline]] void stream_kernel(const W *left, const W *right, const Depth &depth, T *kernel) const {
        for (int64_t q = 0; q < reads; q += L)
            for (int64_t o = 0; o < out; o += L) {
                vec<W> sums[L];
                square(left, places.data() + q, right + o, depth.lines[0], depth.left, depth.right, sums);
                put(kernel, o, q, sums);
            }
    }

    // ------------------------------------------------------------- kernels for many positions, summed in one order

    // Fixed shares of the examples and boxes are summed apart, then together in their order.
    void run_shared() const {
        const int64_t groups = window.groups, items = window.batch * grid.boxes(), size = panels * panel_size();
        const int64_t all = kernels * groups * size;
        const int64_t chunks = std::clamp<int64_t>(std::min(window.batch * alike / DEPTH, SUMS / all), 1,
                                                   std::min(CHUNKS, items));
        std::vector<W> sums(chunks * all);
        on_threads(chunks * groups, chunks * groups > 1, [&](int64_t task) {
            const int64_t chunk = task / groups, group = task % groups;
            add(chunk * items / chunks, (chunk + 1) * items / chunks, group,
                sums.data() + chunk * all + group * kernels * size, chunks * groups == 1);
        });
        on_threads<Share::even>(groups * kernels, all > 1 << 14, [&](int64_t task) {
            for (int64_t panel = 0; panel < panels; ++panel)
                write(kernel_of(task % kernels, task / kernels), panel,
                      sums.data() + task * size + panel * panel_size(), chunks, all);
            settle();
        });
    }

    // Adds what some examples and boxes give to all kernels of a group; threads share the work where this is `alone`.
    void add(int64_t first, int64_t last, int64_t group, W *sums, bool alone) const {
        static thread_local Workspace workspace;
        const int64_t bytes = (inputs.size + outputs.size) * sizeof(W);
        const int64_t most = std::clamp<int64_t>(BUDGET / bytes, 1, last - first);
        W *from = workspace.get<W>(most * (inputs.size + outputs.size)), *to = from + most * inputs.size;
        for (; first < last; first += most) {
            const int64_t count = std::min(most, last - first);
            on_threads<Share::even>(count, alone && count > 1, [&](int64_t n) {
                pack(from + n * inputs.size, to + n * outputs.size, grid.box((first + n) % grid.boxes()),
                     (first + n) / grid.boxes(), group);
            });
            on_threads(kernels, alone && kernels > 1, [&](int64_t kernel) {
                const Depth depth = depth_of(kernel, first, count);
                for (int64_t panel = 0; panel < panels; ++panel)
                    multiply(panel, turned ? to : from, turned ? from : to, depth,
                             sums + (kernel * panels + panel) * panel_size(), true);
            });
        }
        workspace.trim();
    }

    // The positions of a kernel in some packed boxes.
    Depth depth_of(int64_t kernel, int64_t first, int64_t count) const {
        const Axis *a = window.axis;
        const int64_t residue[AXES] = {kernel / a[2].period / a[1].period, kernel / a[2].period % a[1].period,
                                       kernel % a[2].period};
        const Line next = far(0, 0, a[2].period);
        Depth depth{{}, next.left, next.right};
        for (int64_t n = 0; n < count; ++n) {
            const Box box = grid.box((first + n) % grid.boxes());
            const int64_t from = n * inputs.size, to = n * outputs.size;
            int64_t start[AXES];
            for (int b = 0; b < AXES; ++b) start[b] = modulo(residue[b] - box.lo[b], a[b].period);
            if (start[2] >= box.n[2]) continue;
            for (int64_t i = start[0]; i < box.n[0]; i += a[0].period)
                for (int64_t j = start[1]; j < box.n[1]; j += a[1].period) {
                    Line line = far(i, j, start[2]);
                    line.left += turned ? to : from, line.right += turned ? from : to;
                    line.steps = ceil_div(box.n[2] - start[2], a[2].period);
                    depth.lines.push_back(line);
                }
        }
        return depth;
    }
};

}  // namespace

template <typename T>
bool position_weights(const Window &window, Maps<T> input, Maps<T> output, T *weight) {
    const Weights<T> call(window, input, output, weight);
    if (call.idle()) return false;
    call.solve();
    return true;
}

template bool position_weights(const Window &, Maps<float>, Maps<float>, float *);
template bool position_weights(const Window &, Maps<double>, Maps<double>, double *);
template bool position_weights(const Window &, Maps<bfloat16>, Maps<bfloat16>, bfloat16 *);

}  // namespace striate::STRIATE_SET
