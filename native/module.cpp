// What Python sees: kernels bound to a window, called with addresses; the instruction set is picked and the lock released.
#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <stdexcept>
#include <string>
#include <vector>

#include "lanes.hpp"
#include "window.hpp"

#if defined(__x86_64__)
#define STRIATE_SET v3
#include "kernels.hpp"
#undef STRIATE_SET
#define STRIATE_SET v4
#include "kernels.hpp"
#undef STRIATE_SET
#else
#define STRIATE_SET generic
#include "kernels.hpp"
#undef STRIATE_SET
#endif

namespace nb = nanobind;
using namespace striate;

namespace {

std::string best_set() {
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (__builtin_cpu_supports("x86-64-v4")) return "v4";
    if (__builtin_cpu_supports("x86-64-v3")) return "v3";
    return "";
#else
    return "generic";
#endif
}

std::string chosen = best_set();

constexpr int64_t DIRECT = 100;  // taps of a window up to which channels that are last are pooled without rows between

#if defined(__x86_64__)
#define STRIATE_CALL(kernel, ...)           \
    if (chosen == "v4")                     \
        v4::kernel(__VA_ARGS__);            \
    else                                    \
        v3::kernel(__VA_ARGS__);
#else
#define STRIATE_CALL(kernel, ...) generic::kernel(__VA_ARGS__);
#endif

using Numbers = std::vector<int64_t>;

// numbers: batch, in_channels, out_channels, groups, then (size, out, kernel, stride, dilation, before, period) per axis
Window window_of(const std::string &direction, const Numbers &numbers) {
    constexpr size_t FIELDS = 7;
    if (numbers.size() != 4 + FIELDS * AXES) throw std::invalid_argument("a window has 25 numbers");
    Window window{};
    window.batch = numbers[0], window.in_channels = numbers[1];
    window.out_channels = numbers[2], window.groups = numbers[3];
    for (int a = 0; a < AXES; ++a) {
        const int64_t *n = &numbers[4 + FIELDS * a];
        window.axis[a] = {n[0], n[1], n[2], n[3], n[4], n[5], n[6]};
    }
    if (direction == "forward")
        window.direction = Direction::forward;
    else if (direction == "input_gradient")
        window.direction = Direction::input_gradient;
    else if (direction == "weight_gradient")
        window.direction = Direction::weight_gradient;
    else
        throw std::invalid_argument("there is no such direction: " + direction);
    return window;
}

// strides: batch, channel, then one per axis, of which the leading ones may be missing
template <typename T>
Maps<T> maps_of(uintptr_t address, const Numbers &strides) {
    const size_t n = strides.size();
    if (n < 3 || n > 2 + AXES) throw std::invalid_argument("a tensor has 3 to 5 strides");
    Maps<T> maps{reinterpret_cast<T *>(address), strides[0], strides[1], {}};
    for (size_t a = 2; a < n; ++a) maps.step[AXES + a - n] = strides[a];
    return maps;
}

template <typename T>
void run(const std::string &lanes, const Window &window, uintptr_t input, const Numbers &in, uintptr_t output,
         const Numbers &out, uintptr_t weight) {
    auto x = maps_of<T>(input, in);
    auto y = maps_of<T>(output, out);
    auto *w = reinterpret_cast<T *>(weight);
    nb::gil_scoped_release unlocked;
    if (lanes == "channels") {
        STRIATE_CALL(channels, window, x, y, w)
    } else if (lanes == "positions") {
        STRIATE_CALL(positions, window, x, y, w)
    } else if (lanes == "winograd2" || lanes == "winograd4") {
        STRIATE_CALL(winograd, window, x, y, w, lanes == "winograd2" ? 2 : 4)
    } else {
        throw std::invalid_argument("no kernel has these lanes: " + lanes);
    }
}

// Calls `run` with a number of the type of this name.
template <typename Run>
void with_type(const std::string &dtype, Run run) {
    if (dtype == "float32")
        run(float{});
    else if (dtype == "float64")
        run(double{});
    else if (dtype == "bfloat16")
        run(bfloat16{});
    else
        throw std::invalid_argument("no kernel takes this type: " + dtype);
}

// The kernels of one problem but for its batch, so that a call has little to read.
struct Convolution {
    std::string lanes, dtype;
    Window window;

