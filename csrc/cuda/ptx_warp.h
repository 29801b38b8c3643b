// Barriers, shuffles and the trap. Every thread of the block (barrier) or warp (all others) must come to the same call.
#pragma once

#include "platform.h"

namespace halfbyte::ptx {

DEVICE void barrier(ONLY_SITE) {
#ifdef HALFBYTE_SIMT
    simt::barrier(site);
#else
    __syncthreads();
#endif
}

// Also orders the warp's accesses to memory, which no other warp instruction does.
DEVICE void warp_sync(ONLY_SITE) {
#ifdef HALFBYTE_SIMT
    simt::warp_sync(site);
#else
    __syncwarp();
#endif
}

// Ends the launch as a failed one.
DEVICE void trap(ONLY_SITE) {
#ifdef HALFBYTE_SIMT
    simt::fault(site, "trap");
#else
    __trap();
#endif
}

// The value of the warp's lane `lane`. T: 4 bytes.
template <class T>
DEVICE T shuffle(T value, int lane SITE) {
    static_assert(sizeof(T) == 4, "shuffle moves 4 bytes");
#ifdef HALFBYTE_SIMT
    return simt::shuffle("shuffle", value, unsigned(lane) % 32, site);
#else
    return __shfl_sync(~0u, value, lane);
#endif
}

template <class T>
DEVICE T shuffle_xor(T value, int mask SITE) {
    static_assert(sizeof(T) == 4, "shuffle_xor moves 4 bytes");
#ifdef HALFBYTE_SIMT
    return simt::shuffle("shuffle_xor", value, (threadIdx.x ^ unsigned(mask)) % 32, site);
#else
    return __shfl_xor_sync(~0u, value, mask);
#endif
}

}  // namespace halfbyte::ptx
