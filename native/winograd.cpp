// Winograd's minimal filtering of dense 3x3 convolutions. Tiles go to points, points are multiplied as matrices, and
// the products go back to tiles while they are still in the cache. The input gradient is the same with turned weights;
// the weight gradient multiplies the points of both maps, tile by tile.
#include <omp.h>

#include "filtering.hpp"
#include "gemm.hpp"
#include "kernels.hpp"
#include "threads.hpp"

namespace striate::STRIATE_SET {

namespace {

constexpr int64_t DEPTH = 128;        // channels whose transformed weights are one block
constexpr int64_t SEGMENT = 28;       // tiles of one row that are laid out at once
constexpr int64_t CACHE = 200 << 10;  // bytes for the points of a block of tiles; weights pass through it too

int64_t parts(int64_t whole, int64_t part) { return (whole + part - 1) / part; }

// Maps with their sizes along the two axes; `before` positions stand outside in front of them.
template <typename T>
struct Image {
    Maps<T> maps;
    int64_t channels, size[2], before[2];
};

// All tiles of a batch, numbered row by row and example by example.
struct Tiling {
    int64_t batch, counts[2];

    int64_t total() const { return batch * counts[0] * counts[1]; }

    // Tiles [first, last) in stretches of one row: visit(example, row, column, count, number of the first one).
    template <typename Visit>
    void stretches(int64_t first, int64_t last, Visit visit) const {
        for (int64_t t = first; t < last;) {
            int64_t column = t % counts[1], row = t / counts[1];
            int64_t count = std::min({last - t, counts[1] - column, SEGMENT});
            visit(row / counts[0], row % counts[0], column, count, t);
            t += count;
        }
    }
};

template <typename F, typename T>
struct Filter {
    using W = typename Wide<T>::type;
    using V = Pack<W>;
    static constexpr int L = LANES<W>, SQUARE = F::POINTS * F::POINTS;

    // Packs of one row of a stretch of tiles, and of the scratch that holds its rows.
    static constexpr int64_t WIDTH = SEGMENT * F::OUT + TAPS - 1, SCRATCH = F::POINTS * WIDTH;

    static Rectangle rectangle(const Image<T> &image, int64_t chunk, int64_t rows, int64_t width) {
        const Maps<T> &m = image.maps;
        int lanes = int(std::clamp<int64_t>(image.channels - chunk * L, 0, L));
        return {m.channel, m.step[1], m.step[2], lanes, rows, width};
    }

    // What the tiles [first, last) read of L channels, by the matrix M along both axes: point p of tile t to
    // to[p * step + (t - first) * apart].
    template <typename M>
    static void points_of(const Image<T> &image, const Tiling &tiling, int64_t chunk, int64_t first, int64_t last,
                          V *to, int64_t step, int64_t apart, V *scratch) {
        tiling.stretches(first, last, [&](int64_t n, int64_t row, int64_t column, int64_t count, int64_t t) {
            int64_t width = (count - 1) * F::OUT + M::FROM;
            int64_t y0 = row * F::OUT - image.before[0], x0 = column * F::OUT - image.before[1];
            int64_t ya = std::clamp<int64_t>(-y0, 0, M::FROM), xa = std::clamp<int64_t>(-x0, 0, width);
            int64_t yb = std::clamp<int64_t>(image.size[0] - y0, ya, M::FROM);
            int64_t xb = std::clamp<int64_t>(image.size[1] - x0, xa, width);
            for (int64_t y = 0; y < M::FROM; ++y) {
                bool outside = y < ya || y >= yb || xa == xb;
                std::fill(scratch + y * width, scratch + y * width + (outside ? width : xa), V{});
                std::fill(scratch + y * width + xb, scratch + (y + 1) * width, V{});
            }
            if (ya < yb && xa < xb) {
                const Maps<T> &m = image.maps;
                const T *from = m.data + n * m.batch + chunk * L * m.channel + (y0 + ya) * m.step[1] +
                                (x0 + xa) * m.step[2];
                to_lanes<T, W>(from, rectangle(image, chunk, yb - ya, xb - xa), scratch + ya * width + xa, width);
            }
            for (int64_t i = 0; i < count; ++i)
                along_both<M>(scratch + i * F::OUT, width, to + (t - first + i) * apart, step);
        });
    }

