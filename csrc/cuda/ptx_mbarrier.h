// Barriers in shared memory that count threads' arrivals and the bytes of bulk copies. A barrier's phase completes when both
// counts are through, and the next begins; a thread waits for a phase by its parity. PTX ISA 9.7.13.15.
#pragma once

#include "numbers.h"
#include "ptx_cluster.h"
#include "ptx_memory.h"

namespace halfbyte::ptx {

using Mbarrier = uint64_t;

// arrivals: of each phase. To be called by one thread, before mbarrier_init_done and a barrier of the cluster.
DEVICE void mbarrier_init(Mbarrier* barrier, int arrivals SITE) {
#ifdef HALFBYTE_SIMT
    ONLY_INTERPRETED("mbarrier_init");
#else
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(barrier)), "r"(arrivals) : "memory");
#endif
}

// Makes the thread's new barriers visible to the cluster and to the copy engine.
DEVICE void mbarrier_init_done(ONLY_SITE) {
#ifdef HALFBYTE_SIMT
    ONLY_INTERPRETED("mbarrier_init_done");
#else
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
#endif
}

// Arrives, and lets the phase wait for so many bytes of bulk copies.
DEVICE void mbarrier_arrive_expecting(Mbarrier* barrier, int bytes SITE) {
#ifdef HALFBYTE_SIMT
    ONLY_INTERPRETED("mbarrier_arrive_expecting");
#else
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(barrier)), "r"(bytes) : "memory");
#endif
}

// Arrives at the barrier that stands in the same place in block `rank` of the cluster. Orders no accesses of this thread to other
// blocks' memory: at the cluster's scope each arrival would wait for all of the thread's stores.
DEVICE void mbarrier_arrive_at(Mbarrier* barrier, uint32_t rank SITE) {
#ifdef HALFBYTE_SIMT
    ONLY_INTERPRETED("mbarrier_arrive_at");
#else
    asm volatile(
        "{\n\t.reg .b32 remote;\n\t"
        "mapa.shared::cluster.u32 remote, %0, %1;\n\t"
        "mbarrier.arrive.shared::cluster.b64 _, [remote];\n\t}" ::"r"(shared_address(barrier)),
        "r"(rank)
        : "memory");
#endif
}

// 16 bytes to the place of `shared` in block `rank` of the cluster, counted at the barrier in the place of `barrier` there: who
// waits for its phase sees them. Orders nothing else, so unlike a cluster's barrier it does not wait for the thread's stores.
DEVICE void send_to(uint32_t rank, void* shared, const Words4& words, Mbarrier* barrier SITE) {
#ifdef HALFBYTE_SIMT
    ONLY_INTERPRETED("send_to");
#else
    asm volatile(
        "{\n\t.reg .b32 place, counted;\n\t"
        "mapa.shared::cluster.u32 place, %0, %2;\n\t"
        "mapa.shared::cluster.u32 counted, %1, %2;\n\t"
        "st.async.shared::cluster.mbarrier::complete_tx::bytes.v4.b32 [place], {%3, %4, %5, %6}, [counted];\n\t}" ::"r"(
            shared_address(shared)),
        "r"(shared_address(barrier)), "r"(rank), "r"(words.x), "r"(words.y), "r"(words.z), "r"(words.w)
        : "memory");
#endif
}

// Of a fresh barrier the phase of parity 1 counts as complete.
DEVICE void mbarrier_wait(Mbarrier* barrier, uint32_t parity SITE) {
#ifdef HALFBYTE_SIMT
    ONLY_INTERPRETED("mbarrier_wait");
#else
    uint32_t complete;
    do {
        asm volatile(
            "{\n\t.reg .pred p;\n\t"
            "mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2;\n\t"
            "selp.u32 %0, 1, 0, p;\n\t}"
            : "=r"(complete)
            : "r"(shared_address(barrier)), "r"(parity)
            : "memory");
    } while (!complete);
#endif
}

// As mbarrier_wait, for what other blocks of the cluster have sent.
DEVICE void mbarrier_wait_for_cluster(Mbarrier* barrier, uint32_t parity SITE) {
#ifdef HALFBYTE_SIMT
    ONLY_INTERPRETED("mbarrier_wait_for_cluster");
#else
    uint32_t complete;
    do {
        asm volatile(
            "{\n\t.reg .pred p;\n\t"
            "mbarrier.try_wait.parity.acquire.cluster.shared::cta.b64 p, [%1], %2;\n\t"
            "selp.u32 %0, 1, 0, p;\n\t}"
            : "=r"(complete)
            : "r"(shared_address(barrier)), "r"(parity)
            : "memory");
    } while (!complete);
#endif
}

}  // namespace halfbyte::ptx
