// What differs between nvcc and the host build of the same kernel source (HALFBYTE_SIMT, csrc/simt).
#pragma once

#include <cstddef>
#include <cstdint>

#ifdef HALFBYTE_SIMT

#include "../simt/machine.h"

// The recorder looks kernels up by symbol, and a template's is visible only where its arguments' types are.
#pragma GCC visibility push(default)

#define KERNEL
#define DEVICE inline
#define LAUNCH_BOUNDS(threads, blocks_per_sm)
#define CLUSTER_OF(blocks)
#define GRID_CONSTANT
#define SHARED_MEMORY(name) uint8_t* name = ::halfbyte::simt::machine.shared
#define UNROLL
#define UNROLL_BY(count)
#define ROLLED
#define KEEP_APART()
// The caller's place in the source: a last parameter of everything the shim checks.
#define SITE , ::halfbyte::simt::Site site = ::halfbyte::simt::Site::current()
#define ONLY_SITE ::halfbyte::simt::Site site = ::halfbyte::simt::Site::current()

#define threadIdx (::halfbyte::simt::machine.thread->index)
#define blockIdx (::halfbyte::simt::machine.block)
#define blockDim (::halfbyte::simt::machine.block_size)
#define gridDim (::halfbyte::simt::machine.grid)

#else

#define KERNEL __global__
#define DEVICE __device__ __forceinline__
#define LAUNCH_BOUNDS(threads, blocks_per_sm) __launch_bounds__(threads, blocks_per_sm)
// Blocks that run at the same time and reach each other's shared memory; before sm_90 there are none.
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900
#define CLUSTER_OF(blocks) __cluster_dims__(blocks, 1, 1)
#else
#define CLUSTER_OF(blocks)
#endif
// Of a kernel's parameter whose address is taken: it stays where the host wrote it.
#define GRID_CONSTANT __grid_constant__
#define SHARED_MEMORY(name)                                                   \
    extern __shared__ __align__(1024) uint8_t halfbyte_shared_memory[];       \
    uint8_t* name = halfbyte_shared_memory
#define UNROLL _Pragma("unroll")
#define AS_PRAGMA(text) _Pragma(#text)
#define UNROLL_BY(count) AS_PRAGMA(unroll count)
#define ROLLED _Pragma("unroll 1")
// At the end of branches that read different registers: merged into one, they would index the registers, through local memory.
#define KEEP_APART() asm volatile("")
#define SITE
#define ONLY_SITE

#if defined(__CUDA_ARCH_FEAT_SM120_ALL) || defined(__CUDA_ARCH_FEAT_SM121_ALL) || \
    (defined(__CUDA_ARCH_FAMILY_SPECIFIC__) && __CUDA_ARCH_FAMILY_SPECIFIC__ >= 1200)
#define HAS_BLOCK_SCALED_MMA 1
#endif
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
#define HAS_WGMMA 1
#endif

#endif
