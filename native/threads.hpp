// What a thread throws must not leave an OpenMP region: that ends the process.
#pragma once

#include <exception>
#include <mutex>

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

}  // namespace striate
