// Copying rows of codes, and then of the 16-bit low-rank operands, into the pipeline's stages.
#pragma once

#include "gemm_tile.h"

namespace halfbyte {

// What one thread copies in every step: a 16-byte chunk of every kRowsPerPass-th row of the tile. What lies outside the matrix, in
// either direction, becomes zero.
template <class Tile, int kPasses>
struct RowCopier {
    const uint8_t* source;
    size_t pass_bytes;
    int bytes_left;  // in the row, from this thread's chunk on
    int rows_left;   // in the matrix, from the row of the first pass on
    int pass_rows;
    int target;

    // first: the row of the matrix for the first pass; pass_rows: how far the row of the next pass is away.
    DEVICE void start(const uint8_t* rows, int row_bytes, int first, int count, int rows_between_passes) {
        const int row = int(threadIdx.x) / kChunksPerRow, chunk = int(threadIdx.x) % kChunksPerRow;
        target = swizzled(row, chunk);
        source = rows + size_t(first) * row_bytes + chunk * 16;
        bytes_left = row_bytes - chunk * 16;
        rows_left = count - first;
        pass_rows = rows_between_passes;
        pass_bytes = size_t(pass_rows) * row_bytes;
    }

    DEVICE void copy(uint8_t* shared) {
        // Whole passes leave the swizzle as it is.
        static_assert(Tile::kRowsPerPass % 8 == 0, "the swizzle repeats every 8 rows");
        const uint8_t* from = source;
        UNROLL
        for (int pass = 0; pass < kPasses; ++pass) {
            const bool inside = bytes_left > 0 && rows_left > pass * pass_rows;
            ptx::cp_async_16(shared + target + pass * Tile::kRowsPerPass * kStepBytes, from, inside);
            from += pass_bytes;
        }
        source += kStepBytes;
        bytes_left -= kStepBytes;
    }
};

template <class Tile, class T>
struct TokenScales;

// Rows of the activations: row i of the tile is row first_row + i of qx.
template <class Tile>
struct TokenRows {
    using Arguments = GemmArguments;
    template <class T>
    using GroupScales = TokenScales<Tile, T>;
    using ScaleRow = int;  // -1 outside
    static constexpr bool kHaveNextLayer = true;  // the output may be quantized for it

    struct Segment {
        int index = 0;

        DEVICE explicit Segment(const GemmArguments&) {}

        DEVICE void next() { ++index; }
    };

    const GemmArguments& arguments;
    const int first_row;
    RowCopier<Tile, Tile::kPassesA> copier;

    DEVICE TokenRows(const GemmArguments& arguments, const Place<Tile>& place) : arguments(arguments), first_row(place.first_row()) {
        start(arguments.qx, arguments.row_bytes);
    }

    DEVICE void start(const uint8_t* rows, int row_bytes) {
        const int row = first_row + int(threadIdx.x) / kChunksPerRow;
        copier.start(rows, row_bytes, row, arguments.m, Tile::kRowsPerPass);
    }

    DEVICE void start_ranks() { start(arguments.low_rank_act, arguments.rank_bytes); }

    DEVICE void copy(uint8_t* shared) { copier.copy(shared); }

    DEVICE ScaleRow scale_row(int row_in_tile) const {
        const int row = first_row + row_in_tile;
        return row < arguments.m ? row : -1;
    }

    // Where the activation scale of a row stands; -1 outside.
    DEVICE int scale_index(const Segment& segment, ScaleRow row) const {
        return row < 0 ? -1 : segment.index * arguments.padded_m + row;
    }
};

// Rows of the weight: the columns of the tile.
template <class Tile>
struct WeightRows {
    const GemmArguments& arguments;
    const Columns<Tile>& columns;
    RowCopier<Tile, Tile::kPassesB> copier;

    DEVICE WeightRows(const GemmArguments& arguments, const Columns<Tile>& columns) : arguments(arguments), columns(columns) {
        start(arguments.qweight, arguments.row_bytes);
    }

    DEVICE void start(const uint8_t* rows, int row_bytes) {
        // One pass covers whole warps' columns, so the next is the same distance away for every thread.
        static_assert(Tile::kRowsPerPass % Tile::kWarpN == 0, "a pass must not end inside a warp's columns");
        const int in_tile = int(threadIdx.x) / kChunksPerRow, end = columns.end_of(in_tile);
        copier.start(rows, row_bytes, columns.unbounded(in_tile), end, columns.pairs ? Tile::kRowsPerPass / 2 : Tile::kRowsPerPass);
    }

    DEVICE void start_ranks() { start(arguments.proj_up, arguments.rank_bytes); }

    DEVICE void copy(uint8_t* shared) { copier.copy(shared); }
};

}  // namespace halfbyte
