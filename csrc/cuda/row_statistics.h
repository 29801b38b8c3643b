// Sums over whole rows of a block, in an order that depends on nothing but the tile.
#pragma once

#include "row_block.h"

namespace halfbyte {

// argument_and_sum[slot]: a number of the row on entry; on return the sum of term(x, that number) over its columns, the same in
// all of the row's threads. scratch: shared float [warps][rows of the block].
template <class T, int kSlots, class Term>
DEVICE void sum_of_rows(RowBlock<T, kSlots>& block, float* scratch, float (&argument_and_sum)[kSlots], Term term) {
    float sums[kSlots] = {};
    block.for_each_unit([&](int step, int unit) {
        if (!block.has_columns(unit)) return;
        UNROLL
        for (int slot = 0; slot < kSlots; ++slot) {
            uint32_t x[8];
            float values[kRun], run = 0;
            block.load_held(step, slot, x);
            unpack_run<T>(x, values);
            UNROLL
            for (int i = 0; i < kRun; ++i) run += term(values[i], argument_and_sum[slot]);
            sums[slot] += run;
        }
    });
    UNROLL
    for (int slot = 0; slot < kSlots; ++slot) {
        sums[slot] += ptx::shuffle_xor(sums[slot], 1);
        sums[slot] += ptx::shuffle_xor(sums[slot], 2);
        if (block.q == 0) ptx::store_shared(scratch + block.warp * block.kRows + block.row_in_block(slot), sums[slot]);
    }
    ptx::barrier();
    UNROLL
    for (int slot = 0; slot < kSlots; ++slot) {
        argument_and_sum[slot] = 0;
        for (int warp = 0; warp < block.tile.warps; ++warp)
            argument_and_sum[slot] += ptx::load_shared<float>(scratch + warp * block.kRows + block.row_in_block(slot));
    }
    ptx::barrier();
}

}  // namespace halfbyte
