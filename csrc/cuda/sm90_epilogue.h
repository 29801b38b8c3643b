// From a warp's 16 rows of the float32 tile in registers to the output, through the warp's own shared memory.
#pragma once

#include "sm90_activation.h"
#include "sm90_tile.h"

namespace halfbyte {

// Eight rows of a part of the tile as they leave the staging area. kGated: the second half of the columns are gates of the first.
template <class T, class Tile, bool kGated>
struct PartWriter {
    using Area = PartRows<Tile>;
    static constexpr int kHalfWidth = Area::kWidth / 2, kWidth = kGated ? kHalfWidth : Area::kWidth;
    static constexpr int kVectorsOfRow = kWidth / kVector, kVectors = Area::kRows * kVectorsOfRow, kPasses = (kVectors + 31) / 32;

    const EpilogueArguments& epilogue;
    const Area& staging;
    const Columns<Tile>& columns;
    const int lane, rows_left, first_row, width;  // rows_left: in the matrix, from first_row on; width: of the output

    DEVICE static bool exists(int vector) { return kVectors % 32 == 0 || vector < kVectors; }

    // In place: every lane comes back to its own vectors.
    DEVICE void activate() const {
        ROLLED
        for (int vector = lane; exists(vector) && vector < kVectors; vector += 32) {
            const int row = vector / kVectorsOfRow, column = vector % kVectorsOfRow * kVector;
            float values[kVector];
            staging.get(values, row, column);
            if constexpr (kGated) {
                float gates[kVector];
                staging.get(gates, row, column + kHalfWidth);
                activate_fast(gates, epilogue.activation);
                UNROLL
                for (int e = 0; e < kVector; ++e) values[e] *= gates[e];
            } else {
                activate_fast(values, epilogue.activation);
            }
            ptx::store_shared(staging.at(row, column), float_words(values, 0));
            ptx::store_shared(staging.at(row, column + 4), float_words(values, 4));
        }
    }

    // first_column: of the part in the tile.
    DEVICE void write(int first_column) const {
        if (epilogue.residual) {
            write_sum(first_column);
            return;
        }
        UNROLL
        for (int pass = 0; pass < kPasses; ++pass) {
            const Place place = place_of(pass, first_column);
            if (!place.inside) continue;
            float values[kVector];
            staging.get(values, place.row, place.staged_column);
            write_vector<T>(values, epilogue, index_of(place));
        }
    }

private:
    struct Place {
        int row, staged_column, column;  // column: of the output
        bool inside;
    };

    DEVICE Place place_of(int pass, int first_column) const {
        const int vector = lane + 32 * pass, row = vector / kVectorsOfRow, staged = vector % kVectorsOfRow * kVector;
        const bool second = !kGated && staged >= kHalfWidth;
        const int in_tile = first_column + staged + (second ? Tile::kHalfN - kHalfWidth : 0);
        const int column = columns.block * (kGated ? Tile::kHalfN : Tile::kBlockN) + in_tile;
        return {row, staged, column, exists(vector) && row < rows_left && column < width};
    }

    DEVICE size_t index_of(const Place& place) const { return size_t(first_row + place.row) * width + place.column; }

    DEVICE void write_sum(int first_column) const {
        // All on their way before the first is used; zeros, or their registers would count as taken since the tile before.
        Words4 residual[kPasses] = {}, gate[kPasses] = {};
        UNROLL
        for (int pass = 0; pass < kPasses; ++pass) {
            const Place place = place_of(pass, first_column);
            if (!place.inside) continue;
            residual[pass] = load(epilogue.residual, index_of(place));
            if (!epilogue.gate) continue;
            gate[pass] = load(epilogue.gate, size_t((first_row + place.row) / epilogue.rows_per_gate) * width + place.column);
        }
        UNROLL
        for (int pass = 0; pass < kPasses; ++pass) {
            const Place place = place_of(pass, first_column);
            if (!place.inside) continue;
            float values[kVector];
            staging.get(values, place.row, place.staged_column);
            add(values, residual[pass], gate[pass]);
            write_vector<T>(values, epilogue, index_of(place));
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

template <class T, class Tile, bool kGated>
DEVICE void write_rows(const uint32_t (&y)[Tile::kValues], const PartRows<Tile>& staging, int lane, int first_row,
                       const Columns<Tile>& columns, const GemmArguments& arguments) {
    constexpr int kTilesOfHalf = PartRows<Tile>::kWidth / 16;
    const EpilogueArguments& epilogue = arguments.epilogue;
    const int width = kGated ? columns.pairs : arguments.n;
    // Rolled, so that the code of all activations exists once; which values are put then takes a comparison.
    ROLLED
    for (int step = 0; step < 2 * Tile::kParts; ++step) {
        ptx::warp_sync();
        UNROLL
        for (int each = 0; each < 2 * Tile::kParts; ++each) {
            if (step != each) continue;
            UNROLL
            for (int j = 0; j < 2 * kTilesOfHalf; ++j) {
                // The part's columns of both halves of the tile.
                const int tile = j / kTilesOfHalf * (Tile::kHalfN / 8) + each / 2 * kTilesOfHalf + j % kTilesOfHalf;
                const int i = 4 * tile + 2 * (each % 2);
                ptx::store_shared(staging.at(lane / 4, 8 * j + 2 * (lane % 4)), Words2{y[i], y[i + 1]});
            }
            KEEP_APART();
        }
        ptx::warp_sync();
        const int row = first_row + PartRows<Tile>::kRows * (step % 2);
        const PartWriter<T, Tile, kGated> writer{epilogue, staging, columns, lane, arguments.m - row, row, width};
        if (kGated || epilogue.activation != Activation::kNone) writer.activate();
        writer.write(step / 2 * (PartRows<Tile>::kWidth / 2));
    }
}

template <class T, class Tile>
DEVICE void write_rows(const uint32_t (&y)[Tile::kValues], const PartRows<Tile>& staging, int lane, int first_row,
                       const Columns<Tile>& columns, const GemmArguments& arguments) {
    if (columns.pairs) {
        write_rows<T, Tile, true>(y, staging, lane, first_row, columns, arguments);
    } else {
        write_rows<T, Tile, false>(y, staging, lane, first_row, columns, arguments);
    }
}

}  // namespace halfbyte