    void operator()(int64_t batch, uintptr_t input, const Numbers &in, uintptr_t output, const Numbers &out,
                    uintptr_t weight) const {
        Window whole = window;
        whole.batch = batch;
        with_type(dtype, [&](auto number) {
            run<decltype(number)>(lanes, whole, input, in, output, out, weight);
        });
    }
};

Convolution convolution_of(const std::string &lanes, const std::string &dtype, const std::string &direction,
                           Numbers numbers) {
    numbers.insert(numbers.begin(), 0);
    return {lanes, dtype, window_of(direction, numbers)};
}

// Addresses that a pooling may need besides its first operand and its result; 0 where it does not.
struct Others {
    uintptr_t values, switches, marks, norm, x;
};

template <typename T>
void run_pool(const std::string &operation, const Window &window, bool last, int64_t divisor, uintptr_t first,
              const Others &others, uintptr_t result) {
    auto at = [](uintptr_t address) { return reinterpret_cast<T *>(address); };
    const T *from = at(first);
    T *to = at(result);
    auto *switches = reinterpret_cast<const int64_t *>(others.switches);
    auto *marks = reinterpret_cast<uint8_t *>(others.marks);
    bool backward = window.direction == Direction::input_gradient;
    Reduction reduction;
    if (operation == "maximum")
        reduction = Reduction::maximum;
    else if (operation == "switches")
        reduction = Reduction::switches;
    else if (operation == "norm")
        reduction = Reduction::norm;
    else if (operation == "sum")
        reduction = Reduction::sum;
    else
        throw std::invalid_argument("there is no such pooling: " + operation);
    const bool places = reduction == Reduction::switches || reduction == Reduction::maximum;
    if (!from || !to || (backward && places && !marks && !switches) ||
        (backward && reduction == Reduction::norm && !(others.norm && others.x)))
        throw std::invalid_argument("a tensor that the pooling needs is missing: " + operation);
    nb::gil_scoped_release unlocked;
    if (backward && marks) {
        STRIATE_CALL(collect, window, from, marks, to)
    } else if (backward && switches) {
        STRIATE_CALL(spread, window, last, from, switches, to)
    } else if (backward && reduction == Reduction::norm) {
        STRIATE_CALL(norm_gradient, window, from, at(others.norm), at(others.x), to)
    } else if (marks || (last && reduction != Reduction::switches && window.taps() <= DIRECT)) {
        STRIATE_CALL(pool_direct, window, reduction, divisor, from, to, marks)
    } else {
        STRIATE_CALL(pool, window, reduction, last, divisor, from, static_cast<void *>(to), at(others.values))
    }
}

// The kernels of one pooling but for its batch and channels.
struct Pooling {
    std::string operation, dtype;
    Window window;
    bool last;
    int64_t divisor;

    // others: addresses of values, switches, marks, norms and x
    void operator()(int64_t batch, int64_t channels, uintptr_t first, const Numbers &others, uintptr_t result) const {
        if (others.size() != 5) throw std::invalid_argument("a pooling has five other tensors");
        auto at = [&](int i) { return uintptr_t(others[i]); };
        Others more{at(0), at(1), at(2), at(3), at(4)};
        Window whole = window;
        whole.batch = batch, whole.in_channels = whole.out_channels = channels;
        with_type(dtype, [&](auto number) {
            run_pool<decltype(number)>(operation, whole, last, divisor, first, more, result);
        });
    }
};

Pooling pooling_of(const std::string &operation, const std::string &dtype, const std::string &direction,
                   Numbers numbers, bool last, int64_t divisor) {
    numbers.insert(numbers.begin(), 0);
    return {operation, dtype, window_of(direction, numbers), last, divisor};
}

}  // namespace

NB_MODULE(_native, m) {
    nb::set_leak_warnings(false);  // caches hold kernels until the process ends
    nb::class_<Convolution>(m, "Convolution").def("__call__", &Convolution::operator());
    m.def("convolution", &convolution_of);
    nb::class_<Pooling>(m, "Pooling").def("__call__", &Pooling::operator());
    m.def("pooling", &pooling_of);
    m.attr("direct_taps") = DIRECT;
    m.def("instruction_set", [] { return chosen; });
    m.def("use_instruction_set", [](const std::string &name) {
        const std::string best = best_set();
        if (name != best && !(name == "v3" && best == "v4"))
            throw std::invalid_argument("this processor has no such instructions: " + name);
        chosen = name;
    });
}
