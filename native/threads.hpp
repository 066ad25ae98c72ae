// Tasks on the threads of OpenMP. What a task throws must not leave its region, for that ends the process.
#pragma once

#include <cstdint>
#include <exception>
#include <mutex>
#include <optional>

namespace striate {

// Keeps the first exception of a region's tasks, and throws it again where the region has ended.
//
//     Caught caught;
//     #pragma omp parallel for
//     for (...) caught([&] { ... });
//     caught.rethrow();
class Caught {
   public:
    template <typename Task>
    void operator()(Task &&task) noexcept {
        try {
            task();
        } catch (...) {
            std::lock_guard<std::mutex> alone(one_at_a_time);
            if (!first) first = std::current_exception();
        }
    }

    void rethrow() const {
        if (first) std::rethrow_exception(first);
    }

   private:
    std::mutex one_at_a_time;
    std::exception_ptr first;
};

// How tasks are shared: to whoever is free, or so many to each thread, side by side.
enum class Share { free, even };

// task(state, i) for every i below `tasks`, on all threads where they work `together`; each thread makes a state first.
template <Share SHARE = Share::free, typename Start, typename Task>
void on_threads(int64_t tasks, bool together, Start start, Task task) {
    Caught caught;
#pragma omp parallel if (together)
    {
        std::optional<decltype(start())> state;
        caught([&] { state.emplace(start()); });
        auto solve = [&](int64_t i) {
            if (state) caught([&] { task(*state, i); });
        };
        if constexpr (SHARE == Share::free) {
#pragma omp for schedule(dynamic)
            for (int64_t i = 0; i < tasks; ++i) solve(i);
        } else {
#pragma omp for schedule(static)
            for (int64_t i = 0; i < tasks; ++i) solve(i);
        }
    }
    caught.rethrow();
}

// The same without a state.
template <Share SHARE = Share::free, typename Task>
void on_threads(int64_t tasks, bool together, Task task) {
    struct None {};
    on_threads<SHARE>(tasks, together, [] { return None{}; }, [&](None, int64_t i) { task(i); });
}

}  // namespace striate
