// From a warp's 16 rows of the float32 tile in registers to the output, through the warp's own shared memory.
#pragma once

#include "sm90_arguments.h"
#include "sm90_tile.h"

namespace halfbyte {

// The warp's lanes may write where boxes left from.
DEVICE void wait_until_boxes_left(int lane) {
    if (lane == 0) ptx::bulk_wait_read<0>();
    ptx::warp_sync();
}

// The upper (0) or lower (1) eight rows, kWidth columns, rounded to 16 bits. Where boxes do not divide the columns, the last of
// them holds some of the one before again.
template <class T, int kWidth, int kValues>
DEVICE void put_rows(const uint32_t (&y)[kValues], const BoxRows& rows, int half, int lane) {
    constexpr int kTiles = kWidth / 8, kBoxes = (kWidth + BoxRows::kColumns - 1) / BoxRows::kColumns;
    UNROLL
    for (int each = 0; each < 2; ++each) {
        if (half != each) continue;
        UNROLL
        for (int j = 0; j < kTiles; ++j) {
            const uint32_t pair = ptx::pack2<T>(ptx::bits_float(y[4 * j + 2 * each]), ptx::bits_float(y[4 * j + 2 * each + 1]));
            UNROLL
            for (int box = 0; box < kBoxes; ++box) {
                const int column = 8 * j - BoxRows::first_column(box, kWidth);
                if (column < 0 || column >= BoxRows::kColumns) continue;
                ptx::store_shared(rows.in_box(box, lane / 4, column + 2 * (lane % 4)), pair);
            }
        }
        KEEP_APART();
    }
}

// first_row: of the warp in the matrix; its outputs are kWidth columns from first_column on.
template <class T, int kWidth, int kValues>
DEVICE void write_boxes(const uint32_t (&y)[kValues], const BoxRows& rows, int lane, int first_row, int first_column,
                        const TensorMap* out, const GemmArguments& arguments) {
    constexpr int kBoxes = (kWidth + BoxRows::kColumns - 1) / BoxRows::kColumns;
    const int width = arguments.epilogue.glu == Glu::kNone ? arguments.n : arguments.n / 2;
    ROLLED
    for (int half = 0; half < 2; ++half) {
        wait_until_boxes_left(lane);
        put_rows<T, kWidth>(y, rows, half, lane);
        ptx::proxy_fence();
        ptx::warp_sync();
        const int row = first_row + kStagedRows * half;
        if (lane > 0 || row >= arguments.m) continue;
        UNROLL
        for (int box = 0; box < kBoxes; ++box) {
            const int column = first_column + BoxRows::first_column(box, kWidth);
            if (column < width) ptx::store_box(out, 2 * column, row, rows.box(box));
        }
        ptx::bulk_commit();
    }
}

// Eight rows of half of the tile's columns as they leave in float32, or with a residual.
template <class T, class Tile>
struct FloatWriter {
    using Rows = FloatRows<Tile>;
    static constexpr int kVectorsOfRow = Rows::kWidth / kVector, kPasses = kStagedRows * kVectorsOfRow / 32;
    static_assert(32 * kPasses == kStagedRows * kVectorsOfRow, "every lane writes the same number of vectors");

    const EpilogueArguments& epilogue;
    const Rows rows;
    const int lane, rows_left, first_row, first_column;  // rows_left: in the matrix, from first_row on
    const int width;                                     // of the output

    DEVICE void write() const {
        if (epilogue.residual) {
            write_sum();
            return;
        }
        UNROLL
        for (int pass = 0; pass < kPasses; ++pass) {
            const Place place = place_of(pass);
            if (!place.inside) continue;
            float values[kVector];
            load_floats(values, rows, place.row, place.staged_column);
            write_vector<T>(values, epilogue, out_index_of(place));
        }
    }

private:
    struct Place {
        int row, staged_column;
        bool inside;
    };

    DEVICE Place place_of(int pass) const {
        const int vector = lane + 32 * pass, row = vector / kVectorsOfRow, column = vector % kVectorsOfRow * kVector;
        return {row, column, row < rows_left && first_column + column < width};
    }

