// Windows of channels that lie next to each other in memory, read as they lie: nothing is packed but the weights.
//
// Lanes are the channels of the result. A depthwise lane reads its own channel. In a group of as many channels as a
// vector has lanes, or a multiple, one channel at a time is spread over all lanes; in a narrower group each lane chooses
// its group's channel from the vector. The geometry of a row is worked out once: pieces of a few results next to each
// other, each with runs of taps and the columns of them that are real.
#include "direct.hpp"

#include <array>
#include <vector>

#include "lines.hpp"
#include "threads.hpp"

namespace striate::STRIATE_SET {
namespace {

enum class Reading { own, chosen, spread };

constexpr int PIECES = REGISTERS == 32 ? 14 : 7;  // results that are summed at once, at most
constexpr int RUNS[] = {7, 5, 3, 2, 1};           // taps of a row that are taken at once

// Where memory binds, rows of any length are cut evenly. Where arithmetic does, many results hide the latency of an
// addition, and fewer of the kernels are worth their place; nor are they all in the less common types.
template <typename T>
constexpr bool has_piece(Reading reading, int results) {
    if (!std::is_same_v<T, float>) return results == 1 || results == 2 || results == 4 || results == 7;
    return reading == Reading::own ? results <= 7 : results <= 4 || results == 7 || results == 8 || results == 14;
}
constexpr size_t first_run(Reading reading) { return reading == Reading::own ? 0 : 2; }

constexpr int64_t LARGEST = 128;  // taps of a window that pay off
constexpr int64_t BAND = 8;      // rows that one task solves

// Taps of a row that follow each other: of the columns that the results of a piece read through them, [from, to) are
// real. Offsets in elements; the first column may lie before the map.
struct Run {
    int64_t x, w;
    int from, to;
};

// Where the taps of the outer axes stand.
struct Row {
    int64_t x, w;
};

template <typename T, typename W>
struct Task {
    Blocks blocks;
    int64_t planes, w_plane, w_block;
    const typename Register<W>::places *lanes;        // of each plane, from which lane each one reads
    int64_t ahead, fresh, row_pitch, apart, x_pitch;  // the rows that the next results read first
    const T *x;
    const W *w;
    T *to;
    W *window;  // room for what the results of a piece read
    const Row *row;
    const Run *run;
    int64_t rows, full, single;  // runs of all taps that are taken at once, and of one
    int64_t pitch, result_pitch;
};

// K taps of one row into R results: each value, read from `x` by `read`, serves up to K of them.
template <bool EDGE, int R, int K, typename T, typename W, typename Read>
STRIATE_INLINE inline void add_row(Lanes<W> (&sums)[R], const T *x, const W *w, int64_t pitch, const Run &run,
                                   Read read) {
    Lanes<W> weight[K];
    unroll<K>([&](auto k) STRIATE_INLINE { weight[k] = load(w + k * LANES<W>); });
    unroll<R + K - 1>([&](auto column) STRIATE_INLINE {
        if (!EDGE || (column >= run.from && column < run.to)) {
            const Lanes<W> value = read(x);
            unroll<K>([&](auto k) STRIATE_INLINE {
                constexpr int r = column - k;
                if constexpr (r >= 0 && r < R) sums[r] += value * weight[k];
            });
        }
        x += pitch;
    });
}

template <int R, typename T, typename W>
STRIATE_INLINE inline void store_all(T *to, int64_t pitch, const Lanes<W> (&sums)[R]) {
    unroll<R>([&](auto r) STRIATE_INLINE {
        store(to, sums[r]);
        to += pitch;
    });
}

template <typename T, typename W, bool EDGE, int R, int K>
void solve_own(const Task<T, W> &s) {
    const auto read = [](const T *x) STRIATE_INLINE { return load(x); };
    for (int64_t block = 0; block < s.blocks.count; ++block) {
        const int64_t channel = s.blocks.template first<W>(block);
        const T *map = s.x + channel;
        for (int64_t row = 0; row < s.fresh; ++row)
            for (int64_t c = 0; c < R * s.apart; ++c)
                __builtin_prefetch(map + s.ahead + row * s.row_pitch + c * s.x_pitch);
        Lanes<W> sums[R] = {};
        for (int64_t r = 0; r < s.rows; ++r) {
            const T *x = map + s.row[r].x;
            const W *w = s.w + block * s.w_block + s.row[r].w;
            const Run *run = s.run, *end = run + s.full;
            for (; run < end; ++run) add_row<EDGE, R, K>(sums, x + run->x, w + run->w, s.pitch, *run, read);
            for (end += s.single; K > 1 && run < end; ++run)
                add_row<EDGE, R, 1>(sums, x + run->x, w + run->w, s.pitch, *run, read);
        }
        store_all<R, T, W>(s.to + channel, s.result_pitch, sums);
    }
}

// The columns that a run reads, widened and next to each other, `width` channels of each; those beyond the map are 0.
template <typename T, typename W>
STRIATE_INLINE inline W *gather(W *to, const T *x, int64_t pitch, int64_t width, const Run &run, int64_t columns) {
    for (int64_t c = 0; c < columns; ++c, x += pitch)
        for (int64_t v = 0; v < width; v += LANES<W>, to += LANES<W>)
            store<W>(to, c >= run.from && c < run.to ? load(x + v) : Lanes<W>{});
    return to;
}

// Every value serves a whole group, so that it pays to gather what a piece reads.
template <typename T, typename W, bool SPREAD, int R, int K>
void solve_groups(const Task<T, W> &s) {
    constexpr int64_t N = LANES<W>;
    const int64_t width = SPREAD ? s.planes : N;
    for (int64_t block = 0; block < s.blocks.count; ++block) {
        const int64_t channel = s.blocks.template first<W>(block);
        const T *map = s.x + (SPREAD ? channel / s.planes * s.planes : channel);
        W *room = s.window;
        for (int64_t r = 0; r < s.rows; ++r)
            for (int64_t i = 0; i < s.full + s.single; ++i)
                room = gather(room, map + s.row[r].x + s.run[i].x, s.pitch, width, s.run[i], R + (i < s.full ? K - 1 : 0));
        Lanes<W> sums[R] = {};
        for (int64_t p = 0; p < s.planes; ++p) {
            typename Register<W>::places lane{};
            if constexpr (!SPREAD) lane = s.lanes[p];
            const auto read = [&](const W *x) STRIATE_INLINE {
                if constexpr (SPREAD)
                    return *x - Lanes<W>{};  // x + 0 would not be x where x is -0
                else
                    return __builtin_shuffle(load(x), lane);
            };
            const W *x = s.window + (SPREAD ? p : 0), *weights = s.w + block * s.w_block + p * s.w_plane;
            for (int64_t r = 0; r < s.rows; ++r) {
                const W *w = weights + s.row[r].w;
                const Run *run = s.run, *end = run + s.full;
                for (; run < end; ++run, x += (R + K - 1) * width)
                    add_row<false, R, K>(sums, x, w + run->w, width, *run, read);
                for (end += s.single; K > 1 && run < end; ++run, x += R * width)
                    add_row<false, R, 1>(sums, x, w + run->w, width, *run, read);
            }
        }
        store_all<R, T, W>(s.to + channel, s.result_pitch, sums);
    }
}

// Some results of a row, next to each other or in turns, and the kernel that solves for them.
template <typename T, typename W>
struct Piece {
    void (*solve)(const Task<T, W> &);
    int64_t result, result_pitch, pitch, run, full, single, ahead;
};

template <typename T, typename W, Reading READING, bool EDGE, int R, int K>
constexpr auto kernel() -> void (*)(const Task<T, W> &) {
    if constexpr (!has_piece<T>(READING, R) || K > RUNS[first_run(READING)])
        return nullptr;
    else if constexpr (READING == Reading::own)
        return solve_own<T, W, EDGE, R, K>;
    else
        return solve_groups<T, W, READING == Reading::spread, R, K>;
}

template <typename T, typename W>
auto kernel_of(Reading reading, bool edge, int results, size_t run) {
    constexpr int runs = int(std::size(RUNS)), all = PIECES * runs;
    static constexpr auto table = []<int... I>(std::integer_sequence<int, I...>) {
        return std::array<void (*)(const Task<T, W> &), sizeof...(I)>{
            kernel<T, W, Reading(I / (2 * all)), I / all % 2 != 0, I / runs % PIECES + 1, RUNS[I % runs]>()...};
    }(std::make_integer_sequence<int, 3 * 2 * all>{});
    return table[((int(reading) * 2 + edge) * PIECES + results - 1) * runs + int(run)];
}

// The run that takes so many taps with the fewest values read.
inline size_t run_of(int64_t taps, Reading reading) {
    size_t best = std::size(RUNS) - 1;
    auto reads = [&](size_t i) { return taps / RUNS[i] * (7 + 2 * RUNS[i]) + taps % RUNS[i] * (7 + 2); };
    for (size_t i = best; i-- > first_run(reading);)
        if (RUNS[i] <= taps && reads(i) <= reads(best)) best = i;
    return best;
}

// How many of so many results are summed first, so that few pieces are shorter than the latency of an addition.
template <typename T>
int piece_of(int64_t results, Reading reading) {
    constexpr int64_t LATENCY = 6, CALL = 2, FAR = 4 * PIECES;
    int largest = PIECES;
    while (!has_piece<T>(reading, largest)) --largest;
    if (results > FAR) return largest;
    std::array<int64_t, FAR + 1> cost{}, piece{};
    for (int64_t n = 1; n <= results; ++n)
        for (int here = 1; here <= largest && here <= n; ++here)
            if (const int64_t c = cost[n - here] + std::max<int64_t>(here, LATENCY) + CALL;
                has_piece<T>(reading, here) && (piece[n] == 0 || c <= cost[n]))
                cost[n] = c, piece[n] = here;
    return int(piece[results]);
}

// The pieces of all results of a row.
template <typename T, typename W>
struct Pieces {
    std::vector<Piece<T, W>> piece;
    std::vector<Run> run;