    // The way back for outputs: what lies beyond the image is dropped.
    static void outputs_of(const V *from, int64_t step, int64_t apart, const Image<T> &image, const Tiling &tiling,
                           int64_t chunk, int64_t first, int64_t last, V *scratch) {
        tiling.stretches(first, last, [&](int64_t n, int64_t row, int64_t column, int64_t count, int64_t t) {
            int64_t width = count * F::OUT, y = row * F::OUT, x = column * F::OUT;
            for (int64_t i = 0; i < count; ++i) {
                V points[SQUARE], out[F::OUT * F::OUT];
                for (int p = 0; p < SQUARE; ++p) points[p] = from[p * step + (t - first + i) * apart];
                along_both<typename F::Out>(points, F::POINTS, out, 1);
                for (int p = 0; p < F::OUT * F::OUT; ++p)
                    scratch[p / F::OUT * width + i * F::OUT + p % F::OUT] = out[p];
            }
            const Maps<T> &m = image.maps;
            int64_t rows = std::min<int64_t>(F::OUT, image.size[0] - y), columns = std::min(width, image.size[1] - x);
            T *to = m.data + n * m.batch + chunk * L * m.channel + y * m.step[1] + x * m.step[2];
            from_lanes<T, W>(scratch, width, rectangle(image, chunk, rows, columns), to);
        });
    }
};

// output = A^T [ (G g) * (B^T d) ] for all tiles: a product of (tiles x sources) and (sources x results) at each point.
template <typename F, typename T>
class Correlation : Filter<F, T> {
    using Base = Filter<F, T>;
    using typename Base::V;
    using typename Base::W;
    using Base::L, Base::SQUARE;

   public:
    // turned: the weights are those of the opposite direction, so that they are exchanged and turned by half a circle.
    Correlation(Image<T> from, Image<T> to, const T *weight, bool turned, int64_t batch)
        : from(from), to(to), weight(weight), turned(turned),
          tiling{batch, {parts(to.size[0], F::OUT), parts(to.size[1], F::OUT)}},
          chunks(parts(from.channels, L)), panels(parts(to.channels, PANEL<W>)), blocks(parts(from.channels, DEPTH)),
          point(std::min(DEPTH, chunks * L) * COLUMNS + 1) {}

    void run() {
        int64_t total = tiling.total(), each = std::max<int64_t>(ROWS, CACHE / int64_t(SQUARE * chunks * sizeof(V)));
        if (total <= 128)
            by_panels(total);
        else
            by_tiles(parts(total, parts(total, each)));
    }

   private:
    Image<T> from, to;
    const T *weight;
    bool turned;
    Tiling tiling;
    int64_t chunks, panels, blocks;
    int64_t point;  // packs between the points of a block of weights; odd, so that they do not share a set of the cache

    // Few tiles: the weights are the large thing, so that each panel of them is transformed where it is used.
    void by_panels(int64_t tiles) {
        int64_t threads = omp_get_max_threads();
        int64_t step = tiles * chunks + 1, sums = tiles * COLUMNS + 1;
        Room<V> points(SQUARE * step), own(threads * own_size(tiles, SQUARE * point));
        Caught caught;
#pragma omp parallel num_threads(threads)
        {
            V *scratch = own + omp_get_thread_num() * own_size(tiles, SQUARE * point);
            V *result = scratch + Base::SCRATCH + TAPS * TAPS * DEPTH, *transformed = result + SQUARE * sums;
#pragma omp for schedule(dynamic)
            for (int64_t c = 0; c < chunks; ++c)
                caught([&] {
                    Base::template points_of<typename F::Image>(from, tiling, c, 0, tiles, points + c * tiles, step, 1,
                                                                scratch);
                });
#pragma omp for schedule(dynamic)
            for (int64_t panel = 0; panel < panels; ++panel)
                caught([&] {
                    for (int64_t b = 0; b < blocks; ++b) {
                        transform_weights(panel, b, transformed, scratch);
                        multiply(points, tiles, b, transformed, result);
                    }
                    write(result, tiles, panel, 0, tiles, scratch);
                });
        }
        caught.rethrow();
    }

    // Many tiles: the weights are transformed once, and a block of tiles stays in the cache.
    void by_tiles(int64_t most) {
        int64_t threads = omp_get_max_threads(), total = tiling.total();
        int64_t step = most * chunks + 1;
        int64_t size = own_size(most, SQUARE * step);
        Room<V> weights(panels * blocks * SQUARE * point), own(threads * size);
        Caught caught;
#pragma omp parallel num_threads(threads)
        {
            V *scratch = own + omp_get_thread_num() * size;
            V *result = scratch + Base::SCRATCH + TAPS * TAPS * DEPTH;
            V *points = result + SQUARE * (most * COLUMNS + 1);
#pragma omp for schedule(dynamic)
            for (int64_t i = 0; i < panels * blocks; ++i)
                caught([&] { transform_weights(i / blocks, i % blocks, weights + i * SQUARE * point, scratch); });
#pragma omp for schedule(dynamic)
            for (int64_t first = 0; first < total; first += most)
                caught([&] {
                    int64_t last = std::min(first + most, total), tiles = last - first, step = tiles * chunks + 1;
                    for (int64_t c = 0; c < chunks; ++c)
                        Base::template points_of<typename F::Image>(from, tiling, c, first, last, points + c * tiles,
                                                                    step, 1, scratch);
                    for (int64_t panel = 0; panel < panels; ++panel) {
                        for (int64_t b = 0; b < blocks; ++b)
                            multiply(points, tiles, b, weights + (panel * blocks + b) * SQUARE * point, result);
                        write(result, tiles, panel, first, last, scratch);
                    }
                });
        }
        caught.rethrow();
    }

