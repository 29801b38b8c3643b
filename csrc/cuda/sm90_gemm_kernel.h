// The product on warpgroups: one warpgroup copies, two multiply and write, over as many tiles as fall to the block.
#pragma once

#include "sm90_consumer.h"

namespace halfbyte {

template <class T, class Product, class Tile, bool kPromotes, bool kQuantizes>
DEVICE void multiply_tiles(const WarpgroupArguments& arguments) {
    SHARED_MEMORY(shared);
    const WarpgroupMemory<Tile> memory{shared};
    // The same in all lanes, which the compiler cannot see of the thread's index.
    const int warp = ptx::shuffle(int(threadIdx.x) / 32, 0), rank = int(ptx::cluster_rank());
    if (threadIdx.x == 0) {
        ptx::prefetch_map(&arguments.qx);
        ptx::prefetch_map(&arguments.qweight);
        UNROLL
        for (int stage = 0; stage < Tile::kStages; ++stage) {
            ptx::mbarrier_init(memory.filled(stage), 1);
            ptx::mbarrier_init(memory.emptied(stage), Tile::kBlocks * Tile::kConsumerWarps);
        }
        ptx::mbarrier_init_done();
    }
    ptx::cluster_barrier();
    // The tile and what it takes to write it need more registers than each of 384 threads can have.
    if (warp < 4) {
        ptx::release_registers<40>();
        if (threadIdx.x == 0) Producer<Tile>(arguments, memory, rank).run();
    } else {
        ptx::claim_registers<232>();
        Consumer<T, Product, Tile, kPromotes, kQuantizes>(arguments, memory, rank, warp - 4).run();
    }
    // Until then the other block may copy into this one's stages, or arrive at its barriers.
    ptx::cluster_barrier();
}

template <class T, class Product, class Tile, bool kPromotes, bool kQuantizes>
KERNEL CLUSTER_OF(Tile::kBlocks) void LAUNCH_BOUNDS(Tile::kThreads, 1)
    warpgroup_gemm_kernel(const GRID_CONSTANT WarpgroupArguments arguments) {
#if defined(HALFBYTE_SIMT) || defined(HAS_WGMMA)
    multiply_tiles<T, Product, Tile, kPromotes, kQuantizes>(arguments);
#else
    ptx::trap();
#endif
}

}  // namespace halfbyte
