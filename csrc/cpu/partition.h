// Which thread computes which tiles and panels.
#pragma once

#include <algorithm>
#include <cstdint>

namespace halfbyte {

// Parts in the two directions of the output; every part quantizes the rows it reads.
struct Partition {
    int row_parts, column_parts;
};

// Below this many multiplications a second thread costs more than it saves.
constexpr int64_t kWorthAThread = 1 << 20;
// Quantizing a tile costs about as much as multiplying it with this many panels.
constexpr int64_t kPanelsOfQuantizing = 3;

inline Partition choose_partition(int64_t tiles, int64_t panels, int64_t products, int threads) {
    Partition best{1, 1};
    if (threads <= 1 || products < 2 * kWorthAThread) return best;
    int64_t least = tiles * (kPanelsOfQuantizing + panels);
    for (int rows = threads; rows >= 1; --rows) {
        const int columns = threads / rows;
        const int64_t longest = (tiles + rows - 1) / rows * (kPanelsOfQuantizing + (panels + columns - 1) / columns);
        if (longest < least) {
            least = longest;
            best = {rows, columns};
        }
    }
    return best;
}

}  // namespace halfbyte