    // Packs of one thread: scratch for rows and weights, sums of one panel, and `more`.
    static int64_t own_size(int64_t tiles, int64_t more) {
        return Base::SCRATCH + TAPS * TAPS * DEPTH + SQUARE * (tiles * COLUMNS + 1) + more;
    }

    void multiply(const V *points, int64_t tiles, int64_t block, const V *weights, V *result) const {
        int64_t step = tiles * chunks + 1, sums = tiles * COLUMNS + 1;
        int64_t first = block * DEPTH, depth = std::min(DEPTH, from.channels - first);
        for (int p = 0; p < SQUARE; ++p)
            product<W, ROWS, L, 1>((const W *)(points + p * step + first / L * tiles), {L, tiles * L},
                                   (const W *)(weights + p * point), tiles, depth, (W *)(result + p * sums), block > 0);
    }

    void write(const V *result, int64_t tiles, int64_t panel, int64_t first, int64_t last, V *scratch) const {
        for (int v = 0; v < COLUMNS; ++v) {
            int64_t chunk = panel * COLUMNS + v;
            if (chunk * L < to.channels)
                Base::outputs_of(result + v, tiles * COLUMNS + 1, COLUMNS, to, tiling, chunk, first, last, scratch);
        }
    }

    // One panel of results by one block of sources: entry (point p, source c) to to[p * point + c * COLUMNS].
    void transform_weights(int64_t panel, int64_t block, V *transformed, V *scratch) const {
        int64_t first = block * DEPTH, depth = std::min(DEPTH, from.channels - first);
        constexpr int64_t KERNEL = TAPS * TAPS;
        for (int v = 0; v < COLUMNS; ++v) {
            int64_t result = panel * PANEL<W> + v * L;
            int lanes = int(std::clamp<int64_t>(to.channels - result, 0, L));
            int64_t row = turned ? to.channels * KERNEL : KERNEL, channel = turned ? KERNEL : from.channels * KERNEL;
            to_lanes<T, W>(weight + result * channel + first * row, {channel, row, 1, lanes, depth, KERNEL}, scratch,
                           KERNEL);
            for (int64_t c = 0; c < depth; ++c) {
                V *kernel = scratch + c * KERNEL;
                if (turned) std::reverse(kernel, kernel + KERNEL);
                along_both<typename F::Kernel>(kernel, TAPS, transformed + c * COLUMNS + v, point);
            }
        }
    }
};

// weight = G^T [ sum over tiles of (A m) * (B^T d) ] G: at each point (sources x tiles) times (tiles x results).
template <typename F, typename T>
class WeightGradient : Filter<F, T> {
    using Base = Filter<F, T>;
    using typename Base::V;
    using typename Base::W;
    using Base::L, Base::SQUARE;
    static constexpr int AT_ONCE = BYTES == 64 ? 8 : 4;  // rows of sums: as many as divide the lanes

   public:
    WeightGradient(Image<T> from, Image<T> to, T *weight, int64_t batch)
        : from(from), to(to), weight(weight), tiling{batch, {parts(to.size[0], F::OUT), parts(to.size[1], F::OUT)}},
          chunks(parts(from.channels, L)), panels(parts(to.channels, PANEL<W>)),
          sums(from.channels * COLUMNS + 1), total(panels * SQUARE * sums) {}

    void run() {
        int64_t threads = omp_get_max_threads(), tiles = std::min(TILES, tiling.total());
        Room<V> result(total), images(SQUARE * (TILES * chunks + 1)), maps(panels * SQUARE * (TILES * COLUMNS + 1)),
            own(threads * SCRATCH);
        Caught caught;
#pragma omp parallel num_threads(threads)
        {
            V *scratch = own + omp_get_thread_num() * SCRATCH;
            for (int64_t first = 0; first < tiling.total(); first += tiles) {
                transform(first, std::min(first + tiles, tiling.total()), images, maps, scratch, caught);
                multiply(std::min(tiles, tiling.total() - first), images, maps, result, first > 0, caught);
            }
#pragma omp for schedule(dynamic)
            for (int64_t chunk = 0; chunk < panels * COLUMNS; ++chunk) caught([&] { write(result, chunk, scratch); });
        }
        caught.rethrow();
    }