    Pieces(const Axis &axis, Direction direction, int64_t size, int64_t x_step, int64_t result_step,
           const int64_t *place, Reading reading) {
        for (int64_t number = 0; number < lines(axis, direction); ++number) {
            const Line row = line_of(axis, direction, number);
            Turns turns = turns_of(row);
            if (turns.results > 1) turns = {row.stride, 1, std::max<int64_t>(row.taps, 1)};  // neighbours, although they share no column
            for (int64_t turn = 0; turn < turns.results && turn < row.count; ++turn)
                for (int64_t from = turn, left = ceil_div(row.count - turn, turns.results); left > 0;) {
                    const int here = piece_of<T>(left, reading);
                    add(row, turns, from, here, size, x_step, place, reading);
                    piece.back().result = (row.first + from * row.step) * result_step;
                    piece.back().result_pitch = row.step * turns.results * result_step;
                    from += here * turns.results, left -= here;
                }
        }
    }

    // Columns that the runs of a piece read, at most.
    int64_t most() const {
        int64_t columns = 0;
        for (const auto &p : piece) columns = std::max(columns, (p.full + p.single) * (PIECES + RUNS[0] - 1));
        return columns;
    }

  private:
    void add(const Line &row, const Turns &turns, int64_t from, int results, int64_t size, int64_t x_step,
             const int64_t *place, Reading reading) {
        const size_t kind = run_of(ceil_div(row.taps, turns.taps), reading);
        const int64_t first = int64_t(run.size()), once = RUNS[kind];
        bool edge = false;
        const auto take = [&](int64_t turn, int64_t tap, int64_t taps) {
            const int64_t j = turn + tap * turns.taps, reads = row.source + from * row.stride + j * row.dilation;
            const Reach real = reach(reads, turns.apart, results + taps - 1, 0, size);
            if (real.from == real.to) return;
            edge |= real.to - real.from < results + taps - 1;
            run.push_back({reads * x_step, place[row.tap + j * row.tap_step], int(real.from), int(real.to)});
        };
        for (int64_t turn = 0; turn < turns.taps && turn < row.taps; ++turn) {
            const int64_t taps = ceil_div(row.taps - turn, turns.taps);
            for (int64_t tap = 0; tap + once <= taps; tap += once) take(turn, tap, once);
        }
        const int64_t full = int64_t(run.size()) - first;
        for (int64_t turn = 0; turn < turns.taps && turn < row.taps && once > 1; ++turn) {
            const int64_t taps = ceil_div(row.taps - turn, turns.taps);
            for (int64_t tap = taps / once * once; tap < taps; ++tap) take(turn, tap, 1);
        }
        const int64_t single = int64_t(run.size()) - first - full;
        piece.push_back({kernel_of<T, W>(reading, edge, results, kind), 0, 0, turns.apart * x_step, first, full, single,
                         (row.source + (from + results) * row.stride + (row.taps - 1) * row.dilation) * x_step});
    }
};

// The taps through which each result of an outer axis reads the map.
std::vector<std::vector<Row>> rows_of(const Axis &axis, Direction direction, int64_t size, int64_t results,
                                      int64_t x_step, int64_t w_step) {
    std::vector<std::vector<Row>> rows(results);
    for (int64_t number = 0; number < lines(axis, direction); ++number) {
        const Line line = line_of(axis, direction, number);
        for (int64_t i = 0; i < line.count; ++i) {
            const int64_t source = line.source + i * line.stride;
            const Reach taps = reach(source, line.dilation, line.taps, 0, size);
            for (int64_t j = taps.from; j < taps.to; ++j)
                rows[line.first + i * line.step].push_back(
                    {(source + j * line.dilation) * x_step, (line.tap + j * line.tap_step) * w_step});
        }
    }
    return rows;
}

template <typename T, typename W>
void solve_maps(const Window &window, const Maps<T> &from, const Maps<T> &to, const T *weight, Reading reading) {
    constexpr int64_t N = LANES<W>;
    const Direction direction = window.direction;
    const bool inward = direction == Direction::input_gradient;
    const Axis *axis = window.axis;
    Blocks blocks = blocks_of<W>(window);
    blocks.overlap = true;
    int64_t size[AXES], results[AXES], row_taps = 1;
    for (int a = 0; a < AXES; ++a) {
        size[a] = inward ? axis[a].out : axis[a].size;
        results[a] = inward ? axis[a].size : axis[a].out;
        if (a < 2) row_taps *= axis[a].kernel;
    }
    const int64_t columns = axis[2].kernel, plane = row_taps * columns * N, length = blocks.planes * plane;
    std::vector<int64_t> place(columns, -1);
    place_taps(place.data(), axis[2], direction, N);
    thread_local Scratch weight_scratch;
    W *weights = weight_scratch.at_least<W>(blocks.count * length);
    pack_weights(weights, place.data(), weight, blocks, axis, inward);
    typename Register<W>::places lanes[N];
    for (int64_t p = 0; p < blocks.planes && p < N; ++p)
        for (int64_t l = 0; l < N; ++l) lanes[p][l] = l / blocks.planes * blocks.planes + p;
    const Pieces<T, W> pieces(axis[2], direction, size[2], from.step[2], to.step[2], place.data(), reading);
    const auto deep = rows_of(axis[0], direction, size[0], results[0], from.step[0], axis[1].kernel * columns * N);
    const auto high = rows_of(axis[1], direction, size[1], results[1], from.step[1], columns * N);
    const int64_t rows = results[0] * results[1], bands = ceil_div(rows, BAND);
    Task<T, W> all{};
    all.blocks = blocks, all.planes = blocks.planes, all.w_plane = plane, all.w_block = length;
    all.lanes = lanes, all.w = weights;
    all.fresh = inward ? 1 : axis[1].stride, all.row_pitch = from.step[1];
    all.apart = inward ? 1 : axis[2].stride, all.x_pitch = from.step[2];
    struct State {
        std::vector<Row> row;
        std::vector<W> room;
    };
    const int64_t gathered = reading == Reading::own ? 0 : row_taps * pieces.most() * std::max(N, blocks.planes);
    on_threads(
        window.batch * bands, window.batch * bands > 1,
        [&] { return State{std::vector<Row>(row_taps), std::vector<W>(gathered)}; },
        [&](State &state, int64_t band) {
            Task<T, W> task = all;
            Row *const row = state.row.data();
            task.row = row, task.window = state.room.data();
            const int64_t example = band / bands, begin = band % bands * BAND, end = std::min(rows, begin + BAND);
            task.x = from.data + example * from.batch;
            for (int64_t r = begin; r < end; ++r) {
                const int64_t z = r / results[1], y = r % results[1];
                task.rows = 0;
                for (const Row &a : deep[z])
                    for (const Row &b : high[y]) row[task.rows++] = {a.x + b.x, a.w + b.w};
                T *to_row = to.data + example * to.batch + z * to.step[0] + y * to.step[1];
                for (const auto &piece : pieces.piece) {
                    task.run = pieces.run.data() + piece.run;
                    task.full = piece.full, task.single = piece.single, task.pitch = piece.pitch;
                    task.to = to_row + piece.result, task.result_pitch = piece.result_pitch;
                    task.ahead = rows == 1 ? piece.ahead : 0;
                    if (rows > 1 && task.rows && piece.full + piece.single)
                        task.ahead = row[task.rows - 1].x + from.step[1] + task.run[0].x;
                    piece.solve(task);
                }
            }
        });
}

}  // namespace

template <typename T>
bool direct(const Window &window, const Maps<T> &input, const Maps<T> &output, const T *weight) {
    using W = typename Wide<T>::type;
    constexpr int64_t N = LANES<W>;
    const bool inward = window.direction == Direction::input_gradient;
    const Blocks blocks = blocks_of<W>(window);
    const int64_t each = blocks.each, taps = window.axis[0].kernel * window.axis[1].kernel * window.axis[2].kernel;
    if (input.channel != 1 || output.channel != 1 || blocks.planes != each || blocks.result_channels < N) return false;
    if (taps > LARGEST || (N % each && each % N)) return false;
    const Reading reading = each == 1 ? Reading::own : each < N ? Reading::chosen : Reading::spread;
    if (inward)
        solve_maps<T, W>(window, output, input, weight, reading);
    else
        solve_maps<T, W>(window, input, output, weight, reading);
    return true;
}

template bool direct(const Window &, const Maps<float> &, const Maps<float> &, const float *);
template bool direct(const Window &, const Maps<double> &, const Maps<double> &, const double *);
template bool direct(const Window &, const Maps<bfloat16> &, const Maps<bfloat16> &, const bfloat16 *);

}  // namespace striate::STRIATE_SET
