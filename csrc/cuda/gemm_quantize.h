// Quantizing a tile of outputs for the next layer, before they ever reach global memory.
#pragma once

#include "gemm_tile.h"
#include "smooth_columns.h"

namespace halfbyte {

// The block's outputs, rounded to the 16-bit type; zero outside the matrix. Eight columns of padding spread rows over the banks.
template <class Tile>
struct HiddenTile {
    static constexpr int kStride = Tile::kBlockN + 8;
    static constexpr int kBytes = Tile::kBlockM * kStride * 2;
    uint8_t* rows;

    DEVICE uint8_t* at(int row, int column) const { return rows + (row * kStride + column) * 2; }
};

// Rows of outputs in shared memory, and the threads that quantize them. Hidden: finds a row's eight neighbouring columns.
template <class T, class Hidden>
struct QuantizeRows {
    const NextLayerArguments& next;
    const Hidden hidden;
    const int rows, first_row, first_column, width;  // of the matrix; of the rows in it; of their columns

    // A thread keeps its 16 columns and walks down the rows; the threads of one scale are neighbours in a warp.
    DEVICE void run(int thread, int threads, int row_count) const {
        const int runs = width / kRun;
        const int column_in_tile = thread % runs * kRun, column = first_column + column_in_tile;
        const bool there = column < next.columns;
        SmoothColumns<T> smooth(next.smooth);
        if (there) smooth.load(column);
        ROLLED
        for (int row_in_tile = thread / runs; row_in_tile < row_count; row_in_tile += threads / runs) {
            uint32_t x[8];
            UNROLL
            for (int half = 0; half < 2; ++half)
                split(ptx::load_shared<Words4>(hidden.at(row_in_tile, column_in_tile + 8 * half)), x + 4 * half);
            float values[kRun];
            unpack_run<T>(x, values);
            auto word = [&](int i) { return ptx::load_shared<uint32_t>(hidden.at(row_in_tile, column_in_tile + 2 * i)); };
            uint32_t peak = there ? smooth.apply(next.shift, values, word) : 0;
            if (next.format == ActFormat::kUint4) {
                UNROLL
                for (int i = 0; i < kRun; ++i) values[i] = values[i] < 0 ? 0.0f : values[i];
                peak = there ? peak_bits(values) : 0;
            }
            ROLLED
            for (int distance = 1; distance < next.scale_columns / kRun; distance *= 2)
                peak = larger(peak, ptx::shuffle_xor(peak, distance));
            if (there) write(values, peak, first_row + row_in_tile, column);
        }
    }

private:
    DEVICE void write(float (&values)[kRun], uint32_t peak_bits, int row, int column) const {
        const bool four_bits = next.format < ActFormat::kInt8;
        const float peak = ptx::bits_float(peak_bits);
        const size_t scale_index = size_t(column / next.scale_columns) * next.padded_rows + row;
        const bool writes_scale = column % next.scale_columns == 0 && row < next.padded_rows;
        uint32_t words[4];
        if (next.format == ActFormat::kNvfp4 || next.format == ActFormat::kNvfp4FourOverSix) {
            const Nvfp4Block block = quantize_nvfp4(values, peak, next.format == ActFormat::kNvfp4FourOverSix);
            words[0] = block.words[0], words[1] = block.words[1];
            constexpr uint8_t kOne = 0x38;
            if (writes_scale) ptx::store(static_cast<uint8_t*>(next.ascales) + scale_index, row < rows ? block.scale : kOne);
        } else if (four_bits) {
            const float scale = scale_from_peak<T>(peak, next.format);
            if (writes_scale) ptx::store(static_cast<T*>(next.ascales) + scale_index, ptx::from_float<T>(row < rows ? scale : 1.0f));
            quantize_run(values, next.format, peak, scale, words);
        } else {
            const float scale = scale_from_peak<float>(peak, next.format);
            if (writes_scale) ptx::store(static_cast<float*>(next.ascales) + scale_index, row < rows ? scale : 1.0f);
            quantize_run(values, next.format, 0, scale, words);
        }
        if (row >= rows) return;
        const size_t index = size_t(row) * next.columns + column;
        if (four_bits) {
            ptx::store(reinterpret_cast<Words2*>(static_cast<uint8_t*>(next.qx) + index / 2), Words2{words[0], words[1]});
        } else {
            ptx::store(reinterpret_cast<Words4*>(static_cast<uint8_t*>(next.qx) + index),
                       Words4{words[0], words[1], words[2], words[3]});
        }
    }
};

// 32 ranks of a down projection by matrix products of 16 rows, over columns in steps of 16. The order of ranks within a product
// is free: thread g's column of product j is rank 4g + j, so that 8 bytes of proj_down serve four products.
template <class T>
struct DownRanks {
    const NextLayerArguments& next;
    const int first_rank, group, quad;  // of the lane: / 4 and % 4
    const int own_rank = first_rank + 4 * group;
    const T* source;

