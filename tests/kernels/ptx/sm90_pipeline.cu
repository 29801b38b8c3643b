// A product whose operands a warp copies and a warpgroup multiplies, in clusters of two blocks that share one operand; and the
// same with one thing left out each.
#include "ptx.h"

namespace halfbyte {

constexpr int kRows = 64, kColumns = 32, kBoxBytes = 128, kStages = 2, kThreads = 256;
constexpr int kTokenBytes = kRows * kBoxBytes, kWeightBytes = kColumns * kBoxBytes, kStageBytes = kTokenBytes + kWeightBytes;
constexpr int kSumsOffset = kStages * kStageBytes, kBarrierOffset = kSumsOffset + kRows * kColumns * 4;

enum Fault { kNone, kReleasedEarly, kNotWaitedFor, kFewerBytes, kNoFence, kNoProxyFence, kNoLastBarrier, kNoStoreWait };

struct alignas(64) Map {
    uint64_t words[16];
};

struct PipelineArguments {
    Map tokens, weights, sums;
    int boxes;
};

DEVICE void arrive_expecting(uint32_t barrier, int bytes) {
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes) : "memory");
}

DEVICE void arrive_at(uint32_t barrier, int rank) {
    asm volatile("{ .reg .b32 there; mapa.shared::cluster.u32 there, %0, %1;"
                 " mbarrier.arrive.release.cluster.shared::cluster.b64 _, [there]; }" ::"r"(barrier), "r"(rank) : "memory");
}

DEVICE void wait(uint32_t barrier, uint32_t parity) {
    uint32_t complete = 0;
    while (!complete)
        asm volatile("{ .reg .pred p; mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2; selp.u32 %0, 1, 0, p; }"
                     : "=r"(complete) : "r"(barrier), "r"(parity) : "memory");
}

DEVICE void cluster_barrier() {
    asm volatile("barrier.cluster.arrive.release.aligned; barrier.cluster.wait.acquire.aligned;" ::: "memory");
}

DEVICE void copy(uint32_t to, const Map& map, int byte, int row, uint32_t barrier) {
    asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3}], [%4];"
                 ::"r"(to), "l"(&map), "r"(byte), "r"(row), "r"(barrier) : "memory");
}

DEVICE void copy_to_both(uint32_t to, const Map& map, int byte, int row, uint32_t barrier) {
    asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster"
                 " [%0], [%1, {%2, %3}], [%4], %5;"
                 ::"r"(to), "l"(&map), "r"(byte), "r"(row), "r"(barrier), "h"(uint16_t(3)) : "memory");
}

DEVICE uint64_t descriptor(uint32_t matrix) { return matrix >> 4 | uint64_t(1024 >> 4) << 32 | uint64_t(1) << 62; }

DEVICE void multiply(int (&d)[16], uint64_t a, uint64_t b, bool accumulate) {
    asm volatile("{ .reg .pred p; setp.ne.b32 p, %18, 0; wgmma.mma_async.sync.aligned.m64n32k32.s32.s8.s8"
                 " {%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15}, %16, %17, p; }"
                 : "+r"(d[0]), "+r"(d[1]), "+r"(d[2]), "+r"(d[3]), "+r"(d[4]), "+r"(d[5]), "+r"(d[6]), "+r"(d[7]), "+r"(d[8]),
                   "+r"(d[9]), "+r"(d[10]), "+r"(d[11]), "+r"(d[12]), "+r"(d[13]), "+r"(d[14]), "+r"(d[15])
                 : "l"(a), "l"(b), "r"(int(accumulate)));
}

template <Fault kFault>
struct Pipeline {
    const PipelineArguments& arguments;
    uint32_t shared, rank;

    DEVICE uint32_t filled(int box) const { return shared + kBarrierOffset + 8 * (box % kStages); }
    DEVICE uint32_t emptied(int box) const { return filled(box) + 8 * kStages; }
    DEVICE uint32_t stage(int box) const { return shared + box % kStages * kStageBytes; }
    DEVICE static uint32_t parity(int box) { return box / kStages & 1; }

