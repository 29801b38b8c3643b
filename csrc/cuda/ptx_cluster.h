// Clusters of blocks, and registers handed between warpgroups. sm_90a and later; the shim has neither, so every host twin faults.
#pragma once

#include "platform.h"

namespace halfbyte::ptx {

#ifdef HALFBYTE_SIMT
#define ONLY_INTERPRETED(name) \
    simt::fault(site, name ": the shim has no clusters and warpgroups; the PTX interpreter runs this kernel")
#endif

// Which block of its cluster this is.
DEVICE uint32_t cluster_rank(ONLY_SITE) {
#ifdef HALFBYTE_SIMT
    ONLY_INTERPRETED("cluster_rank");
#else
    uint32_t rank;
    asm volatile("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
    return rank;
#endif
}

// All threads of all blocks of the cluster; orders their accesses to shared memory.
DEVICE void cluster_barrier(ONLY_SITE) {
#ifdef HALFBYTE_SIMT
    ONLY_INTERPRETED("cluster_barrier");
#else
    asm volatile("barrier.cluster.arrive.release;\n\tbarrier.cluster.wait.acquire;" ::: "memory");
#endif
}

// The warpgroup goes on with kRegisters for each thread, fewer than before.
template <int kRegisters>
DEVICE void release_registers(ONLY_SITE) {
#ifdef HALFBYTE_SIMT
    ONLY_INTERPRETED("release_registers");
#else
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(kRegisters));
#endif
}

// As release_registers, more than before; waits until others have released as many.
template <int kRegisters>
DEVICE void claim_registers(ONLY_SITE) {
#ifdef HALFBYTE_SIMT
    ONLY_INTERPRETED("claim_registers");
#else
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(kRegisters));
#endif
}

}  // namespace halfbyte::ptx
