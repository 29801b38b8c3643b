// Bulk copies of boxes of a matrix into shared memory and back, by the copy engine. PTX ISA 9.7.9.27.
#pragma once

#include "ptx_mbarrier.h"
#include "tensor_map.h"

namespace halfbyte::ptx {

// Brings a map, which must be a part of the kernel's GRID_CONSTANT parameter, near the copy engine.
DEVICE void prefetch_map(const TensorMap* map SITE) {
#ifdef HALFBYTE_SIMT
    ONLY_INTERPRETED("prefetch_map");
#else
    asm volatile("prefetch.tensormap [%0];" ::"l"(map) : "memory");
#endif
}

// The box whose first byte is byte `column` of row `row`, to `shared` (a multiple of 1024). Its bytes, those outside the matrix
// too, count at `barrier`.
DEVICE void copy_box(void* shared, const TensorMap* map, int column, int row, Mbarrier* barrier SITE) {
#ifdef HALFBYTE_SIMT
    ONLY_INTERPRETED("copy_box");
#else
    asm volatile(
        "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3}], [%4];" ::"r"(
            shared_address(shared)),
        "l"(map), "r"(column), "r"(row), "r"(shared_address(barrier))
        : "memory");
#endif
}

// As copy_box, to the same place in every block of the cluster whose bit is set in `blocks`, counted at the barrier of each.
DEVICE void copy_box_to(uint16_t blocks, void* shared, const TensorMap* map, int column, int row, Mbarrier* barrier SITE) {
#ifdef HALFBYTE_SIMT
    ONLY_INTERPRETED("copy_box_to");
#else
    asm volatile(
        "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster "
        "[%0], [%1, {%2, %3}], [%4], %5;" ::"r"(shared_address(shared)),
        "l"(map), "r"(column), "r"(row), "r"(shared_address(barrier)), "h"(blocks)
        : "memory");
#endif
}

// Makes what this thread wrote to shared memory visible to copies that are started after it.
DEVICE void proxy_fence(ONLY_SITE) {
#ifdef HALFBYTE_SIMT
    ONLY_INTERPRETED("proxy_fence");
#else
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
#endif
}

// The box from `shared` (a multiple of 1024) to where its first byte is byte `column` of row `row`; what falls outside of the
// matrix is left out. It belongs to the group that this thread commits next, and must not change until that is waited for.
DEVICE void store_box(const TensorMap* map, int column, int row, const void* shared SITE) {
#ifdef HALFBYTE_SIMT
    ONLY_INTERPRETED("store_box");
#else
    asm volatile("cp.async.bulk.tensor.2d.global.shared::cta.bulk_group [%0, {%1, %2}], [%3];" ::"l"(map), "r"(column), "r"(row),
                 "r"(shared_address(shared))
                 : "memory");
#endif
}

DEVICE void bulk_commit(ONLY_SITE) {
#ifdef HALFBYTE_SIMT
    ONLY_INTERPRETED("bulk_commit");
#else
    asm volatile("cp.async.bulk.commit_group;" ::: "memory");
#endif
}

// Waits until all but N of this thread's committed groups have been read from shared memory.
template <int N>
DEVICE void bulk_wait_read(ONLY_SITE) {
#ifdef HALFBYTE_SIMT
    ONLY_INTERPRETED("bulk_wait_read");
#else
    asm volatile("cp.async.bulk.wait_group.read %0;" ::"n"(N) : "memory");
#endif
}

}  // namespace halfbyte::ptx
