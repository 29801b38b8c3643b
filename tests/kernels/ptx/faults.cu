// Kernels that do one thing wrong each.
#include "ptx.h"

namespace halfbyte {

struct FaultArguments {
    const uint32_t* in;
    uint32_t* out;
};

KERNEL void load_beyond_the_end(FaultArguments arguments) {
    ptx::store(arguments.out + threadIdx.x, ptx::load(arguments.in + threadIdx.x + 3));
}

KERNEL void store_beyond_the_end(FaultArguments arguments) {
    ptx::store(arguments.out + 2 * threadIdx.x, ptx::load(arguments.in + threadIdx.x));
}

KERNEL void misaligned_load(FaultArguments arguments) {
    Words4 words = ptx::load(reinterpret_cast<const Words4*>(arguments.in + threadIdx.x / 8));
    ptx::store(arguments.out + threadIdx.x, words.x + words.w);
}

KERNEL void shared_load_beyond_the_end(FaultArguments arguments) {
    SHARED_MEMORY(shared);
    ptx::store(arguments.out + threadIdx.x, ptx::load_shared<uint32_t>(shared + 4 * threadIdx.x + 16));
}

KERNEL void unwritten_shared_memory(FaultArguments arguments) {
    SHARED_MEMORY(shared);
    ptx::store(arguments.out + threadIdx.x, ptx::load_shared<uint32_t>(shared + 4 * threadIdx.x));
}

template <int kWaitsForAllBut>
DEVICE void copy_through_shared(const FaultArguments& arguments) {
    SHARED_MEMORY(shared);
    ptx::cp_async_16(shared + 16 * threadIdx.x, arguments.in + 4 * threadIdx.x, true);
    ptx::cp_async_commit();
    ptx::cp_async_wait<kWaitsForAllBut>();
    ptx::barrier();
    ptx::store(arguments.out + threadIdx.x, ptx::load_shared<uint32_t>(shared + 16 * threadIdx.x));
}

KERNEL void waits_for_its_copy(FaultArguments arguments) { copy_through_shared<0>(arguments); }

KERNEL void waits_for_one_copy_too_few(FaultArguments arguments) { copy_through_shared<1>(arguments); }

KERNEL void invalid_copies_read_nothing(FaultArguments arguments) {
    SHARED_MEMORY(shared);
    ptx::cp_async_16(shared + 16 * threadIdx.x, threadIdx.x < 8 ? arguments.in + 4 * threadIdx.x : nullptr, threadIdx.x < 8);
    ptx::cp_async_commit();
    ptx::cp_async_wait<0>();
    ptx::warp_sync();
    ptx::store(arguments.out + threadIdx.x, ptx::load_shared<uint32_t>(shared + 16 * threadIdx.x));
}

KERNEL void barrier_of_half_a_warp(FaultArguments arguments) {
    if (ptx::load(arguments.in + threadIdx.x) < 16) ptx::barrier();
    ptx::store(arguments.out + threadIdx.x, 1u);
}

KERNEL void barrier_after_one_warp_returned(FaultArguments arguments) {
    if (threadIdx.x >= 32) return;
    ptx::barrier();
    ptx::store(arguments.out + threadIdx.x, 1u);
}

KERNEL void product_of_half_a_warp(FaultArguments arguments) {
    int sums[4] = {0, 0, 0, 0};
    uint32_t a[4] = {1, 2, 3, 4}, b[2] = {5, 6};
    if (ptx::load(arguments.in + threadIdx.x) < 16) ptx::mma_s8(sums, a, b);
    ptx::store(arguments.out + threadIdx.x, uint32_t(sums[0]));
}

KERNEL void shuffle_of_half_a_warp(FaultArguments arguments) {
    uint32_t value = ptx::load(arguments.in + threadIdx.x);
    if (value < 16) value = ptx::shuffle(value, 20);
    ptx::store(arguments.out + threadIdx.x, value);
}

}  // namespace halfbyte
