// The low-rank down projection of a block of rows: matrix products of each warp's columns, added up in the order of the warps.
#pragma once

#include "row_block.h"

namespace halfbyte {

// 32 ranks, from first_rank on, for kRowTiles times 16 rows.
template <class T, int kRowTiles>
struct LowRankDown {
    static constexpr int kSlots = 2 * kRowTiles;

    const T* proj_down;  // [columns, rank]
    T* low_rank_act;     // [rows, rank]
    int rank;
    float sums[kRowTiles][4][4] = {};

    DEVICE LowRankDown(const void* proj_down, void* low_rank_act, int rank)
        : proj_down(static_cast<const T*>(proj_down)), low_rank_act(static_cast<T*>(low_rank_act)), rank(rank) {}

    // Adds the product of a unit that is held.
    // The order of columns within a product is free as long as both operands keep it: thread q's two words of matrix `step` are
    // its columns 4 step..4 step + 3. The order of ranks is free too: thread g's column of product j is rank 4g + j, so that
    // 8 bytes of proj_down serve four products.
    DEVICE void add(const RowBlock<T, kSlots>& block, int held_step, int unit, int first_rank) {
        const int own_rank = first_rank + 4 * block.g;
        const bool valid = own_rank < rank && block.has_columns(unit);
        const T* source = proj_down + size_t(block.column(unit)) * rank + own_rank;
        UNROLL
        for (int half = 0; half < 2; ++half) {
            uint32_t x[kSlots][4];
            UNROLL
            for (int slot = 0; slot < kSlots; ++slot)
                split(ptx::load_shared<Words4>(block.held(held_step, slot, half)), x[slot]);
            Words2 down[8];
            UNROLL
            for (int i = 0; i < 8; ++i) {
                down[i] = valid ? ptx::load_readonly(reinterpret_cast<const Words2*>(source)) : Words2{0, 0};
                source += rank;
            }
            UNROLL
            for (int step = 0; step < 2; ++step) {
                uint32_t b[4][2];
                UNROLL
                for (int i = 0; i < 2; ++i) {
                    Words2 even = down[4 * step + 2 * i], odd = down[4 * step + 2 * i + 1];
                    b[0][i] = (even.x & 0xffffu) | odd.x << 16;
                    b[1][i] = even.x >> 16 | (odd.x & 0xffff0000u);
                    b[2][i] = (even.y & 0xffffu) | odd.y << 16;
                    b[3][i] = even.y >> 16 | (odd.y & 0xffff0000u);
                }
                UNROLL
                for (int tile = 0; tile < kRowTiles; ++tile) {
                    uint32_t a[4] = {x[2 * tile][2 * step], x[2 * tile + 1][2 * step], x[2 * tile][2 * step + 1],
                                     x[2 * tile + 1][2 * step + 1]};
                    UNROLL
                    for (int j = 0; j < 4; ++j) ptx::mma_16bit<T>(sums[tile][j], a, b[j]);
                }
            }
        }
    }

    // Writes the sums of all warps and starts again from zero. scratch: shared float [warps][rows of the block][32].
    DEVICE void finish(const RowBlock<T, kSlots>& block, float* scratch, int first_rank) {
        UNROLL
        for (int tile = 0; tile < kRowTiles; ++tile)
            UNROLL
            for (int j = 0; j < 4; ++j)
                UNROLL
                for (int i = 0; i < 4; ++i) {
                    const int row = block.row_in_block(2 * tile + i / 2), own_rank = 4 * (2 * block.q + i % 2) + j;
                    ptx::store_shared(scratch + (block.warp * block.kRows + row) * 32 + own_rank, sums[tile][j][i]);
                    sums[tile][j][i] = 0;
                }
        ptx::barrier();
        const int ranks = rank - first_rank < 32 ? rank - first_rank : 32;
        for (int pair = int(threadIdx.x); pair < block.kRows * 16; pair += int(blockDim.x)) {
            const int row = block.first_row + pair / 16, own_rank = pair % 16 * 2;
            if (row >= block.rows || own_rank >= ranks) continue;
            float low = 0, high = 0;
            for (int warp = 0; warp < block.tile.warps; ++warp) {
                const float* partial = scratch + warp * block.kRows * 32 + 2 * pair;
                low += ptx::load_shared<float>(partial);
                high += ptx::load_shared<float>(partial + 1);
            }
            T* out = low_rank_act + size_t(row) * rank + first_rank + own_rank;
            ptx::store(reinterpret_cast<uint32_t*>(out), ptx::pack2<T>(low, high));
        }
    }
};

}  // namespace halfbyte
