// Quantizing a warp's 16 rows of the float32 tile for the next layer, through the warp's own shared memory.
#pragma once

#include "sm90_epilogue.h"

namespace halfbyte {

template <class T, class Tile>
struct QuantizeWarp {
    const GemmArguments& arguments;
    const NextLayerArguments& next;
    const Columns<Tile>& columns;
    const BoxRows rows;
    const int lane, first_row, first_column;  // in the matrix

    DEVICE QuantizeWarp(const GemmArguments& arguments, const Columns<Tile>& columns, const BoxRows& rows, int lane,
                        int first_row)
        : arguments(arguments), next(arguments.epilogue.next), columns(columns), rows(rows), lane(lane), first_row(first_row),
          first_column(columns.block * columns.outputs()) {}

    // y: bits of the tile's float32 outputs.
    DEVICE void run(const uint32_t (&y)[Tile::kValues]) const {
        // The last pair of blocks may reach beyond the matrix by a whole tile.
        if (first_column >= next.columns) return;
        ROLLED
        for (int first_rank = 0; first_rank < next.rank; first_rank += 32) project_down(y, first_rank);
        ROLLED
        for (int half = 0; half < 2; ++half) {
            ptx::warp_sync();
            if (columns.pairs) {
                put_rows<T, Tile::kHalfN>(y, rows, half, lane);
            } else {
                put_rows<T, Tile::kBlockN>(y, rows, half, lane);
            }
            ptx::warp_sync();
            const int row = first_row + kStagedRows * half;
            QuantizeRows<T, BoxRows>{next, rows, arguments.m, row, first_column, columns.outputs()}.run(lane, 32, kStagedRows);
        }
    }

private:
    // A warpgroup's product leaves a warp's rows as the fragments that its own products take.
    DEVICE void project_down(const uint32_t (&y)[Tile::kValues], int first_rank) const {
        const int left = next.columns - first_column, width = left < columns.outputs() ? left : columns.outputs();
        float sums[4][4] = {};
        DownRanks<T> ranks(next, first_rank, first_column, lane / 4, lane % 4);
        UNROLL
        for (int step = 0; step < Tile::kBlockN / 16; ++step) {
            if (16 * step >= width) break;
            uint32_t a[4], b[4][2];
            ranks.load(b);
            UNROLL
            for (int i = 0; i < 4; ++i)
                a[i] = ptx::pack2<T>(ptx::bits_float(y[8 * step + 2 * i]), ptx::bits_float(y[8 * step + 2 * i + 1]));
            UNROLL
            for (int j = 0; j < 4; ++j) ptx::mma_16bit<T>(sums[j], a, b[j]);
        }
        ranks.store(sums, columns.block, first_row, arguments.m);
    }
};

}  // namespace halfbyte