    DEVICE size_t out_index_of(const Place& place) const {
        return size_t(first_row + place.row) * epilogue.out_stride + first_column + place.staged_column;
    }

    // Of a matrix as wide as the product.
    DEVICE size_t index_of(int row, const Place& place) const { return size_t(row) * width + first_column + place.staged_column; }

    DEVICE void write_sum() const {
        // All on their way before the first is used; zeros, or their registers would count as taken since the tile before.
        Words4 residual[kPasses] = {}, gate[kPasses] = {};
        UNROLL
        for (int pass = 0; pass < kPasses; ++pass) {
            const Place place = place_of(pass);
            if (!place.inside) continue;
            const int row = first_row + place.row;
            residual[pass] = load(epilogue.residual, index_of(row, place));
            if (epilogue.gate) gate[pass] = load(epilogue.gate, index_of(row / epilogue.rows_per_gate, place));
        }
        UNROLL
        for (int pass = 0; pass < kPasses; ++pass) {
            const Place place = place_of(pass);
            if (!place.inside) continue;
            float values[kVector];
            load_floats(values, rows, place.row, place.staged_column);
            add(values, residual[pass], gate[pass]);
            write_vector<T>(values, epilogue, out_index_of(place));
        }
    }

    DEVICE static Words4 load(const void* from, size_t index) {
        return ptx::load_readonly(reinterpret_cast<const Words4*>(static_cast<const T*>(from) + index));
    }

    DEVICE void add(float (&values)[kVector], const Words4& residual, const Words4& gate) const {
        float added[kVector];
        if (epilogue.gate) {
            unpack_vector<T>(added, gate);
            UNROLL
            for (int e = 0; e < kVector; ++e) values[e] *= added[e];
        }
        unpack_vector<T>(added, residual);
        UNROLL
        for (int e = 0; e < kVector; ++e) values[e] += added[e];
    }
};

template <class T, class Tile>
DEVICE void write_floats(const uint32_t (&y)[Tile::kValues], uint8_t* staging, int lane, int first_row,
                         const Columns<Tile>& columns, const GemmArguments& arguments) {
    constexpr int kTiles = Tile::kHalfN / 8;
    const FloatRows<Tile> rows{staging};
    const int width = columns.pairs ? columns.pairs : arguments.n, first_column = columns.block * columns.outputs();
    // Upper and lower rows of the first half of the columns, then those of the second. Rolled, as one part is written like
    // another; which values are put then takes a comparison.
    ROLLED
    for (int part = 0; part < (columns.pairs ? 2 : 4); ++part) {
        ptx::warp_sync();
        UNROLL
        for (int each = 0; each < 4; ++each) {
            if (part != each) continue;
            UNROLL
            for (int j = 0; j < kTiles; ++j) {
                const int i = 4 * (each / 2 * kTiles + j) + 2 * (each % 2);
                ptx::store_shared(rows.at(lane / 4, 8 * j + 2 * (lane % 4)), Words2{y[i], y[i + 1]});
            }
            KEEP_APART();
        }
        ptx::warp_sync();
        const int row = first_row + kStagedRows * (part % 2), column = first_column + part / 2 * Tile::kHalfN;
        FloatWriter<T, Tile>{arguments.epilogue, rows, lane, arguments.m - row, row, column, width}.write();
    }
}

template <class T, class Tile>
DEVICE void write_rows(const uint32_t (&y)[Tile::kValues], uint8_t* staging, int lane, int first_row,
                       const Columns<Tile>& columns, const WarpgroupArguments& arguments) {
    const GemmArguments& gemm = arguments.gemm;
    const int first_column = columns.block * columns.outputs();
    if (!arguments.boxes_leave) {
        write_floats<T, Tile>(y, staging, lane, first_row, columns, gemm);
    } else if (columns.pairs) {
        write_boxes<T, Tile::kHalfN>(y, {staging}, lane, first_row, first_column, &arguments.out, gemm);
    } else {
        write_boxes<T, Tile::kBlockN>(y, {staging}, lane, first_row, first_column, &arguments.out, gemm);
    }
}

}  // namespace halfbyte
