// A warpgroup that multiplies 64 rows of every tile of its block.
#pragma once

#include "sm90_epilogue.h"
#include "sm90_producer.h"
#include "sm90_product.h"

namespace halfbyte {

template <class T, class Product, class Tile>
struct Consumer {
    using Sum = typename Product::Sum;
    static constexpr int kValues = Tile::kValues, kSlices = kBoxBytes / 32;
    static constexpr int kBoxesOfSum = 512 / kBoxBytes;

    const GemmArguments& arguments;
    const WarpgroupMemory<Tile> memory;
    const int rank, warp, lane;  // warp: of the consumers
    Ring<Tile> ring;

    DEVICE Consumer(const GemmArguments& arguments, const WarpgroupMemory<Tile>& memory, int rank, int warp)
        : arguments(arguments), memory(memory), rank(rank), warp(warp), lane(int(threadIdx.x) % 32) {}

    DEVICE void run() {
        const ClusterTiles<Tile> tiles(arguments);
        const int stride = int(gridDim.x) / Tile::kBlocks;
        ROLLED
        for (int pair = int(blockIdx.x) / Tile::kBlocks; pair < tiles.count(); pair += stride) {
            const auto block = tiles.block(pair, rank);
            const Columns<Tile> columns(arguments, block.column);
            const int first_row = block.row * Tile::kBlockM + 16 * warp;
            uint32_t y[kValues];
            multiply_codes(y, columns, first_row);
            if (arguments.rank_bytes) multiply_ranks(y);
            write_part<T, Tile>(y, memory.staging(warp), lane, first_row, columns, arguments);
        }
    }

private:
    DEVICE uint64_t tokens() const {
        return ptx::matrix_descriptor(memory.tokens(ring.stage) + warp / 4 * Tile::kHalfM * kBoxBytes);
    }

    DEVICE uint64_t weights() const { return ptx::matrix_descriptor(memory.weights(ring.stage)); }

    DEVICE void wait_until_filled() const { ptx::mbarrier_wait(memory.filled(ring.stage), ring.parity); }

    // Both blocks write into this one's stages, so both must know.
    DEVICE void release(int stage) const {
        if (lane < Tile::kBlocks) ptx::mbarrier_arrive_at(memory.emptied(stage), lane);
    }

    // The products of up to `boxes` stages, from zero on.
    DEVICE void sum_boxes(Sum (&sums)[kValues], int boxes) {
        int unreleased = 0;
        ROLLED
        for (int box = 0; box < boxes; ++box) {
            wait_until_filled();
            const uint64_t a = tokens(), b = weights();
            ptx::wgmma_fence();
            UNROLL
            for (int slice = 0; slice < kSlices; ++slice) Product::add(sums, a + 2 * slice, b + 2 * slice, box > 0 || slice > 0);
            ptx::wgmma_commit();
            ptx::wgmma_wait<1>();
            if (box > 0) release(unreleased);
            unreleased = ring.stage;
            ring.next();
        }
        ptx::wgmma_wait<0>();
        ptx::pin(sums);
        release(unreleased);
    }

    // y: bits of the float32 products with all scales applied.
    DEVICE void multiply_codes(uint32_t (&y)[kValues], const Columns<Tile>& columns, int first_row) {
        const int boxes = boxes_over(arguments.row_bytes);
        if constexpr (Product::kPromotes) {
            UNROLL
            for (int i = 0; i < kValues; ++i) y[i] = 0;
            ROLLED
            for (int left = boxes; left > 0; left -= kBoxesOfSum) {
                Sum sums[kValues];
                sum_boxes(sums, left < kBoxesOfSum ? left : kBoxesOfSum);
                UNROLL
                for (int i = 0; i < kValues; ++i) y[i] = ptx::float_bits(ptx::bits_float(y[i]) + sums[i]);
            }
        } else {
            sum_boxes(y, boxes);
        }
        scale(y, columns, first_row);
    }

    DEVICE void scale(uint32_t (&y)[kValues], const Columns<Tile>& columns, int first_row) const {
        const int row = first_row + lane / 4;
        const auto* row_scales = static_cast<const float*>(arguments.ascales);
        const float upper = row < arguments.m ? ptx::load_readonly(row_scales + row) : 0.0f;
        const float lower = row + 8 < arguments.m ? ptx::load_readonly(row_scales + row + 8) : 0.0f;
        // Rolled, or all scales would be loaded before the first is used, and there are no registers for them.
        constexpr int kTogether = 4, kSteps = Tile::kBlockN / 8 / kTogether;
        ROLLED
        for (int step = 0; step < kSteps; ++step) {
            float column_scales[kTogether][2];
            load_column_scales(column_scales, columns, 8 * kTogether * step);
            UNROLL
            for (int each = 0; each < kSteps; ++each) {
                if (step != each) continue;
                UNROLL
                for (int i = 0; i < 4 * kTogether; ++i) {
                    uint32_t& word = y[4 * kTogether * each + i];
                    word = ptx::float_bits(Product::value(word) * (i % 4 < 2 ? upper : lower) * column_scales[i / 4][i % 2]);
                }
                KEEP_APART();
            }
        }
    }

    template <int kTogether>
    DEVICE void load_column_scales(float (&scales)[kTogether][2], const Columns<Tile>& columns, int column_in_tile) const {
        UNROLL
        for (int j = 0; j < kTogether; ++j) {
            const int column = columns.of(column_in_tile + 8 * j + 2 * (lane % 4));
            const auto* from = reinterpret_cast<const Words2*>(static_cast<const float*>(arguments.wscales) + column);
            const Words2 pair = column < 0 ? Words2{0, 0} : ptx::load_readonly(from);
            scales[j][0] = ptx::bits_float(pair.x);
            scales[j][1] = ptx::bits_float(pair.y);
        }
    }

    DEVICE void multiply_ranks(uint32_t (&y)[kValues]) {
        ptx::pin(y);
        ROLLED
        for (int left = arguments.rank_bytes; left > 0; left -= kBoxBytes, ring.next()) {
            wait_until_filled();
            const uint64_t a = tokens(), b = weights();
            // Two products at a time: 32 ranks, the least that most layers have, take no more. What lies beyond the last is zero.
            constexpr int kTogether = 2;
            const int slices = left < kBoxBytes ? (left + 31) / 32 : kSlices;
            ROLLED
            for (int slice = 0; slice < slices; slice += kTogether) {
                ptx::wgmma_fence();
                UNROLL
                for (int each = 0; each < kTogether; ++each)
                    ptx::wgmma_16bit<T>(y, a + 2 * (slice + each), b + 2 * (slice + each));
                ptx::wgmma_commit();
                ptx::wgmma_wait<0>();
            }
            release(ring.stage);
        }
        ptx::pin(y);
    }
};

}  // namespace halfbyte
