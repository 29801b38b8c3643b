// How the quantize kernels cut their work: a function of the sizes alone.
#pragma once

#include <algorithm>
#include <string>

#include "check.h"

namespace halfbyte {

// A thread block has 16 or 32 rows. Those of 16 run in pairs on a multiprocessor, those of 32 alone.
constexpr int most_warps(int rows) { return rows == 32 ? 12 : 8; }
constexpr int blocks_at_once(int rows) { return rows == 32 ? 1 : 2; }

// By each warp, while rows are streamed.
constexpr int units_streamed(int rows) { return rows == 32 ? 2 : 3; }

struct QuantizeSizes {
    int rows, columns, rank, segments;
    bool four_bits, row_statistics;
};

struct QuantizeTile {
    int rows, warps, blocks, passes;                // rows and warps of a block
    int segment_columns, units_per_segment, units;  // units of 64 columns
    int units_held;                                 // by each warp
    bool four_bits, holds_rows;                     // hold rows instead of reading them again for each pass
    int peaks_per_segment;                          // in shared memory, for each row; 0 where codes need no other warp's peak
    int values_bytes, shared_bytes;

    std::string describe() const;
};

constexpr int kQuantizeSharedLimit = 99 * 1024;  // the least that any architecture from sm_80 on gives a block
constexpr int kManyRows = 2048;                  // from here on blocks of 32 rows fill a GPU

inline int divide_up(int a, int b) { return (a + b - 1) / b; }

inline QuantizeTile quantize_tile_of(const QuantizeSizes& sizes, int rows, int warps, bool holds_rows) {
    QuantizeTile tile{};
    const int unit_bytes = rows * 128;
    tile.rows = rows;
    tile.blocks = divide_up(sizes.rows, rows);
    tile.passes = std::max(sizes.four_bits ? 1 : 2, divide_up(sizes.rank, 32));
    tile.segment_columns = sizes.columns / sizes.segments;
    tile.units_per_segment = divide_up(tile.segment_columns, 64);
    tile.units = sizes.segments * tile.units_per_segment;
    tile.warps = std::min(warps, tile.units);
    tile.four_bits = sizes.four_bits;
    tile.holds_rows = holds_rows;
    tile.units_held = holds_rows ? divide_up(tile.units, tile.warps) : units_streamed(rows);
    tile.peaks_per_segment = sizes.four_bits ? 0 : std::min(tile.units_per_segment, tile.warps);
    tile.values_bytes = tile.warps * tile.units_held * unit_bytes;
    // The statistics' partial sums, one for each warp, lie where the peaks come later.
    const int peaks = sizes.segments * tile.peaks_per_segment;
    const int floats = sizes.row_statistics ? 2 + std::max(tile.warps, peaks) : peaks;
    tile.shared_bytes = tile.values_bytes + floats * rows * 4;
    return tile;
}

// Raises std::invalid_argument when the sizes fit no tile.
inline QuantizeTile choose_quantize_tile(const QuantizeSizes& sizes) {
    if (sizes.rank <= 32 && (sizes.row_statistics || !sizes.four_bits)) {
        const QuantizeTile tile = quantize_tile_of(sizes, 16, most_warps(16), true);
        if (tile.shared_bytes <= kQuantizeSharedLimit) return tile;
    }
    const int rows = sizes.rows >= kManyRows ? 32 : 16;
    for (int warps = most_warps(rows); warps > 0; --warps) {
        const QuantizeTile tile = quantize_tile_of(sizes, rows, warps, false);
        if (tile.shared_bytes <= kQuantizeSharedLimit) return tile;
    }
    throw std::invalid_argument("segments: fewer needed, for their peaks to fit shared memory, got " +
                                std::to_string(sizes.segments));
}

inline std::string QuantizeTile::describe() const {
    return std::to_string(blocks) + " blocks of " + std::to_string(rows) + " rows, " + std::to_string(warps) + " warps, " +
           std::to_string(units) + " units of 64 columns, " + std::to_string(passes) + " passes, rows " +
           (holds_rows ? "held" : "streamed") + ", " + std::to_string(shared_bytes) + " bytes of shared memory";
}

}  // namespace halfbyte
