// From a warp's 16 rows of the float32 tile in registers to the output, through the warp's own shared memory.
#pragma once

#include "sm90_tile.h"

namespace halfbyte {

// A part's columns of one row of every pair: the first half of them from the tile's values, the second from its second half.
template <class T, class Tile>
DEVICE void write_part(const uint32_t (&y)[Tile::kValues], const PartRows<Tile>& staging, int lane, int first_row, const Columns<Tile>& columns,
                       const GemmArguments& arguments) {
    using Area = PartRows<Tile>;
    constexpr int kHalfPart = Area::kWidth / 2;
    const EpilogueArguments& epilogue = arguments.epilogue;
    const int width = columns.pairs ? columns.pairs : arguments.n;
    const int vectors = (columns.pairs ? kHalfPart : Area::kWidth) / kVector;
    // Rolled, so that the code of all activations exists once; which values are put then takes a comparison.
    ROLLED
    for (int step = 0; step < 2 * Tile::kParts; ++step) {
        ptx::warp_sync();
        UNROLL
        for (int each = 0; each < 2 * Tile::kParts; ++each) {
            if (step != each) continue;
            UNROLL
            for (int j = 0; j < Area::kWidth / 8; ++j) {
                const int half = j / (kHalfPart / 8), inside = j % (kHalfPart / 8) + each / 2 * (kHalfPart / 8);
                const int i = 4 * (half * (Tile::kHalfN / 8) + inside) + 2 * (each % 2);
                ptx::store_shared(staging.at(lane / 4, 8 * j + 2 * (lane % 4)), Words2{y[i], y[i + 1]});
            }
            KEEP_APART();
        }
        ptx::warp_sync();
        ROLLED
        for (int vector = lane; vector < Area::kRows * vectors; vector += 32) {
            const int staged_row = vector / vectors, staged_column = vector % vectors * kVector;
            const int row = first_row + Area::kRows * (step % 2) + staged_row;
            const int half = staged_column / kHalfPart;
            const int column_in_tile = staged_column + half * (Tile::kHalfN - kHalfPart) + step / 2 * kHalfPart;
            const int product_column = columns.of(column_in_tile);
            if (row >= arguments.m || product_column < 0) continue;
            const int column = columns.pairs && product_column >= columns.pairs ? product_column - columns.pairs : product_column;
            float values[kVector];
            activated<T>(values, staging, staged_row, staged_column, columns, product_column, epilogue);
            add_residual<T>(values, epilogue, row, column, width);
            write_vector<T>(values, epilogue, size_t(row) * width + column);
        }
    }
}

}  // namespace halfbyte
