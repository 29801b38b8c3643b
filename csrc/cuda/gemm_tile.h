// How a block's tile of the product is split over warps, and where a thread stands in it.
#pragma once

#include "gemm_arguments.h"
#include "ptx.h"

namespace halfbyte {

// One pipeline step covers 64 bytes of every row: two slices of 32 bytes, each the K of one matrix instruction, whether they hold
// 64 4-bit codes, 32 8-bit codes or 16 16-bit values. Loading and fragment addressing are therefore the same for all of them.
constexpr int kStepBytes = 64;
constexpr int kSlicesPerStep = 2;
constexpr int kChunksPerRow = kStepBytes / 16;

template <int kBlockM_, int kBlockN_, int kWarpsM, int kWarpsN, int kStages_>
struct GemmTile {
    static constexpr int kBlockM = kBlockM_, kBlockN = kBlockN_, kStages = kStages_;
    static constexpr int kWarps = kWarpsM * kWarpsN, kThreads = 32 * kWarps;
    static constexpr int kWarpM = kBlockM / kWarpsM, kWarpN = kBlockN / kWarpsN;
    static constexpr int kTilesM = kWarpM / 16, kTilesN = kWarpN / 8;
    static constexpr int kRowsPerPass = kThreads / kChunksPerRow;
    static constexpr int kPassesA = kBlockM / kRowsPerPass, kPassesB = kBlockN / kRowsPerPass;
    static constexpr int kCodeBytes = (kBlockM + kBlockN) * kStepBytes;
    static_assert(kWarpM % 16 == 0 && kWarpN % 16 == 0, "fragments are 16 rows by 8 columns, loaded 16 columns at a time");
    static_assert(kBlockM % kRowsPerPass == 0 && kBlockN % kRowsPerPass == 0, "every thread copies the same number of chunks");
};

// Two rows share 128 bytes, so XOR with half the row number spreads the 8 rows of one ldmatrix phase over all banks.
DEVICE int swizzled(int row, int chunk) { return row * kStepBytes + ((chunk ^ ((row >> 1) & 3)) << 4); }

template <class Tile>
struct Place {
    int lane, warp;
    int row_in_group, quad;       // of the fragments: lane / 4 and lane % 4
    int warp_row, warp_column;    // where the warp's part of the tile begins
    int block_row, block_column;  // which tile

    DEVICE explicit Place(const GemmArguments& arguments, int columns_per_block) {
        const int thread = int(threadIdx.x);
        lane = thread % 32;
        warp = thread / 32;
        row_in_group = lane / 4;
        quad = lane % 4;
        constexpr int kWarpsM = Tile::kBlockM / Tile::kWarpM;
        warp_row = (warp % kWarpsM) * Tile::kWarpM;
        warp_column = (warp / kWarpsM) * Tile::kWarpN;
        // Eight block rows are walked column by column, so that blocks that run together share operands in L2.
        constexpr int kRowsTogether = 8;
        const int rows = (arguments.m + Tile::kBlockM - 1) / Tile::kBlockM;
        const int columns = (arguments.n + columns_per_block - 1) / columns_per_block;
        const int band = int(blockIdx.x) / (kRowsTogether * columns), inside = int(blockIdx.x) % (kRowsTogether * columns);
        const int first = band * kRowsTogether, height = rows - first < kRowsTogether ? rows - first : kRowsTogether;
        block_row = first + inside % height;
        block_column = inside / height;
    }

    DEVICE int first_row() const { return block_row * Tile::kBlockM; }
};

// Which column of the product a column of the tile is. With a gated linear unit every warp holds value columns in the first half of
// its part and the gate columns that belong to them in the second, so both meet in one warp whatever their order in the weight.
template <class Tile>
struct Columns {
    int count, block, pairs;  // pairs: N / 2 with a gated linear unit, else 0
    bool gate_first;

    DEVICE Columns(const GemmArguments& arguments, int block_column)
        : count(arguments.n),
          block(block_column),
          pairs(arguments.epilogue.glu == Glu::kNone ? 0 : arguments.n / 2),
          gate_first(arguments.epilogue.glu == Glu::kGateFirst) {}

    // Column of the product, or one beyond end_of.
    DEVICE int unbounded(int column_in_tile) const {
        if (!pairs) return block * Tile::kBlockN + column_in_tile;
        constexpr int kHalf = Tile::kWarpN / 2;
        const int warp = column_in_tile / Tile::kWarpN, inside = column_in_tile % Tile::kWarpN;
        const int pair = block * (Tile::kBlockN / 2) + warp * kHalf + inside % kHalf;
        return in_second_half(column_in_tile) ? pairs + pair : pair;
    }

    // Of the block, in columns.
    DEVICE int outputs() const { return pairs ? Tile::kBlockN / 2 : Tile::kBlockN; }

    DEVICE int end_of(int column_in_tile) const { return pairs && !in_second_half(column_in_tile) ? pairs : count; }

    // -1 outside the product.
    DEVICE int of(int column_in_tile) const {
        const int column = unbounded(column_in_tile);
        return column < end_of(column_in_tile) ? column : -1;
    }

    DEVICE bool in_second_half(int column_in_tile) const {
        return (column_in_tile % Tile::kWarpN >= Tile::kWarpN / 2) != gate_first;
    }
};

}  // namespace halfbyte