    // Each block copies its own rows, and half of the columns for both.
    DEVICE void produce() const {
        for (int box = 0; box < arguments.boxes; ++box) {
            wait(emptied(box), parity(box) ^ 1);
            arrive_expecting(filled(box), kFault == kFewerBytes ? kTokenBytes : kStageBytes);
            copy(stage(box), arguments.tokens, box * kBoxBytes, blockIdx.x * kRows, filled(box));
            const uint32_t half = stage(box) + kTokenBytes + rank * kWeightBytes / 2;
            copy_to_both(half, arguments.weights, box * kBoxBytes, rank * kColumns / 2, filled(box));
        }
    }

    DEVICE void release(int box) const {
        if (threadIdx.x % 32 < 2) arrive_at(emptied(box), threadIdx.x % 32);
    }

    DEVICE void consume() const {
        int sums[16];
        for (int box = 0; box < arguments.boxes; ++box) {
            if (kFault != kNotWaitedFor || box == 0) wait(filled(box), parity(box));
            const uint64_t a = descriptor(stage(box)), b = descriptor(stage(box) + kTokenBytes);
            if (kFault != kNoFence) asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
            for (int k = 0; k < 4; ++k) multiply(sums, a + 2 * k, b + 2 * k, box + k > 0);
            asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
            if (kFault == kReleasedEarly) release(box);
            asm volatile("wgmma.wait_group.sync.aligned 0;" ::: "memory");
            for (int i = 0; i < 16; ++i) asm volatile("" : "+r"(sums[i])::"memory");
            if (kFault != kReleasedEarly) release(box);
        }
        write(sums);
    }

    DEVICE void write(const int (&sums)[16]) const {
        const int thread = threadIdx.x % 128, row = thread / 32 * 16 + thread % 32 / 4, column = thread % 4 * 2;
        for (int i = 0; i < 16; ++i) {
            const int at = (row + i / 2 % 2 * 8) * kColumns + i / 4 * 8 + column + i % 2;
            asm volatile("st.shared.b32 [%0], %1;" ::"r"(shared + kSumsOffset + 4 * at), "r"(sums[i]) : "memory");
        }
        if (kFault != kNoProxyFence) asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
        asm volatile("bar.sync 1, 128;" ::: "memory");
        if (thread) return;
        asm volatile("cp.async.bulk.tensor.2d.global.shared::cta.bulk_group [%0, {%1, %2}], [%3];" ::"l"(&arguments.sums), "r"(0),
                     "r"(blockIdx.x * kRows), "r"(shared + kSumsOffset) : "memory");
        asm volatile("cp.async.bulk.commit_group;" ::: "memory");
        if (kFault != kNoStoreWait) asm volatile("cp.async.bulk.wait_group.read 0;" ::: "memory");
    }
};

template <Fault kFault>
DEVICE void run(const PipelineArguments& arguments) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
    SHARED_MEMORY(memory);
    Pipeline<kFault> one{arguments, uint32_t(__cvta_generic_to_shared(memory)), 0};
    asm("mov.u32 %0, %%cluster_ctarank;" : "=r"(one.rank));
    if (threadIdx.x == 0) {
        for (int stage = 0; stage < kStages; ++stage) {
            asm volatile("mbarrier.init.shared::cta.b64 [%0], 1;" ::"r"(one.filled(stage)) : "memory");
            asm volatile("mbarrier.init.shared::cta.b64 [%0], 8;" ::"r"(one.emptied(stage)) : "memory");
        }
        asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    }
    cluster_barrier();
    if (threadIdx.x < 128) {
        asm volatile("setmaxnreg.dec.sync.aligned.u32 40;");
        if (threadIdx.x == 0) one.produce();
    } else {
        asm volatile("setmaxnreg.inc.sync.aligned.u32 232;");
        one.consume();
    }
    __syncwarp();
    if (kFault != kNoLastBarrier) cluster_barrier();
#endif
}

#define PIPELINE(name, fault)                                                     \
    __global__ void __cluster_dims__(2, 1, 1) __launch_bounds__(kThreads)         \
        name(const __grid_constant__ PipelineArguments arguments) {               \
        run<fault>(arguments);                                                    \
    }

PIPELINE(whole, kNone)
PIPELINE(released_early, kReleasedEarly)
PIPELINE(not_waited_for, kNotWaitedFor)
PIPELINE(fewer_bytes, kFewerBytes)
PIPELINE(no_fence, kNoFence)
PIPELINE(no_proxy_fence, kNoProxyFence)
PIPELINE(no_last_barrier, kNoLastBarrier)
PIPELINE(no_store_wait, kNoStoreWait)

}  // namespace halfbyte
