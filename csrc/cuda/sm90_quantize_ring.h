// A warp's slots for boxes of x, which are filled and read in turn.
#pragma once

#include "ptx_tma.h"
#include "quantize_arguments.h"
#include "sm90_quantize_tile.h"

namespace halfbyte {

struct ClusterQuantizeArguments {
    TensorMap x;  // in boxes
    QuantizeArguments quantize;
    ClusterQuantizeTile tile;
};

struct BoxRing {
    uint8_t* boxes;
    ptx::Mbarrier* barriers;
    int slots;
    int first = 0;  // the slot of the group's first box
    uint32_t turn = 0;

    DEVICE BoxRing(uint8_t* shared, const ClusterQuantizeTile& tile, int warp)
        : boxes(shared + warp * tile.slots * ClusterQuantizeTile::kSlotBytes),
          barriers(reinterpret_cast<ptx::Mbarrier*>(shared + tile.barriers_offset + ClusterQuantizeTile::kExchangeBytes) +
                   warp * tile.slots),
          slots(tile.slots) {}

    // By all threads of the warp.
    DEVICE void start() const {
        if (threadIdx.x % 32 == 0) {
            for (int slot = 0; slot < slots; ++slot) ptx::mbarrier_init(filled(slot), 1);
            ptx::mbarrier_init_done();
        }
        ptx::warp_sync();
    }

    DEVICE int slot(int box) const { return first + box < slots ? first + box : first + box - slots; }
    DEVICE uint32_t parity(int box) const { return turn ^ uint32_t(first + box >= slots); }
    DEVICE uint8_t* box(int slot) const { return boxes + slot * ClusterQuantizeTile::kSlotBytes; }
    DEVICE ptx::Mbarrier* filled(int slot) const { return barriers + slot; }

    DEVICE void advance(int count) {
        turn = parity(count);
        first = slot(count);
    }
};

// What the blocks of a cluster send each other, again and again: into one of two buffers in turn, so that a block may send again
// as soon as it has received, for then everybody is through with what came before.
struct Exchange {
    ptx::Mbarrier* barriers;  // one for each buffer
    int count = 0;

    DEVICE Exchange(uint8_t* shared, const ClusterQuantizeTile& tile)
        : barriers(reinterpret_cast<ptx::Mbarrier*>(shared + tile.barriers_offset)) {}

    // By one thread, before a barrier of the cluster.
    DEVICE void start() const {
        ptx::mbarrier_init(barriers, 1);
        ptx::mbarrier_init(barriers + 1, 1);
        ptx::mbarrier_init_done();
    }

    DEVICE int buffer() const { return count % 2; }
    DEVICE int next_buffer() const { return 1 - buffer(); }
    DEVICE ptx::Mbarrier* barrier() const { return barriers + buffer(); }
    DEVICE ptx::Mbarrier* next_barrier() const { return barriers + next_buffer(); }

    // By one thread: what this block is to receive.
    DEVICE void expect(int bytes) const { ptx::mbarrier_arrive_expecting(barrier(), bytes); }

    DEVICE void receive() const { ptx::mbarrier_wait_for_cluster(barrier(), uint32_t(count / 2 % 2)); }
};

}  // namespace halfbyte
