// Threads: fixed partitions so that a result never depends on how many threads made it.
#pragma once
#include <algorithm>
#include <atomic>
#include <cstddef>
#include <exception>
#include <mutex>
#include <system_error>
#include <thread>
#include <vector>

namespace multilevel {

// Run body(task) for task in [0, tasks). Tasks are handed out dynamically; each one must write only to
// places of its own. An exception in a task is rethrown in the caller.
template <class Body>
void parallel_for(std::size_t tasks, int threads, Body&& body) {
    const std::size_t workers = std::min<std::size_t>(threads > 1 ? threads : 1, tasks);
    if (workers <= 1) {
        for (std::size_t i = 0; i < tasks; ++i) body(i);
        return;
    }
    std::atomic<std::size_t> next{0};
    std::exception_ptr failure;
    std::mutex lock;
    auto work = [&] {
        try {
            for (std::size_t i; (i = next.fetch_add(1)) < tasks;) body(i);
        } catch (...) {
            std::lock_guard<std::mutex> hold(lock);
            if (!failure) failure = std::current_exception();
            next.store(tasks);
        }
    };
    std::vector<std::thread> pool;
    pool.reserve(workers - 1);
    try {
        for (std::size_t t = 1; t < workers; ++t) pool.emplace_back(work);
    } catch (const std::system_error&) {
        // the system gives no more threads: those there are do all tasks
    }
    work();
    for (auto& t : pool) t.join();
    if (failure) std::rethrow_exception(failure);
}

// [0, n) cut into at most `parts` equal ranges; the cut depends on n and parts only.
struct Range {
    std::size_t begin, end;
};
inline std::vector<Range> ranges(std::size_t n, std::size_t parts) {
    parts = std::max<std::size_t>(1, std::min(parts, n));
    std::vector<Range> out(n ? parts : 0);
    for (std::size_t i = 0; i < out.size(); ++i) out[i] = {n * i / parts, n * (i + 1) / parts};
    return out;
}

}  // namespace multilevel