    DEVICE DownRanks(const NextLayerArguments& next, int first_rank, int first_column, int group, int quad)
        : next(next), first_rank(first_rank), group(group), quad(quad),
          source(static_cast<const T*>(next.proj_down) + size_t(first_column + 2 * quad) * next.rank + own_rank) {}

    // proj_down's part of the next step.
    DEVICE void load(uint32_t (&b)[4][2]) {
        UNROLL
        for (int i = 0; i < 2; ++i) {
            const T* row = source + size_t(8 * i) * next.rank;
            const bool valid = own_rank < next.rank;
            const Words2 even = valid ? ptx::load_readonly(reinterpret_cast<const Words2*>(row)) : Words2{0, 0};
            const Words2 odd = valid ? ptx::load_readonly(reinterpret_cast<const Words2*>(row + next.rank)) : Words2{0, 0};
            b[0][i] = (even.x & 0xffffu) | odd.x << 16;
            b[1][i] = even.x >> 16 | (odd.x & 0xffff0000u);
            b[2][i] = (even.y & 0xffffu) | odd.y << 16;
            b[3][i] = even.y >> 16 | (odd.y & 0xffff0000u);
        }
        source += size_t(16) * next.rank;
    }

    // The sums of 16 rows of which the first is first_row, as the partial of a block of columns.
    DEVICE void store(const float (&sums)[4][4], int block_column, int first_row, int rows) const {
        UNROLL
        for (int i = 0; i < 4; ++i) {
            const int row = first_row + group + 8 * (i / 2), rank = first_rank + 4 * (2 * quad + i % 2);
            if (row >= rows || rank >= next.rank) continue;
            float* partial = next.partials + (size_t(block_column) * rows + row) * next.rank + rank;
            ptx::store(reinterpret_cast<Words4*>(partial), Words4{ptx::float_bits(sums[0][i]), ptx::float_bits(sums[1][i]),
                                                                  ptx::float_bits(sums[2][i]), ptx::float_bits(sums[3][i])});
        }
    }
};

template <class T, class Tile>
struct QuantizeHidden {
    const NextLayerArguments& next;
    const Place<Tile>& place;
    HiddenTile<Tile> hidden;
    int rows, width, first_column;  // of the matrix; of the block's outputs

    DEVICE QuantizeHidden(const GemmArguments& arguments, const Place<Tile>& place, const HiddenTile<Tile>& hidden)
        : next(arguments.epilogue.next), place(place), hidden(hidden), rows(arguments.m),
          width(arguments.epilogue.glu == Glu::kNone ? Tile::kBlockN : Tile::kBlockN / 2),
          first_column(place.block_column * width) {}

    DEVICE void run() const {
        const QuantizeRows<T, HiddenTile<Tile>> quantize{next, hidden, rows, place.first_row(), first_column, width};
        quantize.run(int(threadIdx.x), Tile::kThreads, Tile::kBlockM);
        ROLLED
        for (int first_rank = 0; first_rank < next.rank; first_rank += 32) project_down(first_rank);
    }

private:
    // This block's share.
    DEVICE void project_down(int first_rank) const {
        constexpr int kRowTiles = Tile::kBlockM / 16 / Tile::kWarps;
        static_assert(kRowTiles * 16 * Tile::kWarps == Tile::kBlockM, "every warp projects the same number of rows");
        float sums[kRowTiles][4][4] = {};
        const int left = next.columns - first_column, columns = left < width ? left : width;
        DownRanks<T> ranks(next, first_rank, first_column, place.row_in_group, place.quad);
        ROLLED
        for (int column = 0; column < columns; column += 16) {
            uint32_t b[4][2];
            ranks.load(b);
            UNROLL
            for (int tile = 0; tile < kRowTiles; ++tile) {
                uint32_t a[4];
                ptx::ldmatrix_x4(a, hidden.at(first_row_of(tile) + (place.lane & 15), column + 8 * (place.lane >> 4)));
                UNROLL
                for (int j = 0; j < 4; ++j) ptx::mma_16bit<T>(sums[tile][j], a, b[j]);
            }
        }
        UNROLL
        for (int tile = 0; tile < kRowTiles; ++tile)
            ranks.store(sums[tile], place.block_column, place.first_row() + first_row_of(tile), rows);
    }

    DEVICE int first_row_of(int tile) const { return 16 * (place.warp + tile * Tile::kWarps); }
};

}  // namespace halfbyte
