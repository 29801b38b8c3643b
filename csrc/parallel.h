// Splitting independent rows over threads.
#pragma once

#include <algorithm>
#include <cstdint>
#include <thread>
#include <vector>

// Below this many elements for each thread, starting it costs more than it saves.
constexpr int64_t kElementsPerThread = 1 << 16;

// Calls run(first_row, last_row) on disjoint ranges that cover all rows.
template <typename Run>
void parallel_rows(int64_t rows, int64_t columns, int threads, Run run) {
    const int64_t useful = std::min<int64_t>(threads, rows * columns / kElementsPerThread);
    if (useful <= 1) {
        run(0, rows);
        return;
    }
    std::vector<std::thread> others;
    for (int64_t i = 1; i < useful; ++i)
        others.emplace_back(run, rows * i / useful, rows * (i + 1) / useful);
    run(0, rows / useful);
    for (auto& other : others) other.join();
}