   private:
    static constexpr int64_t TILES = 112;  // whose points are multiplied before more are transformed
    static constexpr int64_t SCRATCH = Base::SCRATCH + TAPS * TAPS * DEPTH;

    Image<T> from, to;
    T *weight;
    Tiling tiling;
    int64_t chunks, panels;
    int64_t sums, total;  // packs between two points of a panel of the result; of the whole result

    void transform(int64_t first, int64_t last, V *images, V *maps, V *scratch, Caught &caught) const {
        int64_t tiles = last - first;
#pragma omp for schedule(dynamic) nowait
        for (int64_t c = 0; c < chunks; ++c)
            caught([&] {
                Base::template points_of<typename F::Image>(from, tiling, c, first, last, images + c * tiles,
                                                            tiles * chunks + 1, 1, scratch);
            });
#pragma omp for schedule(dynamic)
        for (int64_t c = 0; c < panels * COLUMNS; ++c)
            caught([&] {
                Base::template points_of<typename F::OutTransposed>(
                    to, tiling, c, first, last, maps + c / COLUMNS * SQUARE * (tiles * COLUMNS + 1) + c % COLUMNS,
                    tiles * COLUMNS + 1, COLUMNS, scratch);
            });
    }

    void multiply(int64_t tiles, const V *images, const V *maps, V *result, bool more, Caught &caught) const {
#pragma omp for schedule(dynamic)
        for (int64_t i = 0; i < SQUARE * panels; ++i)
            caught([&] {
                for (int64_t c = 0; c < chunks; ++c)
                    product<W, AT_ONCE, 1, L>((const W *)(images + i % SQUARE * (tiles * chunks + 1) + c * tiles),
                                              {tiles, 0},
                                              (const W *)(maps + i * (tiles * COLUMNS + 1)),
                                              std::min<int64_t>(L, from.channels - c * L), tiles,
                                              (W *)(result + i * sums + c * L * COLUMNS), more);
            });
    }

    // The weights of L results, from points to taps.
    void write(const V *result, int64_t chunk, V *scratch) const {
        constexpr int64_t KERNEL = TAPS * TAPS;
        int lanes = int(std::clamp<int64_t>(to.channels - chunk * L, 0, L));
        const V *panel = result + chunk / COLUMNS * SQUARE * sums + chunk % COLUMNS;
        for (int64_t first = 0; first < from.channels; first += DEPTH) {
            int64_t depth = std::min(DEPTH, from.channels - first), row = from.channels * KERNEL;
            for (int64_t c = 0; c < depth; ++c) {
                V points[SQUARE];
                for (int p = 0; p < SQUARE; ++p) points[p] = panel[p * sums + (first + c) * COLUMNS];
                along_both<typename F::KernelTransposed>(points, F::POINTS, scratch + c * KERNEL, 1);
            }
            from_lanes<T, W>(scratch, depth * KERNEL, {row, 0, 1, lanes, 1, depth * KERNEL},
                             weight + chunk * L * row + first * KERNEL);
        }
    }
};

}  // namespace

template <typename F, typename T>
void filter(const Window &window, Maps<T> input, Maps<T> output, T *weight) {
    const Axis &y = window.axis[1], &x = window.axis[2];
    Image<T> in{input, window.in_channels, {y.size, x.size}, {y.before, x.before}};
    Image<T> out{output, window.out_channels, {y.out, x.out}, {TAPS - 1 - y.before, TAPS - 1 - x.before}};
    if (window.direction == Direction::forward)
        Correlation<F, T>(in, out, weight, false, window.batch).run();
    else if (window.direction == Direction::input_gradient)
        Correlation<F, T>(out, in, weight, true, window.batch).run();
    else
        WeightGradient<F, T>(in, {output, window.out_channels, {y.out, x.out}, {0, 0}}, weight, window.batch).run();
}

template <typename T>
void winograd(const Window &window, Maps<T> input, Maps<T> output, T *weight, int outputs) {
    (outputs == F43::OUT ? filter<F43, T> : filter<F23, T>)(window, input, output, weight);
}

template void winograd(const Window &, Maps<float>, Maps<float>, float *, int);
template void winograd(const Window &, Maps<double>, Maps<double>, double *, int);
template void winograd(const Window &, Maps<bfloat16>, Maps<bfloat16>, bfloat16 *, int);

}  // namespace striate::STRIATE_SET
