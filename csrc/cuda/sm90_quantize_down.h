// The low-rank down projection of a cluster's rows: each warp multiplies its columns, each block adds up the sums of some rows.
#pragma once

#include "ptx.h"
#include "sm90_quantize_ring.h"

namespace halfbyte {

// kRanks: 32 or 64, of which those beyond the rank are not there.
template <class T, int kRanks>
struct ClusterDown {
    using Tile = ClusterQuantizeTile;
    static constexpr int kTiles = kRanks / 8, kRowBytes = 2 * kRanks;

    const QuantizeArguments& quantize;
    const Tile& tile;
    uint8_t* shared;
    const int block, warp, lane;
    const int rows_shift;  // of the rows that a block finishes
    float sums[kTiles][4];

    DEVICE ClusterDown(const ClusterQuantizeArguments& arguments, uint8_t* shared, int block, int warp, int lane)
        : quantize(arguments.quantize),
          tile(arguments.tile),
          shared(shared),
          block(block),
          warp(warp),
          lane(lane),
          rows_shift(tile.row_tiles_shift + 1) {}

    // The block's rows of proj_down, zero beyond its columns and ranks. To be waited for as cp.async, and by a barrier.
    DEVICE void copy(int first_column, int columns) const {
        const auto* source = static_cast<const T*>(quantize.proj_down);
        for (int i = int(threadIdx.x); i < columns * kTiles; i += int(blockDim.x)) {
            const int row = i / kTiles, chunk = i % kTiles, column = first_column + row;
            const bool inside = column < quantize.columns && 8 * chunk < quantize.rank;
            ptx::cp_async_16(place(row, chunk), inside ? source + size_t(column) * quantize.rank + 8 * chunk : source, inside);
        }
        ptx::cp_async_commit();
    }

    // Adds up the warp's boxes.
    DEVICE void multiply(const BoxRing& ring, int boxes, int column_warp) {
        UNROLL
        for (int j = 0; j < kTiles; ++j)
            UNROLL
            for (float& sum : sums[j]) sum = 0;
        // The lane's places in any sixteen rows, which are turned alike.
        uint8_t* lane_places[kTiles / 2];
        UNROLL
        for (int pair = 0; pair < kTiles / 2; ++pair) lane_places[pair] = place(lane % 16, 2 * pair + lane / 16);
        const int lane_row = lane % 16 * kBoxBytes;
        ROLLED
        for (int box = 0; box < boxes; ++box) {
            const uint8_t* x = ring.box(ring.slot(box)) + lane_row;
            const int first_byte = (column_warp + box * tile.column_warps) * Tile::kBoxColumns * kRowBytes;
            UNROLL
            for (int step = 0; step < 4; ++step) {
                uint32_t a[4];
                ptx::ldmatrix_x4(a, x + ((2 * step + lane / 16) ^ lane % 8) * 16);
                UNROLL
                for (int pair = 0; pair < kTiles / 2; ++pair) {
                    uint32_t b[4];
                    ptx::ldmatrix_x4_trans(b, lane_places[pair] + first_byte + 16 * step * kRowBytes);
                    const uint32_t low[2] = {b[0], b[1]}, high[2] = {b[2], b[3]};
                    ptx::mma_16bit<T>(sums[2 * pair], a, low);
                    ptx::mma_16bit<T>(sums[2 * pair + 1], a, high);
                }
            }
        }
    }

    // How many bytes each block receives.
    DEVICE int sent_bytes() const { return tile.rows * tile.column_warps * ((quantize.rank + 15) / 16) * 64; }

    // The warp's sums, each row's to the block that finishes it, by the exchange after this one: once this block has received,
    // all others are through with what came by the exchange before.
    DEVICE void send(const Exchange& exchange) const {
        const int first_row = (warp & (tile.row_tiles - 1)) * Tile::kBoxRows + lane / 4;
        UNROLL
        for (int half = 0; half < 2; ++half) {
            const int row = first_row + 8 * half, there = row & ((1 << rows_shift) - 1);
            float* place = sum(exchange.next_buffer(), block, warp >> tile.row_tiles_shift, there) + lane % 4 * 4;
            UNROLL
            for (int pair = 0; pair < kTiles / 2; ++pair) {
                if (16 * pair >= quantize.rank) break;
                const float *low = sums[2 * pair] + 2 * half, *high = sums[2 * pair + 1] + 2 * half;
                const Words4 words = {ptx::float_bits(low[0]), ptx::float_bits(low[1]), ptx::float_bits(high[0]),
                                      ptx::float_bits(high[1])};
                ptx::send_to(uint32_t(row >> rows_shift), place + 16 * pair, words, exchange.next_barrier());
            }
        }
    }

    // By a part of the block's threads, of which this is number `thread` of `threads`: what it has received.
    DEVICE void finish(const Exchange& exchange, int group, unsigned thread, unsigned threads) const {
        constexpr int kPairs = kRanks / 2;
        const int next_partial = kRanks << rows_shift;
        ROLLED
        for (unsigned i = thread; i < unsigned(kPairs << rows_shift); i += threads) {
            const unsigned row = i / kPairs, pair = i % kPairs;
            const int x_row = group * tile.rows + (block << rows_shift) + int(row);
            if (2 * int(pair) >= quantize.rank || x_row >= quantize.rows) continue;
            // A thread has sent two ranks of one product and two of the next in one piece.
            const float* own = sum(exchange.buffer(), 0, 0, row) + pair / 8 * 16 + pair % 4 * 4 + pair / 4 % 2 * 2;
            float low = 0, high = 0;
            UNROLL_BY(8)
            for (int left = Tile::kBlocks * tile.column_warps; left; --left, own += next_partial) {
                const Words2 words = ptx::load_shared<Words2>(own);
                low += ptx::bits_float(words.x), high += ptx::bits_float(words.y);
            }
            T* out = static_cast<T*>(quantize.low_rank_act) + size_t(x_row) * quantize.rank + 2 * pair;
            ptx::store(reinterpret_cast<uint32_t*>(out), ptx::pack2<T>(low, high));
        }
    }

private:
    // Chunks of 8 ranks of neighbouring rows are turned against each other, so that eight of them lie in different banks.
    DEVICE uint8_t* place(int row, int chunk) const {
        const int turn = kRanks == 64 ? row % 8 : row / 2 % 4;
        return shared + tile.down_offset + row * kRowBytes + (chunk ^ turn) * 16;
    }

    // What a warp of block `from` has added up, of a row that this block finishes.
    DEVICE float* sum(int buffer, int from, int column_warp, int row) const {
        const int partial = (buffer * Tile::kBlocks + from) * tile.column_warps + column_warp;
        return reinterpret_cast<float*>(shared + tile.sums_offset) + ((partial << rows_shift) + row) * kRanks;
    }
};

}  // namespace halfbyte
