// Small and local layers, with the examples and strips of positions in the lanes: weights are broadcast, so that any
// period of them, any window and any number of channels fill the registers.
//
// Maps are packed as [lane block][channel][position][lane]. What is left is a sum over reads k of packed vectors,
//     result[j][v] += weight[k][j] * source[v + offset[k]],
// for all vectors v whose positions have the same weights. The gradient of the weights is in
// position_weights.cpp, but for that of few channels.
#include "kernels.hpp"
#include "position_scatter.hpp"
#include "threads.hpp"

namespace striate::STRIATE_SET {
namespace {

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
        on_threads(tasks, tasks > 1, [&](int64_t task) {
            const int64_t first = task / call.window.groups / boxes * together;
            const int64_t blocks = std::min(together, call.blocks() - first);
            solve(grid.box(task / call.window.groups % boxes), first, blocks, task % call.window.groups);
        });
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
        on_threads<Share::even>(tasks, packed.size() > 1 << 16, [&](int64_t task) {
            const int64_t item = task % list.size(), group = task / list.size();
            pack_class(packed.data() + group * group_size + starts[item], list[item].data(), group);
        });
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
        on_threads(chunks * groups, chunks * groups > 1, [&](int64_t task) {
            const int64_t chunk = task / groups;
            for (int64_t n = chunk * boxes / chunks; n < (chunk + 1) * boxes / chunks; ++n)
                box(grid.box(n % grid.boxes()), n / grid.boxes(), task % groups, sums.data() + chunk * size);
        });
        constexpr int64_t SOME = 1 << 12;
        on_threads<Share::even>(ceil_div(size, SOME), size * chunks > 1 << 16, [&](int64_t part) {
            for (int64_t i = part * SOME; i < std::min(size, (part + 1) * SOME); ++i) {
                W sum = sums[i];
                for (int64_t chunk = 1; chunk < chunks; ++chunk) sum += sums[chunk * size + i];
                call.weight[i] = narrow<T, W>(sum);
            }
        });
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
